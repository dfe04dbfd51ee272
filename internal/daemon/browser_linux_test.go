package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdpnetwork "github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// browserPatience bounds each step of a browser.
const browserPatience = 30 * time.Second

// house is a daemon with a dashboard, a target, and a browser in front of it.
type house struct {
	*testing.T
	*Daemon
	src     Source
	target  string // host:port of an HTTP server
	profile string // the folder of the browser, which is in its command line
	browser func() context.Context
}

const houseSettings = `
listeners: {name: lan, listen: 127.0.0.1:0}
users: {file: users}
groups: {staff: [alice, bob], guests: {ledger: true}}
limits:
  fair: {rate: 800 Mbit/s, per: user}
  few: {sessions: 20000, per: source}
  daily: {quota: 5 GiB, every: day, per: user}
rules:
  - {deny: 'nothing <b>there</b>', to: 192.0.2.0/24}
  - {allow: this machine, from: loopback, protocols: [socks4, socks4a], to: any, limits: few}
  - {allow: members, users: any, proof: password, to: any, limits: [fair, daily]}
ledger: {store: 'sqlite:ledger.db', flush: 100ms}
admin: {listen: 127.0.0.1:0, file: administrators, socket: admin.sock, viewers: vera}
`

// newHouse serves until the test ends. Root is who runs it in a container: Chromium
// then needs --no-sandbox.
func newHouse(t *testing.T) *house {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts a browser")
	}
	dir, err := os.MkdirTemp("", "house") // short: the socket's name is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &house{T: t, src: Source{File: filepath.Join(dir, "s.yaml"), Version: "1"}}
	users := access.UsersEditor{Path: filepath.Join(dir, "users")}
	if err := errors.Join(
		os.WriteFile(h.src.File, []byte(houseSettings), 0o600), users.Add("alice", "wonderland"),
		(access.UsersEditor{Path: filepath.Join(dir, "administrators")}).Add("root", "secret"),
	); err != nil {
		t.Fatal(err)
	}
	h.serve()
	h.serveTarget()
	h.startBrowser()
	return h
}

func (h *house) serve() {
	h.Helper()
	var said lockedBuffer
	var err error
	if h.Daemon, err = Open(h.Context(), h.src, &said); err != nil {
		h.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Daemon.Run(ctx, ctx) }()
	h.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			h.Errorf("Run: %v\n%s", err, said.String())
		}
	})
}

// serveTarget serves a word, and a body without an end.
func (h *house) serveTarget() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		piece := make([]byte, 64<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	s := httptest.NewServer(mux)
	h.Cleanup(s.Close)
	h.target = s.Listener.Addr().String()
}

func (h *house) startBrowser() {
	h.profile = h.TempDir()
	allocator, end := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.UserDataDir(h.profile), chromedp.Env("HOME="+h.TempDir()))...)
	browser, cancel := chromedp.NewContext(allocator)
	h.browser = func() context.Context { return browser }
	h.Cleanup(func() {
		stop, over := context.WithTimeout(browser, browserPatience)
		defer over()
		if err := chromedp.Cancel(stop); err != nil && !errors.Is(err, context.Canceled) {
			h.Logf("the browser's end: %v", err)
		}
		cancel()
		end()
	})
	h.do(chromedp.Navigate("about:blank"))
}

// do has the browser take steps.
func (h *house) do(steps ...chromedp.Action[chromedp.Void]) {
	h.Helper()
	h.do1(chromedp.Steps(steps...))
}

func (h *house) do1(step chromedp.Action[chromedp.Void]) {
	h.Helper()
	_ = ask(h, step)
}

// ask has the browser find something out.
func ask[T any](h *house, a chromedp.Action[T]) T {
	h.Helper()
	ctx := h.browser()
	if c := chromedp.FromContext(ctx); c != nil && c.Target != nil { // the first step is the browser's start, which has no limit
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, browserPatience)
		defer cancel()
	}
	value, err := chromedp.Run(ctx, a)
	if err != nil {
		html, _ := chromedp.Run(h.browser(), chromedp.OuterHTML(chromedp.CSS("html")))
		h.Fatalf("the browser: %v, on the page\n%s", err, html)
	}
	return value
}

// call has the browser obey a command of its protocol.
func call[P, R any](h *house, command cdp.Command[P, R], params P) R {
	h.Helper()
	return ask(h, func(ctx context.Context, t *chromedp.Target) (R, error) { return cdp.Call(ctx, t, command, params) })
}

