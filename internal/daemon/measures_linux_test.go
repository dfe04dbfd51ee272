package daemon

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkMetrics9000 is one look at the metrics with 9,000 open sessions.
func BenchmarkMetrics9000(b *testing.B) {
	root := benchedPage(b)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/metrics", nil)
		r.Host = "127.0.0.1"
		r.Header.Set("Authorization", "Bearer root:secret")
		w := httptest.NewRecorder()
		root.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}
