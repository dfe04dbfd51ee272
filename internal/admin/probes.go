package admin

import (
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	mostScrapes = 4 // at once
	scrapeTime  = 5 * time.Second
)

// handleProbes adds what programs look at: metrics, and whether the server lives and
// serves.
func handleProbes(mux *http.ServeMux, p *Panel) {
	all := prometheus.NewRegistry()
	all.MustRegister(
		&collector{p, newFamilies()},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	mux.Handle("GET /metrics", promhttp.HandlerFor(all, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: mostScrapes, Timeout: scrapeTime,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_ = p.Daemon.Status() // takes the locks without which nothing goes on
		say(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := p.Meters.Ready(); err != nil {
			say(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		say(w, http.StatusOK, "ready")
	})
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text+"\n") // who has left learns nothing
}