// until waits for a JavaScript expression to be true.
func (h *house) until(expression string) {
	h.Helper()
	h.do1(chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingInterval(50*time.Millisecond)))
}

func (h *house) page(path string) string { return strings.TrimSuffix(h.Daemon.page.url(), "/") + path }

// signIn signs in by the page.
func (h *house) signIn() {
	h.Helper()
	h.do(
		chromedp.Navigate(h.page("/sessions")), // which leads to the page for that
		chromedp.SendKeys(chromedp.CSS("input[name=name]"), "root"),
		chromedp.SendKeys(chromedp.CSS("input[name=password]"), "secret\n"),
		chromedp.WaitVisible(chromedp.CSS(`nav a[href="/sessions"]`)),
	)
}

// curl asks through the proxy by the scheme, with a login or without. It is ended
// with the test.
func (h *house) curl(scheme, login, url string, more ...string) *exec.Cmd {
	h.mu.Lock()
	proxy := h.inForce.doors[0].socket.Addr().String()
	h.mu.Unlock()
	args := append([]string{"-sS", "--max-time", "60", "--proxy", scheme + "://" + proxy, url}, more...)
	if login != "" {
		args = append(args, "--proxy-user", login)
	}
	return exec.CommandContext(h.Context(), "curl", args...)
}

// TestDashboard does by the page what an administrator does.
func TestDashboard(t *testing.T) {
	h := newHouse(t)
	h.signIn()
	for name, does := range map[string]func(*house){
		"a download moves, is slowed, and is ended": (*house).endsDownload,
		"a user is added, and comes in at once":     (*house).addsUser,
		"a user's groups are changed":               (*house).changesGroups,
		"a refusal appears, with its reason":        (*house).seesRefusal,
		"the box to try requests is explain":        (*house).triesRequest,
		"every page in each language and scheme":    (*house).shows,
	} {
		t.Run(name, func(t *testing.T) {
			of := *h
			of.T = t
			of.wants(look{"en", "light"}, 1440) // whatever another one has left
			does(&of)
		})
	}
}

func (h *house) endsDownload() {
	var said bytes.Buffer
	download := h.curl("socks4a", "", "http://"+h.target+"/endless", "--limit-rate", "20M", "-o", os.DevNull)
	download.Stderr = &said
	if err := download.Start(); err != nil {
		h.Fatal(err)
	}
	h.do(chromedp.Navigate(h.page("/sessions")))
	const moved = `document.querySelector("tr[id^=session] td:nth-of-type(7)")?.textContent`
	h.until(moved + ` !== undefined`)
	first := ask(h, chromedp.Evaluate[string](moved))
	h.until(moved + ` !== ` + quoted(first))
	const speed = `document.querySelector("tr[id^=session] td:nth-of-type(5)")?.textContent`
	h.until(speed + `?.includes("Mbit/s") || ` + speed + `?.includes("kbit/s")`)
	h.until(speed + `?.includes("Mbit/s")`)
	h.do(
		chromedp.Click(chromedp.CSS("tr[id^=session] summary")),
		chromedp.SendKeys(chromedp.CSS("tr[id^=session] input[name=rate]"), "800 kbit/s\n"),
		chromedp.WaitVisible(chromedp.CSS(".note.good")),
	)
	h.until(`/^[1-9]\d\d\u00a0kbit.s ≤ 800\u00a0kbit.s$/.test(` + speed + `)`)
	h.do(chromedp.Navigate(h.page("/sessions")), chromedp.Click(chromedp.CSS("tr[id^=session] button")), chromedp.WaitVisible(chromedp.CSS(".note.good")))
	if err := download.Wait(); err == nil || download.ProcessState.ExitCode() < 0 {
		h.Errorf("the download came to an end of its own: %v", err)
	}
	proxytest.Eventually(h.T, "its end is recorded", func() bool { return h.live.Totals().Ended[server.Ended] == 1 })
	h.until(`document.querySelector("tr[id^=session]") === null`)
}

func quoted(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string can be written
	}
	return string(b)
}

