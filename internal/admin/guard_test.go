//go:build unix

package admin

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestHeaders: what every answer says to a browser, also of those who have not
// signed in.
func TestHeaders(t *testing.T) {
	s := newSite(t)
	for _, path := range []string{"/", "/sign-in", "/assets/style.css", "/api/v1/now", "/nowhere", "/history.csv"} {
		h := s.get(path).Header()
		for name, want := range map[string]string{
			"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Strict-Transport-Security": "",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s: %q, want %q", path, name, got, want)
			}
		}
		policy := h.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "script-src 'self';"} {
			if !strings.Contains(policy, part) {
				t.Errorf("%s: the policy %q lacks %q", path, policy, part)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
			t.Errorf("%s: the policy %q lets in too much", path, policy)
		}
	}
	if got := s.get("/").Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("a page may be kept: %q", got)
	}
	s.handler = s.panel().Page(true)
	if s.get("/sign-in").Header().Get("Strict-Transport-Security") == "" {
		t.Error("over TLS nothing says that it is to stay so")
	}
}

// TestCookie: no script reads it, no other site's request brings it, and over TLS it
// goes nowhere else.
func TestCookie(t *testing.T) {
	s := newSite(t)
	if c := s.cookie; !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Secure || c.Path != "/" || len(c.Value) < 26 {
		t.Errorf("cookie: %+v", c)
	}
	s.handler = s.panel().Page(true)
	answer := s.send(http.MethodPost, "/sign-in", "name=root&password=secret", func(r *http.Request) {
		r.Header.Set("Origin", "https://127.0.0.1:1088")
	})
	if c := answer.Result().Cookies(); len(c) != 1 || !c[0].Secure {
		t.Errorf("over TLS: %+v", c)
	}
}

// TestHost: a name that was made to lead here (DNS rebinding) gets nothing.
func TestHost(t *testing.T) {
	s := newSite(t)
	for host, want := range map[string]int{
		"127.0.0.1:1088": 200, "[::1]:1088": 200, "localhost:1088": 200, "LOCALHOST": 200, "192.0.2.7": 200, "gw.example:1088": 200, "gw.example.": 200,
		"evil.example:1088": 421, "evil.example": 421, "127.0.0.1.evil.example": 421, "gw.example.evil": 421, "localhost.evil:1088": 421, "": 421, "a:b:c": 421,
	} {
		for _, path := range []string{"/", "/api/v1/now", "/sign-in", "/assets/style.css"} {
			answer := s.send(http.MethodGet, path, "", func(r *http.Request) { r.Host = host })
			if answer.Code != want {
				t.Errorf("%s as %q: %d, want %d", path, host, answer.Code, want)
			}
		}
	}
}

// TestOtherSites: what another site's page has a browser send changes nothing (CSRF),
// a sign-in among it.
func TestOtherSites(t *testing.T) {
	s := newSite(t)
	for name, from := range map[string]func(*http.Request){
		"another site":                  func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"another site, with its origin": func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") },
		"the same site":                 func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
		"an address bar":                func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "none") },
		"another port":                  func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:1089") },
		"no origin":                     func(r *http.Request) { r.Header.Set("Origin", "null") },
		"a browser that says nothing": func(r *http.Request) {
			r.Header.Del("Origin")
			r.Header.Del("Sec-Fetch-Site")
		},
		"an old browser, elsewhere": func(r *http.Request) {
			r.Header.Set("Origin", "http://evil.example")
			r.Header.Del("Sec-Fetch-Site")
		},
	} {
		for _, path := range []string{"/sessions/7/end", "/users/add", "/reload", "/sign-in", "/sign-out", "/api/v1/reload", "/api/v1/upgrade", "/api/v1/users"} {
			if answer := s.send(http.MethodPost, path, "name=eve&password=secret", from); answer.Code != http.StatusForbidden {
				t.Errorf("%s, from %s: %d, want 403", path, name, answer.Code)
			}
		}
	}
	if len(s.ended) > 0 || len(s.show.users.Users) > 0 {
		t.Errorf("something was changed: %v, %v", s.ended, s.show.users)
	}
	if answer := s.post("/sessions/7/end", nil); answer.Code != http.StatusSeeOther || len(s.ended) != 1 {
		t.Errorf("a page of ours: %d, %v", answer.Code, s.ended)
	}
	old := s.send(http.MethodPost, "/sessions/8/end", "", func(r *http.Request) { r.Header.Del("Sec-Fetch-Site") })
	if old.Code != http.StatusSeeOther || len(s.ended) != 2 {
		t.Errorf("a page of ours in an old browser: %d, %v", old.Code, s.ended)
	}
}

