//go:build unix

package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// evil is what a client would call itself, or a target, to get into a page.
const evil = `<script>alert(1)</script>"'><img src=x onerror=alert(2)>`

// show is a server that has what a test puts into it. It implements all that a
// Panel needs.
type show struct {
	fake
	mu       sync.Mutex
	sessions []Session
	now      Now
	users    UserList
	ended    []uint64
	next     chan struct{}
	gone     bool // the administrator is nobody any more
	role     Role
	usage    UsageReport
	groups   []string // that were set last
	fault    error
}

func newShow() *show {
	s := &show{next: make(chan struct{}), role: Administrator}
	s.quotas.Quotas = []Quota{{Limit: evil, Key: evil, Per: "user", Unit: "bytes", Used: 5, Most: 4}, {Limit: "hours", Unit: "seconds", Most: 3600, Claimed: true}}
	return s
}

func (s *show) Now() Now { return s.now }

func (s *show) Sessions(q SessionQuery) SessionPage {
	s.mu.Lock()
	defer s.mu.Unlock()
	page := SessionPage{Open: len(s.sessions), Matched: len(s.sessions), Offset: q.Offset}
	for i := q.Offset; i < len(s.sessions) && i < q.Offset+q.Limit; i++ {
		page.Sessions = append(page.Sessions, s.sessions[i])
	}
	return page
}

func (s *show) EndSession(id uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == 404 {
		return ErrNoSession
	}
	s.ended = append(s.ended, id)
	return nil
}

func (s *show) SlowSession(id uint64, rate string) error {
	if rate == "fast" {
		return ErrBadQuestion
	}
	return s.EndSession(id) // it is noted in the same way
}

func (s *show) Next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// tick says that there is something new.
func (s *show) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.next)
	s.next = make(chan struct{})
}

func (s *show) Users(context.Context) (UserList, error) { return s.users, nil }

func (s *show) AddUser(_ context.Context, name, _ string) error {
	if name == "alice" {
		return ErrUserExists
	}
	s.users.Users = append(s.users.Users, User{Name: name})
	return nil
}

func (s *show) SetPassword(context.Context, string, string) error { return s.fault }
func (s *show) EnableUser(context.Context, string, bool) error    { return s.fault }
func (s *show) SetGroups(_ context.Context, name string, groups []string) error {
	switch {
	case name != "alice":
		return ErrNoUser
	case len(groups) > 0 && groups[0] == "none":
		return ErrNoGroup
	}
	s.groups = groups
	return nil
}

func (s *show) RemoveUser(_ context.Context, name string) error {
	if name != "alice" {
		return ErrNoUser
	}
	return nil
}

func (s *show) Rules() []Rule       { return []Rule{{Name: evil, Deny: true, Hits: 3, Last: time.Now()}} }
func (s *show) Listeners() []string { return []string{"lan", evil} }
func (s *show) Limits() []Limit {
	return []Limit{{Name: evil, Per: "user", Text: "20 Mbit/s", Kind: "rate"}, {Name: evil, Per: "user", Text: evil, Kind: "quota"}}
}

func (s *show) Explain(_ context.Context, q Question) (*Explanation, error) {
	if q.From == "x" {
		return nil, ErrBadQuestion
	}
	return &Explanation{Reason: "denied", Rule: evil, Target: q.To, Steps: []Step{{Rule: evil, Miss: "ports", Text: "the port is another"}}, Notes: []string{evil}}, nil
}

func (s *show) Usage(context.Context, UsageQuery) (*UsageReport, error) { return &s.usage, s.fault }

func (s *show) Health() HealthReport {
	return HealthReport{
		Ledger: &Ledger{Store: evil, Node: evil, Lost: true}, Resolver: "the system's", Reload: &Reload{At: time.Now(), Faults: evil},
		Upstreams:    []Upstream{{Name: evil, Proxy: "socks5h://gw:1080", Up: true}},
		Certificates: []Certificate{{Listener: "lan", File: evil, Expires: time.Now().Add(time.Hour)}, {Listener: "lan", Fault: evil}},
	}
}

func (s *show) SignIn(_ context.Context, _ netip.AddrPort, name, password string) (Visitor, error) {
	if password != "secret" {
		return Visitor{}, ErrWrongLogin
	}
	return Visitor{Name: name, Role: s.role, Mark: 1}, nil
}

func (s *show) Still(v Visitor) (Visitor, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Visitor{Name: v.Name, Role: s.role, Mark: v.Mark}, !s.gone
}

func (s *show) panel() *Panel {
	return &Panel{Daemon: s, Live: s, Users: s, Rules: s, History: s, Health: s, Doorkeeper: s, Meters: s, Version: "1", Hosts: []string{"gw.example"}}
}

// site is a page under test, and a browser's cookie.
type site struct {
	*testing.T
	*show
	handler http.Handler
	cookie  *http.Cookie
}

// newSite returns a page to which somebody has signed in.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{T: t, show: newShow()}
	s.users = UserList{Kept: true}
	s.handler = s.panel().Page(false)
	answer := s.post("/sign-in", url.Values{"name": {"root"}, "password": {"secret"}})
	if answer.Code != http.StatusSeeOther || len(answer.Result().Cookies()) != 1 {
		t.Fatalf("sign in: %d, %v", answer.Code, answer.Header())
	}
	s.cookie = answer.Result().Cookies()[0]
	return s
}

// send asks as a browser that is on a page of ours does; change may say otherwise.
func (s *site) send(method, path, body string, change func(*http.Request)) *httptest.ResponseRecorder {
	s.Helper()
	r := httptest.NewRequestWithContext(s.Context(), method, path, strings.NewReader(body))
	r.Host = "127.0.0.1:1088"
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "http://127.0.0.1:1088")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	if s.cookie != nil {
		r.AddCookie(s.cookie)
	}
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

func (s *site) get(path string) *httptest.ResponseRecorder {
	s.Helper()
	return s.send(http.MethodGet, path, "", nil)
}

func (s *site) post(path string, form url.Values) *httptest.ResponseRecorder {
	s.Helper()
	return s.send(http.MethodPost, path, form.Encode(), nil)
}

func (s *show) Measures() Measures {
	return Measures{
		Doors: []DoorMeasures{
			{Listener: evil, Protocol: "socks5", Opened: 3, Open: 1, Up: 10, Down: 20, Refused: map[string]uint64{"denied": 1}, Ended: map[string]uint64{"closed": 1}},
			{Listener: "bad \xff utf-8", Refused: map[string]uint64{"garbage": 2}},
		},
		Rules: map[string]uint64{evil: 2}, Users: map[string]Use{"alice": {Up: 1, Down: 2}, "": {Up: 3}},
		Accepting: true, Connections: 2, MaxConnections: 9, Handshakes: 1, MaxHandshakes: 4,
		Quotas: []QuotaCounts{{Limit: "daily", Warned: 1, Refused: 2, Ended: 3}}, LogLinesLost: map[string]int64{"log": 5},
	}
}

func (s *show) Ready() error { return s.fault }

var errBroken = errors.New("broken")