func (h *house) addsUser() {
	fetch := func() (string, error) {
		out, err := h.curl("socks5h", "dave:a long secret", "http://"+h.target+"/").CombinedOutput()
		return string(out), err
	}
	if out, err := fetch(); err == nil {
		h.Fatalf("before: %s", out)
	}
	h.do(
		chromedp.Navigate(h.page("/users")),
		chromedp.SendKeys(chromedp.CSS("form.box input[name=name]"), "dave"),
		chromedp.SendKeys(chromedp.CSS("form.box input[name=password]"), "a long secret\n"),
		chromedp.WaitVisible(chromedp.CSS(".note.good")),
	)
	if out, err := fetch(); err != nil || out != "hello" {
		h.Errorf("at once after: %s, %v", out, err)
	}
	row := `[...document.querySelectorAll("tbody tr")].find(r => r.querySelector("th").textContent.startsWith("dave"))`
	h.do(
		chromedp.Evaluate[chromedp.Void](row+`.querySelector("summary").click()`),
		chromedp.Evaluate[chromedp.Void](row+`.querySelector("form[action$=disable] button").click()`),
		chromedp.WaitVisible(chromedp.CSS("tbody .tag.bad")),
	)
	if out, err := fetch(); err == nil {
		h.Errorf("a disabled user comes in: %s", out)
	}
}

func (h *house) changesGroups() {
	const row = `[...document.querySelectorAll("tbody tr")].find(r => r.querySelector("th").textContent.startsWith("alice"))`
	for _, groups := range []string{"staff, guests", "staff"} {
		h.do(
			chromedp.Navigate(h.page("/users")),
			chromedp.Evaluate[chromedp.Void](row+`.querySelector("summary").focus()`),
			chromedp.KeyEvent(" "), // which opens it
			chromedp.Evaluate[chromedp.Void](row+`.querySelector("input[value=guests]").focus()`),
			chromedp.KeyEvent(" "), chromedp.KeyEvent("\t"), chromedp.KeyEvent(" "), // to the button
			chromedp.WaitVisible(chromedp.CSS(".note.good")),
		)
		if got := ask(h, chromedp.Evaluate[string](row+`.querySelector("td").textContent`)); got != groups {
			h.Errorf("alice is in %q, want %q", got, groups)
		}
	}
	h.do(chromedp.Evaluate[chromedp.Void](row+`.querySelector("a").click()`), chromedp.WaitVisible(chromedp.CSS("#use + .charts")))
	if got := ask(h, chromedp.Text(chromedp.CSS("#use"))); got != "Usage of alice" {
		h.Errorf("the charts are of %q", got)
	}
}

func (h *house) seesRefusal() {
	h.do(chromedp.Navigate(h.page("/")), chromedp.WaitVisible(chromedp.CSS("#live svg")))
	if ask(h, chromedp.Evaluate[bool](`document.querySelector("#reason-denied") !== null`)) {
		h.Fatal("there is a refusal already")
	}
	if out, err := h.curl("socks4a", "", "http://192.0.2.1/").CombinedOutput(); err == nil {
		h.Fatalf("it was let through: %s", out)
	}
	h.until(`document.querySelector("#reason-denied td")?.textContent === "1"`)
	row := ask(h, chromedp.Text(chromedp.CSS("tr[id^=refusal]")))
	for _, want := range []string{"192.0.2.1:80", "denied", "nothing <b>there</b>"} {
		if !strings.Contains(row, want) {
			h.Errorf("the row %q lacks %q", row, want)
		}
	}
}

func (h *house) triesRequest() {
	for to, user := range map[string]string{"192.0.2.7:443": "", "127.0.0.1:80": "alice", "198.51.100.1:25": ""} {
		h.do(
			chromedp.Navigate(h.page("/rules")),
			chromedp.SendKeys(chromedp.CSS("input[name=from]"), "10.0.0.7"), chromedp.SendKeys(chromedp.CSS("input[name=to]"), to),
		)
		if user != "" {
			h.do(chromedp.SendKeys(chromedp.CSS("input[name=user]"), user))
		}
		h.do(chromedp.Click(chromedp.CSS("form.box button")), chromedp.WaitVisible(chromedp.CSS("#verdict")))
		target, err := socks.ParseAddr(to)
		if err != nil {
			h.Fatal(err)
		}
		want, err := Explain(h.Context(), h.src, Question{From: netip.MustParseAddr("10.0.0.7"), User: user, Target: target})
		if err != nil {
			h.Fatal(err)
		}
		verdict, steps := "Allowed", []string(nil)
		if !want.Allowed {
			verdict = "Refused: " + want.Reason
		}
		for _, s := range want.Steps {
			kind := map[bool]string{true: "deny", false: "allow"}[s.Deny]
			text := kind + " " + s.Rule + ": "
			if s.Miss != "" {
				text += s.Miss + " – "
			}
			steps = append(steps, text+s.Text)
		}
		shown := ask(h, chromedp.Evaluate[[]string](`[...document.querySelectorAll("#steps li")].map(e => e.innerText)`))
		if got := ask(h, chromedp.Text(chromedp.CSS("#verdict"))); got != verdict || strings.Join(shown, "\n") != strings.Join(steps, "\n") {
			h.Errorf("%s to %s: the page says %q\n%q\nand explain %q\n%q", user, to, got, shown, verdict, steps)
		}
	}
}