// TestGetChangesNothing: a link or an image elsewhere is a GET.
func TestGetChangesNothing(t *testing.T) {
	s := newSite(t)
	for _, path := range []string{"/sessions/7/end", "/users/add?name=eve&password=secret", "/users/remove?name=alice&sure=yes", "/reload", "/sign-out"} {
		if answer := s.get(path); answer.Code != http.StatusMethodNotAllowed && answer.Code != http.StatusNotFound {
			t.Errorf("GET %s: %d", path, answer.Code)
		}
	}
	if s.get("/").Code != http.StatusOK || len(s.ended) > 0 || len(s.show.users.Users) > 0 {
		t.Error("something was changed")
	}
}

// TestNobody: without signing in there is the page for that, and nothing else.
func TestNobody(t *testing.T) {
	s := newSite(t)
	for name, change := range map[string]func(*http.Request){
		"no cookie":      func(r *http.Request) { r.Header.Del("Cookie") },
		"another secret": func(r *http.Request) { r.Header.Set("Cookie", cookieName+"=AAAAAAAAAAAAAAAAAAAAAAAAAA") },
		"no secret":      func(r *http.Request) { r.Header.Set("Cookie", cookieName+"=") },
		"a wrong token":  func(r *http.Request) { r.Header.Set("Authorization", "Bearer root:other") },
	} {
		for _, path := range []string{"/", "/sessions", "/users", "/rules", "/limits", "/history", "/history.csv", "/health", "/live/now", "/live/sessions"} {
			answer := s.send(http.MethodGet, path, "", change)
			turned := answer.Code == http.StatusSeeOther && answer.Header().Get("Location") == "/sign-in"
			if !turned && answer.Code != http.StatusUnauthorized {
				t.Errorf("%s with %s: %d %s", path, name, answer.Code, answer.Body)
			}
		}
		for _, path := range []string{"/api/v1/now", "/api/v1/sessions", "/api/v1/openapi.json", "/api/v1/users"} {
			if answer := s.send(http.MethodGet, path, "", change); answer.Code != http.StatusUnauthorized {
				t.Errorf("%s with %s: %d", path, name, answer.Code)
			}
		}
		if answer := s.send(http.MethodPost, "/sessions/7/end", "", change); answer.Code != http.StatusUnauthorized || len(s.ended) > 0 {
			t.Errorf("ending a session with %s: %d, %v", name, answer.Code, s.ended)
		}
	}
	if answer := s.get("/sign-in"); answer.Code != http.StatusOK {
		t.Errorf("the page to sign in: %d", answer.Code)
	}
	if answer := s.post("/sign-in", url.Values{"name": {"root"}, "password": {"guess"}}); answer.Code != http.StatusUnauthorized || len(answer.Result().Cookies()) > 0 {
		t.Errorf("a wrong password: %d, %v", answer.Code, answer.Header())
	}
}

