//go:build unix

package admin

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestNothingGetsIn: what clients and settings are called stays text (XSS).
func TestNothingGetsIn(t *testing.T) {
	s := newSite(t)
	s.sessions = []Session{{ID: 7, User: evil, Client: evil, Target: evil, Rule: evil, Via: evil, Protocol: evil, Command: evil, Started: time.Now()}}
	s.now = Now{
		Refused:  map[string]uint64{evil: 1, "denied": 2},
		Refusals: []Refusal{{At: time.Now(), User: evil, Client: evil, Target: evil, Rule: evil, Reason: evil, Detail: evil}},
		Samples:  []Sample{{Up: 1, Down: 2}, {Up: 3, Down: 4, Refused: 1}},
	}
	s.show.users = UserList{Kept: true, Users: []User{{Name: evil, Groups: []string{evil}, Disabled: true}}, Groups: []string{evil}}
	s.usage = UsageReport{Lines: []UsageLine{{Name: evil}}}
	s.status.Version = evil
	s.status.Listeners = []Listener{{Name: evil, Address: evil, Protocols: []string{evil}}}
	e := url.QueryEscape(evil)
	for _, path := range []string{
		"/", "/sessions", "/sessions?filter=" + e + "&sort=" + e + "&offset=" + e, "/users", "/users?done=" + e, "/users?user=" + e, "/rules",
		"/rules?from=" + e + "&to=" + e + "&user=" + e + "&proof=" + e + "&at=" + e, "/rules?from=x", "/limits",
		"/history?by=" + e + "&since=" + e + "&user=" + e, "/history?by=user", "/health",
	} {
		answer := s.get(path)
		body := answer.Body.String()
		if answer.Code != http.StatusOK {
			t.Errorf("%s: %d", path, answer.Code)
		}
		if strings.Contains(body, "<img") || strings.Contains(body, "alert(1)</script") || strings.Contains(body, `"'>`) {
			t.Errorf("%s: it is in the page: %s", path, body)
		}
		if strings.Count(body, "<script") != 1 || strings.Contains(body, "style=") || strings.Contains(body, "onclick") {
			t.Errorf("%s: the page has something inline, which the policy forbids", path)
		}
		for _, from := range regexp.MustCompile(`(?:src|href|action)="([^"]*)"`).FindAllStringSubmatch(body, -1) {
			if !strings.HasPrefix(from[1], "/") && !strings.HasPrefix(from[1], "#") || strings.HasPrefix(from[1], "//") {
				t.Errorf("%s: the page names %q, which is elsewhere", path, from[1])
			}
		}
	}
	if body := s.get("/users?done=" + e).Body.String(); strings.Contains(body, `role="status"`) {
		t.Error("a link can have the page say what it likes")
	}
}