// shows looks at each page: nothing sticks out of it, axe-core finds no serious
// fault, and a picture of it is left for whoever wants to see.
func (h *house) shows() {
	folder := os.Getenv("SALLYPORT_SCREENSHOTS")
	if folder == "" {
		folder = h.TempDir()
	}
	axe := axeCore(h.T)
	stop := h.makesLife()
	defer stop()
	pages := map[string]string{
		"now": "/", "sessions": "/sessions", "users": "/users", "users-alice": "/users?user=alice", "rules": "/rules?from=10.0.0.7&to=127.0.0.1%3A80&user=alice", "limits": "/limits",
		"history": "/history?by=hour", "history-host": "/history?by=host", "health": "/health", "sign-in": "/sign-in",
	}
	for _, l := range []look{{"en", "light"}, {"ru", "dark"}, {"en", "dark"}, {"ru", "light"}} {
		h.wants(l, 1440)
		for name, path := range pages {
			for _, width := range []int64{390, 1440} {
				h.do(chromedp.EmulateViewport(width, 900), chromedp.Navigate(h.page(path)), chromedp.WaitVisible(chromedp.CSS("h1")))
				h.do1(chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("main:has(#use) details").forEach(d => d.open = location.search !== ""); undefined`))
				what := fmt.Sprintf("%s-%s-%s-%d", name, l.language, l.scheme, width)
				h.fits(what, l)
				picture := ask(h, chromedp.FullScreenshot(100))
				if err := os.WriteFile(filepath.Join(folder, what+".png"), picture, 0o600); err != nil {
					h.Fatal(err)
				}
				if l.language == "en" == (l.scheme == "light") { // what it looks at are colours and structure
					h.isAccessible(what, axe)
				}
			}
		}
	}
}

// look is how a browser wants pages.
type look struct{ language, scheme string }

// wants has the browser want pages so, in a window of that width.
func (h *house) wants(l look, width int64) {
	h.Helper()
	call(h, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-" + cssColour + "-scheme", Value: l.scheme}}})
	call(h, cdpnetwork.SetExtraHTTPHeaders, cdpnetwork.SetExtraHTTPHeadersParams{Headers: cdpnetwork.Headers{"Accept-Language": l.language}})
	h.do(chromedp.EmulateViewport(width, 900))
}

// cssColour is how CSS spells it.
const cssColour = "col" + "or"

// fits checks that nothing sticks out of the page, and its language.
func (h *house) fits(what string, l look) {
	h.Helper()
	if over := ask(h, chromedp.Evaluate[int](`document.documentElement.scrollWidth - document.documentElement.clientWidth`)); over > 0 {
		h.Errorf("%s: it is %d pixels wider than the window", what, over)
	}
	if lang := ask(h, chromedp.Evaluate[string](`document.documentElement.lang`)); lang != l.language {
		h.Errorf("%s: it is in %s", what, lang)
	}
}

// makesLife opens some sessions, so that there is something to see.
func (h *house) makesLife() (stop func()) {
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(h.Context())
	for _, login := range []string{"", "alice:wonderland"} {
		scheme := "socks4a"
		if login != "" {
			scheme = "socks5h"
		}
		c := h.curl(scheme, login, "http://"+h.target+"/endless", "--limit-rate", "10M", "-o", os.DevNull)
		all.Go(func() {
			if err := c.Start(); err != nil {
				h.Error(err)
				return
			}
			<-ctx.Done()
			_ = c.Process.Kill() // it may have ended
			_ = c.Wait()
		})
	}
	proxytest.Eventually(h.T, "they are open", func() bool { return h.live.Totals().Open == 2 })
	return func() {
		cancel()
		all.Wait()
	}
}

// axeVersion is the one that was looked at.
const axeVersion = "4.14.1"

// axeCore fetches the checker of pages.
func axeCore(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	c := exec.CommandContext(t.Context(), "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", dir, "axe-core@"+axeVersion)
	c.Env = append(os.Environ(), "HOME="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("npm: %v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (h *house) isAccessible(what, axe string) {
	h.Helper()
	h.do1(chromedp.Evaluate[chromedp.Void](axe + "; undefined"))
	found := ask(h, chromedp.Evaluate[string](`axe.run().then(r => r.violations.filter(v => v.impact === "serious" || v.impact === "critical")
		.map(v => v.id + ": " + v.help + ": " + v.nodes.map(n => n.html).join(" | ")).join("\n"))`, chromedp.EvalAwaitPromise))
	if found != "" {
		h.Errorf("%s: axe-core finds\n%s", what, found)
	}
}

// TestManySessions: with 9,000 open sessions the page is small, and stays so while it
// is kept up to date.
func TestManySessions(t *testing.T) {
	h := newHouse(t)
	openMany(h.live, 9000)
	empty := h.rendererMemory()
	h.signIn()
	h.do(chromedp.Navigate(h.page("/sessions")), chromedp.WaitVisible(chromedp.CSS("tr[id^=session]")))
	if rows := ask(h, chromedp.Evaluate[int](`document.querySelectorAll("tr[id^=session]").length`)); rows != 50 {
		t.Errorf("%d rows, want 50", rows)
	}
	h.do1(chromedp.Evaluate[chromedp.Void](`
		window.updates = 0;
		new MutationObserver(() => window.updates++).observe(document.getElementById("live"), {subtree: true, childList: true, characterData: true, attributes: true}); undefined`))
	h.until(`window.updates >= 3`)
	call(h, performance.Enable, performance.EnableParams{})
	found := call(h, performance.GetMetrics, cdp.Empty{})
	for _, m := range found.Metrics {
		if m.Name == "JSHeapTotalSize" || m.Name == "JSHeapUsedSize" || m.Name == "Nodes" {
			t.Logf("%s: %.0f", m.Name, m.Value)
		}
	}
	takes := h.rendererMemory()
	t.Logf("its process has %.1f MB, with an empty page %.1f MB", float64(takes)/1e6, float64(empty)/1e6)
	if takes-empty > 50e6 {
		t.Errorf("the page takes %d bytes", takes-empty)
	}
	if n := ask(h, chromedp.Evaluate[int](`document.querySelectorAll("tr[id^=session] td.do button").length`)); n != 100 {
		t.Errorf("after updates there are %d buttons, want 100", n)
	}
	rest := ask(h, chromedp.Evaluate[int](`document.getElementsByTagName("*").length`))
	if rest > 2000 {
		t.Errorf("the page has %d elements", rest)
	}
}

// openMany opens sessions that nobody serves.
func openMany(v *live.View, n int) {
	for i := range n {
		v.Opened(server.NewSession(server.Record{
			ID: uint64(i + 1_000_000), Started: time.Now(), Listener: "lan", Protocol: server.SOCKS5, Command: socks.Connect,
			Client:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 4711),
			Identity: server.Identity{Name: fmt.Sprintf("user%d", i%900), Proof: server.Password},
			Target:   socks.Addr{Name: fmt.Sprintf("host%d.example", i), Port: 443}, Rule: "members",
		}))
	}
}

// BenchmarkSessionsPage9000 is the first view of the page, as its handler answers it.
func BenchmarkSessionsPage9000(b *testing.B) {
	root := benchedPage(b)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/sessions", nil)
		r.Host = "127.0.0.1"
		r.Header.Set("Authorization", "Bearer root:secret")
		w := httptest.NewRecorder()
		root.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}

// benchedPage is a dashboard with 9,000 open sessions, and its handler.
func benchedPage(b *testing.B) http.Handler {
	b.Helper()
	dir := b.TempDir()
	file := filepath.Join(dir, "administrators")
	if err := (access.UsersEditor{Path: file}).Add("root", "secret"); err != nil {
		b.Fatal(err)
	}
	settings := filepath.Join(dir, "s.yaml")
	if err := os.WriteFile(settings, []byte("listeners: {listen: 127.0.0.1:0}\nledger: off\nadmin: {listen: 127.0.0.1:0, file: administrators}\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	d, err := Open(b.Context(), Source{File: settings}, io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(d.Close)
	openMany(d.live, 9000)
	return d.panel(d.page.keeper).Page(false)
}