// TestViewer: who may only look sees everything and changes nothing.
func TestViewer(t *testing.T) {
	s := newSite(t)
	s.role = Viewer
	s.sessions = []Session{{ID: 7}}
	s.show.users.Users = []User{{Name: "alice"}}
	for _, screen := range screens() {
		answer := s.get(screen.Path)
		if answer.Code != http.StatusOK || strings.Count(answer.Body.String(), `method="post"`) != 1 { // to sign out
			t.Errorf("%s: %d, with buttons for who may use none", screen.Path, answer.Code)
		}
	}
	for _, path := range []string{"/sessions/7/end", "/users/add", "/users/remove", "/reload", "/api/v1/reload", "/api/v1/upgrade"} {
		if answer := s.post(path, url.Values{"name": {"eve"}, "password": {"x"}}); answer.Code != http.StatusForbidden {
			t.Errorf("%s: %d, want 403", path, answer.Code)
		}
	}
	bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer root:secret") }
	if answer := s.send(http.MethodDelete, "/api/v1/sessions/7", "", bearer); answer.Code != http.StatusForbidden {
		t.Errorf("with a token: %d, want 403", answer.Code)
	}
	if len(s.ended) > 0 {
		t.Errorf("ended: %v", s.ended)
	}
	if answer := s.post("/sign-out", nil); answer.Code != http.StatusSeeOther {
		t.Errorf("sign out: %d", answer.Code)
	}
}

// TestVisitsEnd: by signing out, when the password is another one, and by themselves.
func TestVisitsEnd(t *testing.T) {
	out := newSite(t)
	if answer := out.post("/sign-out", nil); answer.Result().Cookies()[0].MaxAge >= 0 {
		t.Errorf("the cookie stays: %v", answer.Header())
	}
	changed := newSite(t)
	changed.gone = true
	for _, s := range []*site{out, changed} {
		if answer := s.get("/"); answer.Code != http.StatusSeeOther {
			t.Errorf("after the end: %d", answer.Code)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		const pause = idleTime - time.Minute
		for lasted := time.Duration(0); lasted+pause < visitTime; lasted += pause {
			time.Sleep(pause)
			if answer := s.get("/"); answer.Code != http.StatusOK {
				t.Fatalf("after %v: %d", lasted+pause, answer.Code)
			}
		}
		time.Sleep(pause)
		if answer := s.get("/"); answer.Code != http.StatusSeeOther {
			t.Errorf("after %v: %d", visitTime, answer.Code)
		}
		idle := newSite(t)
		time.Sleep(idleTime)
		if answer := idle.get("/"); answer.Code != http.StatusSeeOther {
			t.Errorf("after %v in which nothing was asked: %d", idleTime, answer.Code)
		}
	})
}

// TestVisitsAreBounded: one too many ends the one that is idle for the longest time.
func TestVisitsAreBounded(t *testing.T) {
	v, now := newVisits(), time.Now()
	first := v.begin(Visitor{Name: "first"}, now)
	second := v.begin(Visitor{Name: "second"}, now.Add(time.Second))
	for i := range mostVisits - 1 {
		v.begin(Visitor{}, now.Add(time.Minute+time.Duration(i)))
	}
	if _, ok := v.find(first, now); ok || len(v.all) != mostVisits {
		t.Errorf("%d visits, and the first one is there: %v", len(v.all), ok)
	}
	if who, ok := v.find(second, now); !ok || who.Name != "second" {
		t.Errorf("the second: %v, %v", who, ok)
	}
}

// TestBigBody: nobody makes the server hold much.
func TestBigBody(t *testing.T) {
	s := newSite(t)
	answer := s.send(http.MethodPost, "/users/add", "name="+strings.Repeat("x", maxBody), nil)
	if answer.Code == http.StatusSeeOther && s.show.users.Users[0].Name != "" {
		t.Errorf("a body over %d bytes: %d", maxBody, answer.Code)
	}
	bearer := func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer root:secret")
		r.Header.Set("Content-Type", "application/json")
	}
	answer = s.send(http.MethodPost, "/api/v1/users", `{"name":"`+strings.Repeat("x", maxBody)+`","password":"y"}`, bearer)
	if answer.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("the API: %d, want 413", answer.Code)
	}
}