// TestDeeds: what the buttons do, and what the page says then.
func TestDeeds(t *testing.T) {
	s := newSite(t)
	for _, test := range []struct {
		path   string
		form   url.Values
		code   int
		within string // of the address that it leads to, or of the page
	}{
		{"/sessions/7/end?sort=bytes", nil, 303, "sort=bytes"},
		{"/sessions/404/end", nil, 404, "there is no such open session"},
		{"/sessions/x/end", nil, 404, "there is no such open session"},
		{"/sessions/8/slow?filter=x", url.Values{"rate": {" 1 Mbit/s"}}, 303, "filter=x"},
		{"/sessions/404/slow", url.Values{"rate": {""}}, 404, "there is no such open session"},
		{"/sessions/x/slow", nil, 404, "there is no such open session"},
		{"/sessions/8/slow", url.Values{"rate": {"fast"}}, 422, "no sense"},
		{"/users/add", url.Values{"name": {"bob"}, "password": {"x"}}, 303, "done=The+user+was+added"},
		{"/users/add", url.Values{"name": {"alice"}, "password": {"x"}}, 409, "the user is there already"},
		{"/users/password", url.Values{"name": {"alice"}, "password": {"x"}}, 303, "done=The+password"},
		{"/users/disable", url.Values{"name": {"alice"}}, 303, "done="},
		{"/users/enable", url.Values{"name": {"alice"}}, 303, "done="},
		{"/users/remove", url.Values{"name": {"alice"}}, 503, "tick the box"},
		{"/users/remove", url.Values{"name": {"alice"}, "sure": {"yes"}}, 303, "done="},
		{"/users/remove", url.Values{"name": {"eve"}, "sure": {"yes"}}, 404, "there is no such user"},
		{"/users/groups", url.Values{"name": {"eve"}}, 404, "there is no such user"},
		{"/users/groups", url.Values{"name": {"alice"}, "group": {"none"}}, 404, "no such group"},
		{"/users/groups", url.Values{"name": {"alice"}, "group": {"staff", "guests"}}, 303, "/users?done=The+groups"},
		{"/users/grant", url.Values{"key": {"alice"}, "amount": {"2 GiB"}}, 303, "/users?done="},
		{"/limits/grant", url.Values{"key": {"alice"}, "limit": {"daily"}, "amount": {"2 GiB"}}, 303, "/limits?done="},
		{"/limits/rate", url.Values{"limit": {"fair"}, "rate": {"1 Mbit/s"}}, 303, "/limits?done="},
		{"/reload", nil, 303, "/health?done="},
	} {
		answer := s.post(test.path, test.form)
		got := answer.Header().Get("Location") + answer.Body.String()
		if answer.Code != test.code || !strings.Contains(got, test.within) {
			t.Errorf("%s %v: %d %s; want %d %s", test.path, test.form, answer.Code, got, test.code, test.within)
		}
	}
	if !reflect.DeepEqual(s.ended, []uint64{7, 8}) || !reflect.DeepEqual(s.groups, []string{"staff", "guests"}) {
		t.Errorf("ended: %v; groups: %v", s.ended, s.groups)
	}
	s.err = &Faults{"s.yaml:1:1: no"}
	for _, path := range []string{"/users/grant", "/limits/grant", "/limits/rate"} {
		if answer := s.post(path, nil); answer.Code != http.StatusConflict || !strings.Contains(answer.Body.String(), "s.yaml:1:1: no") {
			t.Errorf("%s that is refused: %d", path, answer.Code)
		}
	}
	if answer := s.post("/reload", nil); answer.Code != http.StatusUnprocessableEntity || !strings.Contains(answer.Body.String(), "s.yaml:1:1: no") {
		t.Errorf("a reload with faults: %d %s", answer.Code, answer.Body)
	}
	if body := s.get("/sessions?done=" + url.QueryEscape(doneEnded)).Body.String(); !strings.Contains(body, doneEnded) {
		t.Error("the page does not say what was done")
	}
}

// TestAPI: the same by JSON, on the page with a token and on the socket without.
func TestOperations(t *testing.T) {
	s := newSite(t)
	s.sessions = []Session{{ID: 7, User: "bob"}}
	bearer := func(r *http.Request) {
		r.Header = http.Header{"Authorization": {"Bearer root:secret"}, "Content-Type": {"application/json"}}
	}
	here := s.panel().Here()
	for _, test := range []struct {
		method, path, body string
		code               int
		within             string
	}{
		{"GET", "status", "", 200, `"version"`},
		{"POST", "reload", "", 204, ""},
		{"POST", "upgrade", "", 200, `"pid":2`},
		{"GET", "now", "", 200, `"speed_down"`},
		{"GET", "sessions?sort=newest&limit=10", "", 200, `"user":"bob"`},
		{"GET", "sessions?sort=colour", "", 422, "sort"},
		{"DELETE", "sessions/7", "", 204, ""},
		{"DELETE", "sessions/404", "", 404, "no such open session"},
		{"PUT", "sessions/7/rate", `{"rate":"1 Mbit/s"}`, 204, ""},
		{"PUT", "sessions/7/rate", `{"rate":"fast"}`, 422, "no sense"},
		{"GET", "users", "", 200, `"kept":true`},
		{"POST", "users", `{"name":"carol","password":"x"}`, 204, ""},
		{"POST", "users", `{"name":"alice","password":"x"}`, 409, "already"},
		{"GET", "explain?to=a:80", "", 422, "from"},
		{"PUT", "users/alice/password", `{"password":"x"}`, 204, ""},
		{"PUT", "users/alice/enabled", `{"enabled":false}`, 204, ""},
		{"PUT", "users/alice/groups", `{"groups":[]}`, 204, ""},
		{"PUT", "users/eve/groups", `{"groups":["staff"]}`, 404, "no such user"},
		{"DELETE", "users/eve", "", 404, "no such user"},
		{"GET", "rules", "", 200, `"hits":3`},
		{"GET", "limits", "", 200, `"20 Mbit/s"`},
		{"GET", "quotas", "", 200, `"quotas"`},
		{"POST", "grants", `{"key":"alice","amount":"2 GiB"}`, 200, `"limit"`},
		{"PUT", "limits/fair/rate", `{"rate":"1 Mbit/s"}`, 204, ""},
		{"GET", "explain?from=10.0.0.1&to=a:80", "", 200, `"miss":"ports"`},
		{"GET", "explain?from=x&to=a:80", "", 422, "no sense"},
		{"GET", "usage?by=user", "", 200, `"lines"`},
		{"GET", "health", "", 200, `"upstreams"`},
		{"GET", "openapi.json", "", 200, `"openapi":"3.1`},
	} {
		path := "/api/v1/" + test.path
		by := map[string]*httptest.ResponseRecorder{"token": s.send(test.method, path, test.body, bearer), "socket": httptest.NewRecorder()}
		r := httptest.NewRequestWithContext(t.Context(), test.method, path, strings.NewReader(test.body))
		r.Header.Set("Content-Type", "application/json")
		here.ServeHTTP(by["socket"], r)
		for how, answer := range by {
			if answer.Code != test.code || !strings.Contains(answer.Body.String(), test.within) {
				t.Errorf("%s %s by %s: %d %s; want %d %s", test.method, path, how, answer.Code, answer.Body, test.code, test.within)
			}
		}
	}
	s.fault = errBroken
	if answer := s.send("GET", "/api/v1/usage", "", bearer); answer.Code != http.StatusServiceUnavailable {
		t.Errorf("a ledger that cannot be read: %d", answer.Code)
	}
	if answer := s.get("/history"); answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Body.String(), "broken") {
		t.Errorf("its page: %d", answer.Code)
	}
}

