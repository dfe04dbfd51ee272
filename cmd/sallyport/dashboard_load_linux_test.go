package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/internal/proxytest"
)

// What BenchmarkDashboard does; docs/performance.md has what it gave.
var (
	seen     = flag.Int("seen", 9000, "how many sessions BenchmarkDashboard keeps open; a hundred of them move")
	watchers = flag.Int("watchers", 20, "how many browsers look at them")
	watched  = flag.Duration("watched", 20*time.Second, "for how long they do, and nobody does")
)

// BenchmarkDashboard looks at many sessions of a server that is a process of its own: the
// page of sessions, its updates, and the metrics. It is run once (-benchtime 1x).
func BenchmarkDashboard(b *testing.B) {
	u := newUpgradable(b)
	if err := (daemon.Users{File: filepath.Join(u.dir, "administrators")}).Add(b.Context(), "root", "secret"); err != nil {
		b.Fatal(err)
	}
	u.starts(b, "listeners: {name: lan, listen: '127.0.0.1:0'}\nrules: {allow: all, from: loopback, to: any}\nledger: off\nlog: {level: warn}\n"+
		"admin: {socket: admin.sock, listen: '127.0.0.1:0', file: administrators}\n")
	port := proxytest.Echo(b, "127.0.0.1").Port()
	used, end := use{TB: b}, make(chan struct{})
	defer used.all.Wait()
	defer close(end)
	for i := range *seen {
		s, err := u.session(port)
		if err != nil {
			b.Fatalf("session %d: %v", i, err)
		}
		if i < 100 {
			used.all.Go(func() { used.transfers(s, end) })
		} else {
			defer s.Close()
		}
	}
	v := u.browser()
	b.ReportMetric(v.looks("/sessions", fmt.Sprintf("Open sessions: %d", *seen)), "ms/view")
	b.ReportMetric(v.looks("/metrics", "sallyport_sessions_open"), "ms/metrics")
	idle := u.cpuOf(*watched)
	var watching sync.WaitGroup
	updates := make(chan int, *watchers)
	stop := make(chan struct{})
	for range *watchers {
		stream := v.get("/live/sessions")
		watching.Go(func() { updates <- countEvents(stream, stop) })
	}
	busy := u.cpuOf(*watched)
	close(stop)
	watching.Wait()
	all := 0
	for range *watchers {
		all += <-updates
	}
	if all < *watchers {
		b.Errorf("%d browsers had %d updates", *watchers, all)
	}
	share := float64(busy-idle) / float64(*watchers) / float64(*watched) * 100
	b.ReportMetric(share, "%core/browser")
	b.ReportMetric(float64(idle)/float64(*watched)*100, "%core/nobody")
	b.ReportMetric(float64(all)/float64(*watchers), "updates/browser")
}

// countEvents returns how many server-sent events there were until stop is closed.
func countEvents(stream *http.Response, stop <-chan struct{}) (n int) {
	go func() {
		<-stop
		stream.Body.Close()
	}()
	lines := bufio.NewScanner(stream.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if lines.Text() == "" {
			n++
		}
	}
	return n
}

// onlooker is a browser that has signed in to the dashboard.
type onlooker struct {
	testing.TB
	base   string
	cookie *http.Cookie
}

func (u *upgradable) browser() onlooker {
	u.Helper()
	greeting, err := os.ReadFile(filepath.Join(u.dir, "out"))
	if err != nil {
		u.Fatal(err)
	}
	_, base, _ := strings.Cut(string(greeting), "dashboard: ")
	base, _, _ = strings.Cut(base, "/\n")
	r, err := http.NewRequestWithContext(u.Context(), http.MethodPost, base+"/sign-in", strings.NewReader(url.Values{"name": {"root"}, "password": {"secret"}}.Encode()))
	if err != nil {
		u.Fatal(err)
	}
	r.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Origin": {base}}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		u.Fatal(err)
	}
	defer answer.Body.Close()
	if len(answer.Cookies()) != 1 {
		u.Fatalf("sign in: %s", answer.Status)
	}
	return onlooker{u, base, answer.Cookies()[0]}
}

// get asks for a page. The caller closes its body.
func (v onlooker) get(path string) *http.Response {
	v.Helper()
	r, err := http.NewRequestWithContext(v.Context(), http.MethodGet, v.base+path, http.NoBody)
	if err != nil {
		v.Fatal(err)
	}
	r.AddCookie(v.cookie)
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		v.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK {
		v.Fatalf("%s: %s", path, answer.Status)
	}
	return answer
}

// looks asks for a page that must have some words in it, and returns how long the first
// answer took, in milliseconds.
func (v onlooker) looks(path, words string) float64 {
	v.Helper()
	began := time.Now()
	answer := v.get(path)
	body, err := io.ReadAll(answer.Body)
	took := time.Since(began)
	answer.Body.Close()
	if err != nil || !strings.Contains(string(body), words) {
		v.Errorf("%s lacks %q: %v", path, words, err)
	}
	return took.Seconds() * 1000
}

// cpuOf returns the CPU time that the server takes from now on until a time has passed.
func (u *upgradable) cpuOf(span time.Duration) time.Duration {
	u.Helper()
	before := u.cpu()
	<-time.After(span)
	return u.cpu() - before
}

// cpu is the CPU time of the server since it began (proc_pid_stat(5)).
func (u *upgradable) cpu() (all time.Duration) {
	u.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", u.first))
	if err != nil {
		u.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	for _, field := range fields[11:13] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			u.Fatal(err)
		}
		all += time.Duration(ticks) * 10 * time.Millisecond // of which Linux tells 100 a second
	}
	return all
}
