//go:build unix

package admin

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// TestMetrics: each metric there is, with names that were chosen by who writes settings
// as no more than labels, in the form that Prometheus reads and its linter likes.
func TestMetrics(t *testing.T) {
	s := newSite(t)
	answer := s.get("/metrics")
	text := answer.Body.String()
	if answer.Code != http.StatusOK || !strings.HasPrefix(answer.Header().Get("Content-Type"), "text/plain") {
		t.Fatalf("%d, %v\n%s", answer.Code, answer.Header(), text)
	}
	quoted := strings.ReplaceAll(evil, `"`, `\"`)
	for _, line := range []string{
		`sallyport_build_info{go="go`, `sallyport_accepting 1`, `sallyport_accepting_paused 0`, `sallyport_connections 2`, `sallyport_connections_max 9`,
		`sallyport_handshakes 1`, `sallyport_handshakes_max 4`,
		`sallyport_sessions_opened_total{listener="` + quoted + `",protocol="socks5"} 3`,
		`sallyport_sessions_open{listener="` + quoted + `",protocol="socks5"} 1`,
		`sallyport_sessions_ended_total{listener="` + quoted + `",protocol="socks5",reason="closed"} 1`,
		`sallyport_sessions_refused_total{listener="` + quoted + `",protocol="socks5",reason="denied"} 1`,
		`sallyport_sessions_refused_total{listener="bad ` + "\uFFFD" + ` utf-8",protocol="none",reason="garbage"} 2`,
		`sallyport_bytes_total{direction="down",listener="` + quoted + `",protocol="socks5"} 20`,
		`sallyport_rule_hits_total{rule="` + quoted + `"} 2`,
		`sallyport_user_bytes_total{direction="down",user="alice"} 2`, `sallyport_user_bytes_total{direction="up",user=""} 3`,
		`sallyport_quota_warnings_total{limit="daily"} 1`, `sallyport_quota_refused_sessions_total{limit="daily"} 2`, `sallyport_quota_ended_sessions_total{limit="daily"} 3`,
		`sallyport_ledger_up 0`, `sallyport_ledger_writes_total 0`, `sallyport_ledger_failed_writes_total 0`,
		`sallyport_upstream_up{proxy="socks5h://gw:1080",upstream="` + quoted + `"} 1`,
		`sallyport_certificate_expiry_timestamp_seconds{file="",listener="lan"} 0`,
		`sallyport_last_reload_successful 0`, `sallyport_last_reload_timestamp_seconds 1`,
		`sallyport_log_lines_lost_total{log="log"} 5`, `go_goroutines `,
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("there is no line %q", line)
		}
	}
	if found, err := promlint.New(strings.NewReader(text)).Lint(); err != nil || len(found) > 0 {
		t.Errorf("the linter says %v, %v", found, err)
	}
}

// TestWhoReadsMetrics: who can sign in, or everybody where the settings say so, and no
// page of a name that was made to lead here.
func TestWhoReadsMetrics(t *testing.T) {
	s := newSite(t)
	s.cookie = nil
	token := func(text string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+text) }
	}
	expects := func(want int, change func(*http.Request)) {
		t.Helper()
		if answer := s.send(http.MethodGet, "/metrics", "", change); answer.Code != want {
			t.Errorf("%d, want %d", answer.Code, want)
		}
	}
	expects(http.StatusUnauthorized, nil)
	expects(http.StatusUnauthorized, token("monitor:guess"))
	expects(http.StatusOK, token("monitor:secret"))
	s.role = Viewer
	expects(http.StatusOK, token("monitor:secret"))
	panel := s.panel()
	panel.OpenMetrics = true
	s.handler = panel.Page(false)
	expects(http.StatusOK, nil)
	expects(http.StatusMisdirectedRequest, func(r *http.Request) { r.Host = "evil.example" })
	if answer := s.get("/api/v1/now"); answer.Code != http.StatusUnauthorized {
		t.Errorf("open metrics open the API: %d", answer.Code)
	}
}

// TestProbes: they are there for whoever asks, and tell nothing but that.
func TestProbes(t *testing.T) {
	s := newSite(t)
	s.cookie = nil
	for _, test := range []struct {
		path  string
		fault error
		code  int
		text  string
	}{
		{"/healthz", nil, http.StatusOK, "ok\n"},
		{"/healthz", errors.New("draining"), http.StatusOK, "ok\n"},
		{"/readyz", nil, http.StatusOK, "ready\n"},
		{"/readyz", errors.New("draining"), http.StatusServiceUnavailable, "draining\n"},
	} {
		s.fault = test.fault
		if answer := s.get(test.path); answer.Code != test.code || answer.Body.String() != test.text {
			t.Errorf("%s: %d %q, want %d %q", test.path, answer.Code, answer.Body, test.code, test.text)
		}
		if answer := s.post(test.path, nil); answer.Code == http.StatusOK {
			t.Errorf("POST %s: %d", test.path, answer.Code)
		}
	}
}

// TestNamesInDeploy: what dashboards, alerts and the page about them name is what there
// is, metrics and their labels; and each metric of ours is on the page.
func TestNamesInDeploy(t *testing.T) {
	s := newSite(t)
	labels := map[string]string{} // of each metric
	for _, m := range regexp.MustCompile(`(?m)^([a-z_]+)(\{.*\})? `).FindAllStringSubmatch(s.get("/metrics").Body.String(), -1) {
		labels[m[1]] += m[2]
	}
	const folder = "../../"
	for _, file := range []string{"deploy/prometheus/alerts.yaml", "deploy/prometheus/alerts_test.yaml", "deploy/grafana/sallyport.json", "docs/observing.md"} {
		content, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(content), `\"`, `"`)
		used := regexp.MustCompile(`\b((?:sallyport|process|go)_[a-z_]+)\b(\{[^}]*\})?`).FindAllStringSubmatch(text, -1)
		if len(used) < 10 {
			t.Errorf("%s: %d names: the test looks at the wrong place", file, len(used))
		}
		for _, use := range used {
			isThere(t, file, use[1], use[2], labels)
		}
		for name := range labels {
			if file == "docs/observing.md" && strings.HasPrefix(name, "sallyport_") && !strings.Contains(text, "`"+name) {
				t.Errorf("%s does not tell of %s", file, name)
			}
		}
	}
}

// isThere looks for a metric that a file names, and for the labels that it asks for.
func isThere(t *testing.T, file, name, asked string, labels map[string]string) {
	t.Helper()
	has, known := labels[name]
	if !known {
		t.Errorf("%s: there is no metric %s", file, name)
	}
	for _, label := range regexp.MustCompile(`\b([a-z]+) *=~?"`).FindAllStringSubmatch(asked, -1) {
		if l := label[1]; l != "instance" && l != "job" && !strings.Contains(has, l+`="`) {
			t.Errorf("%s: the metric %s has no label %s", file, name, l)
		}
	}
}