// TestOpenAPI: the description names each operation, and nothing is served that
// explains it, which would load scripts from elsewhere.
func TestOpenAPI(t *testing.T) {
	s := newSite(t)
	var d struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(s.get("/api/v1/openapi.json").Body.Bytes(), &d); err != nil || len(d.Paths) < 12 {
		t.Fatalf("%v, %d paths", err, len(d.Paths))
	}
	seen := map[string]bool{}
	for path, methods := range d.Paths {
		for method, o := range methods {
			if o.OperationID == "" || seen[o.OperationID] {
				t.Errorf("%s %s: the operation %q", method, path, o.OperationID)
			}
			seen[o.OperationID] = true
		}
	}
	for _, path := range []string{"/docs", "/api/v1/docs", "/schemas/Now.json"} {
		if answer := s.get(path); answer.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, answer.Code)
		}
	}
}

// TestLive: the part that is live comes at once, again when it has changed, and ends
// with the visit.
func TestLive(t *testing.T) {
	s := newSite(t)
	s.sessions = []Session{{ID: 7, User: "bob", Started: time.Now()}}
	server := httptest.NewServer(s.handler)
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/live/sessions?sort=bytes", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.AddCookie(s.cookie)
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if kind := answer.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("%d %s", answer.StatusCode, kind)
	}
	events := bufio.NewScanner(answer.Body)
	next := func(within string) {
		t.Helper()
		var event strings.Builder
		for events.Scan() && events.Text() != "" {
			event.WriteString(events.Text())
		}
		if !strings.Contains(event.String(), within) {
			t.Fatalf("the event %q lacks %q", event.String(), within)
		}
	}
	next("session-7")
	s.mu.Lock()
	s.sessions = []Session{{ID: 8, User: "eve", Started: time.Now()}}
	s.mu.Unlock()
	s.tick()
	next("session-8")
	s.mu.Lock()
	s.gone = true
	s.mu.Unlock()
	s.tick()
	for events.Scan() {
		if events.Text() != "" {
			t.Fatalf("after the end of the visit: %q", events.Text())
		}
	}
}

// TestTooManyWatch: who leaves pages open does not use up the server.
func TestTooManyWatch(t *testing.T) {
	s := newShow()
	d := &desk{Panel: s.panel(), watching: make(chan struct{}, 1)}
	d.watching <- struct{}{}
	w := httptest.NewRecorder()
	d.keepLive(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/live/now", nil), screens()[0])
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("one too many: %d", w.Code)
	}
}

