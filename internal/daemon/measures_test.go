//go:build unix

package daemon

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
)

// scrape asks what is for programs, as on the unix socket.
func (s *served) scrape(path string) (code int, text string) {
	s.Helper()
	w := httptest.NewRecorder()
	s.panel(nil).Here().ServeHTTP(w, httptest.NewRequestWithContext(s.Context(), http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

// TestMetricsOfAServer: what a server counts is what its metrics say.
func TestMetricsOfAServer(t *testing.T) {
	s := serveIn(t, oneListener+"ledger: sqlite:used.db\n"+
		"upstreams: {hq: {proxies: 'socks5://127.0.0.1:1'}}\n"+
		"limits: {daily: {quota: 1 GB, every: day, per: user}}\n"+
		"rules: [{allow: all, to: any, users: alice, proof: claimed, limits: daily}, {allow: rest, to: 192.0.2.1, via: hq}, {allow: other, to: 192.0.2.2, via: hq, outgoing: 127.0.0.1}]\n")
	echo := proxytest.Echo(t, "127.0.0.1")
	alice := s.connects(s.at("lan"), "alice", echo)
	proxytest.Granted4(t, alice)
	proxytest.Refused4(t, s.connects(s.at("lan"), "bob", echo), 91)
	lives(t, "alice", alice)
	proxytest.Eventually(t, "what was moved is counted", func() bool {
		_, text := s.scrape("/metrics")
		return !strings.Contains(text, `sallyport_bytes_total{direction="up",listener="lan",protocol="socks4"} 0`)
	})
	code, text := s.scrape("/metrics")
	if code != http.StatusOK {
		t.Fatalf("%d: %s", code, text)
	}
	for _, line := range []string{
		`sallyport_sessions_open{listener="lan",protocol="socks4"} 1`, `sallyport_sessions_opened_total{listener="lan",protocol="socks4"} 2`,
		`sallyport_sessions_refused_total{listener="lan",protocol="socks4",reason="denied"} 1`, `sallyport_rule_hits_total{rule="all"} 1`,
		`sallyport_rule_hits_total{rule="rest"} 0`, `sallyport_accepting 1`, `sallyport_handshakes 0`, `sallyport_quota_refused_sessions_total{limit="daily"} 0`,
		`sallyport_upstream_up{proxy="socks5://127.0.0.1:1",upstream="hq"} `, `sallyport_ledger_up 1`, `sallyport_last_reload_successful 1`,
		`sallyport_log_lines_lost_total{log="log"} 0`, `sallyport_build_info{`,
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("there is no line %q", line)
		}
	}
	if n := strings.Count(text, `upstream="hq"`); n != 1 {
		t.Errorf("an upstream of two rules is there %d times", n)
	}
	if strings.Contains(text, "alice") {
		t.Error("a user is among the metrics, and nobody asked for users")
	}
	if code, text := s.scrape("/readyz"); code != http.StatusOK || text != "ready\n" {
		t.Errorf("while it serves: %d %q", code, text)
	}
	s.end()
	if code, text := s.scrape("/readyz"); code != http.StatusServiceUnavailable || !strings.HasPrefix(text, "draining") {
		t.Errorf("when it has stopped: %d %q", code, text)
	}
	if _, text := s.scrape("/metrics"); !strings.Contains(text, "\nsallyport_accepting 0\n") {
		t.Error("when it has stopped, it says that it accepts")
	}
}

// TestMetricsOfUsers: they are there where the settings ask for them.
func TestMetricsOfUsers(t *testing.T) {
	d, err := Open(t.Context(), writeSettings(t, oneListener+"ledger: off\nadmin: {listen: off, metrics_users: 10}\n"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, name := range []string{"a\nb", `a\x0ab`} { // of which the log says the same
		d.live.Closed(server.NewSession(server.Record{Rule: "all", Identity: server.Identity{Name: name, Proof: server.Password}}), nil)
	}
	_, text := (&served{TB: t, Daemon: d}).scrape("/metrics")
	if n := strings.Count(text, `sallyport_user_bytes_total{direction="up",user="a\`); n < 1 {
		t.Errorf("no user is among the metrics:\n%s", text)
	}
}