// TestCSV: it is one, and no cell is a formula.
func TestCSV(t *testing.T) {
	s := newSite(t)
	s.usage.Lines = []UsageLine{{Name: "=1+1", Use: Use{1, 2, 3, 4}}, {Name: `a "b", c`}, {Name: ""}}
	answer := s.get("/history.csv?by=user")
	rows, err := csv.NewReader(answer.Body).ReadAll()
	want := [][]string{{"user", "sessions", "refused", "up", "down"}, {"'=1+1", "1", "2", "3", "4"}, {`a "b", c`, "0", "0", "0", "0"}, {"", "0", "0", "0", "0"}}
	if err != nil || !reflect.DeepEqual(rows, want) {
		t.Errorf("%v, %q", err, rows)
	}
}

// TestPages of many sessions.
func TestParts(t *testing.T) {
	s := newSite(t)
	for i := range 120 {
		s.sessions = append(s.sessions, Session{ID: uint64(i + 1), Started: time.Now()})
	}
	first, last := s.get("/sessions?sort=bytes").Body.String(), s.get("/sessions?offset=100").Body.String()
	if strings.Count(first, "<tr id=") != perPage || !strings.Contains(first, "offset=50&amp;sort=bytes") || strings.Contains(first, `rel="prev"`) {
		t.Errorf("the first part: %s", first)
	}
	if strings.Count(last, "<tr id=") != 20 || strings.Contains(last, `rel="next"`) || !strings.Contains(last, "offset=50") {
		t.Errorf("the last part: %s", last)
	}
}

// TestEverythingIsTranslated: each text of a template, of the menu and of a deed.
func TestEverythingIsTranslated(t *testing.T) {
	texts := deeds()
	for _, screen := range append(screens(), signInScreen()) {
		texts = append(texts, screen.Title)
	}
	for _, order := range SessionOrders() {
		texts = append(texts, "order: "+order)
	}
	err := fs.WalkDir(files, "web", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".html") {
			return err
		}
		text, err := fs.ReadFile(files, path)
		for _, found := range regexp.MustCompile(`\.T "([^"]*)"`).FindAllStringSubmatch(string(text), -1) {
			texts = append(texts, found[1])
		}
		return err
	})
	if err != nil || len(texts) < 100 {
		t.Fatalf("%v, %d texts", err, len(texts))
	}
	words := russianWords()
	for text := range englishWords() {
		texts = append(texts, text)
	}
	for _, text := range texts {
		if words[text] == "" {
			t.Errorf("%q has no Russian", text)
		}
	}
}

func TestTongue(t *testing.T) {
	for accepted, want := range map[string]string{
		"": "en", "ru": "ru", "ru-RU,ru;q=0.9,en;q=0.8": "ru", "en-US,en;q=0.9,ru;q=0.8": "en", "de,ru;q=0.5": "ru", "de": "en", "ru;q=0": "en", "ru;q=x,en": "en", ";;,=": "en",
	} {
		if got := tongueOf(accepted).Code; got != want {
			t.Errorf("%q: %s, want %s", accepted, got, want)
		}
	}
	en, ru := &english, &russian
	for got, want := range map[string]string{
		en.Bytes(0): "0 B", en.Bytes(1023): "1023 B", en.Bytes(1536): "1.5 KiB", ru.Bytes(1 << 20): "1,0 МиБ", en.Bytes(200 << 30): "200 GiB",
		en.Speed(125000): "1.0 Mbit/s", en.Speed(0): "0 bit/s", ru.Speed(1000): "8,0 кбит/с",
		en.Long(0): "0 s", en.Long(61 * time.Second): "1 min 1 s", en.Long(25 * time.Hour): "1 d 1 h", ru.Long(2 * time.Hour): "2 ч", en.Long(-time.Second): "0 s",
		en.Moment(time.Time{}): "–", en.Left(time.Now().Add(-time.Hour)): "",
	} {
		if strings.ReplaceAll(got, "\u00a0", " ") != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestCharts: numbers only, and no division by nothing.
func TestCharts(t *testing.T) {
	for _, svg := range []string{
		string(lines()), string(lines(nil, nil)), string(lines([]float64{5})), string(lines([]float64{0, 1e12}, []float64{3, 4})),
		string(bars(leastBars, nil)), string(bars(leastBars, [][2]float64{{1, 2}, {0, 0}})),
	} {
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") || !strings.HasSuffix(svg, "</svg>") {
			t.Error(svg)
		}
	}
	if got := string(bars(leastBars, [][2]float64{{10, 0}})); !strings.Contains(got, `x="2.5" y="4.0" width="20.0" height="116.0"`) {
		t.Error(got)
	}
}
