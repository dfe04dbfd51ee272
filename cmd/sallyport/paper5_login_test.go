//go:build linux

package main_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// paper5Staff lets nobody in without a password.
const paper5Staff = `
log: {format: json}
users: {file: %q}
rules: {allow: staff, from: loopback, to: any, proof: password, bind: {primary: optional}}
`

// paper5Both lets guests go to one place, and staff anywhere.
const paper5Both = `
log: {format: json}
users: {file: %q}
rules:
  - {allow: guests, from: loopback, to: 127.0.0.5}
  - {allow: fred alone, from: loopback, to: 127.0.0.6, users: fred, proof: password}
  - {allow: staff, from: loopback, to: 127.0.0.7, users: any, proof: password}
`

func startPaper5(t *testing.T, settings string) *paperServer {
	t.Helper()
	users := paper5Users(t, "fred:correct horse", "eve:battery staple", "\xc3\xa9mile:p\xc3\xa4ss")
	return startPaper(t, paperSetup{settings: fmt.Sprintf(settings, users)})
}

func TestPaper5Login(t *testing.T) {
	t.Parallel()
	s := startPaper5(t, paper5Staff)
	x := paperListen(t, nil, "127.0.0.1:0")
	request := paper5Ask(paperCONNECT, x.addr)
	for i, c := range []struct {
		name    string
		methods string
		login   []byte
		said    string
		reason  string
	}{
		{"another password", "\x02", paper5Login("fred", "correct hors"), paper5ChoseLogin + paper5LoginRefused, "bad-login"},
		{"another user's password", "\x02", paper5Login("fred", "battery staple"), paper5ChoseLogin + paper5LoginRefused, "bad-login"},
		{"an unknown user", "\x02", paper5Login("mallory", "correct horse"), paper5ChoseLogin + paper5LoginRefused, "bad-login"},
		{"an unknown user with no real name", "\x02", paper5Login("fred\n:x", "correct horse"), paper5ChoseLogin + paper5LoginRefused, "bad-login"},
		{"255 bytes each", "\x02", paper5Login(paperLong(255), paperLong(255)), paper5ChoseLogin + paper5LoginRefused, "bad-login"},
		{"the name in capitals", "\x02", paper5Login("FRED", "correct horse"), paper5ChoseLogin + paper5LoginRefused, "bad-login"},
		{"the hash in the place of the password", "\x02", paper5Login("fred", "$2y$04$"), paper5ChoseLogin + paper5LoginRefused, "bad-login"},
		{"no password", "\x02", paper5Login("fred", ""), paper5ChoseLogin + paper5LoginRefused, "bad-request"},
		{"no name", "\x02", paper5Login("", "correct horse"), paper5ChoseLogin + paper5LoginRefused, "bad-request"},
		{"NUL behind the password", "\x02", paper5Login("fred", "correct horse\x00"), paper5ChoseLogin + paper5LoginRefused, "bad-request"},
		{"NUL behind the name", "\x02", paper5Login("fred\x00", "correct horse"), paper5ChoseLogin + paper5LoginRefused, "bad-request"},
		{"a right login after a wrong one", "\x02", slices.Concat(paper5Login("fred", "x"), paper5Login("fred", "correct horse")), paper5ChoseLogin + paper5LoginRefused, "bad-login"},
		{"the request in the place of the login", "\x00\x02", nil, paper5ChoseLogin + paper5LoginRefused, "bad-request"},
		{"a login that is not offered", "\x00", paper5Login("fred", "correct horse"), paper5ChoseNothing, "bad-login"},
		{"nothing but the request", "\x00", nil, paper5ChoseNothing, "bad-login"},
		{"GSSAPI", "\x01", nil, paper5ChoseNothing, "bad-login"},
		{"no method", "", nil, paper5ChoseNothing, "bad-request"},
	} {
		t.Run(c.name+": refused, closed", func(t *testing.T) {
			t.Parallel()
			client := s.dial(t, fmt.Sprintf("127.1.%d.1", i)) // guesses slow their source down
			client.sends(paper5Greet([]byte(c.methods)...), c.login, request, []byte("and more"))
			client.hears(c.said)
			client.ends()
			if r := s.session(t, client); r.Reason != c.reason || r.Proof != "" && r.Proof != "claimed" {
				t.Errorf("the log says %+v", r)
			}
		})
	}
	t.Cleanup(func() {
		x.untouched(t)
		s.tellsNoPassword(t)
	})
}

// tellsNoPassword checks that no line of the log has one, and that each is one.
func (s *paperServer) tellsNoPassword(t *testing.T) {
	t.Helper()
	for _, line := range s.stderr.all() {
		if !json.Valid([]byte(line)) {
			t.Errorf("no line of JSON: %q", line)
		}
		for _, secret := range []string{"correct hors", "battery staple", "$2y$", "p\xc3\xa4ss"} {
			if strings.Contains(line, secret) {
				t.Errorf("a secret in the log: %s", line)
			}
		}
	}
}

func TestPaper5LoginGranted(t *testing.T) {
	t.Parallel()
	s := startPaper5(t, paper5Staff)
	echo := paperEcho(t, nil, "127.0.0.1:0")
	for _, c := range []struct{ name, methods, user, password string }{
		{"only a login is offered", "\x02", "fred", "correct horse"},
		{"both are offered", "\x00\x02", "eve", "battery staple"},
		{"the login is offered last, behind what nobody knows", "\x00\x01\x80\xfe\x02", "fred", "correct horse"},
		{"bytes outside ASCII", "\x02", "\xc3\xa9mile", "p\xc3\xa4ss"},
	} {
		t.Run(c.name+": step by step", func(t *testing.T) {
			t.Parallel()
			client := s.dial(t, "")
			client.sends(paper5Greet([]byte(c.methods)...))
			client.hears(paper5ChoseLogin)
			client.sends(paper5Login(c.user, c.password))
			client.hears(paper5LoggedIn)
			client.sends(paper5Ask(paperCONNECT, echo))
			client.granted5()
			client.echoes()
			client.leaves()
			if r := s.session(t, client); r.User != c.user || r.Proof != "password" || r.Rule != "staff" {
				t.Errorf("the log says %+v", r)
			}
		})
		t.Run(c.name+": all at once", func(t *testing.T) {
			t.Parallel()
			client := s.dial(t, "")
			client.sends(paper5Greet([]byte(c.methods)...), paper5Login(c.user, c.password), paper5Ask(paperCONNECT, echo), []byte("early"))
			client.hears(paper5ChoseLogin + paper5LoggedIn)
			client.granted5()
			client.hears("early")
		})
		t.Run(c.name+": byte by byte", func(t *testing.T) {
			t.Parallel()
			client := s.dial(t, "")
			for _, b := range slices.Concat(paper5Greet([]byte(c.methods)...), paper5Login(c.user, c.password), paper5Ask(paperCONNECT, echo)) {
				client.sends([]byte{b})
			}
			client.hears(paper5ChoseLogin + paper5LoggedIn)
			client.granted5()
			client.echoes()
		})
	}
	t.Cleanup(func() { s.tellsNoPassword(t) })
}

// Who may go where, with a password and without.
func TestPaper5LoginRules(t *testing.T) {
	t.Parallel()
	s := startPaper5(t, paper5Both)
	for _, c := range []struct {
		name, user, password, to string
		code                     byte
		rule                     string
	}{
		{"a guest where guests may go", "", "", "127.0.0.5", paper5Succeeded, "guests"},
		{"a guest where fred may go", "", "", "127.0.0.6", paper5NotAllowed, ""},
		{"a guest where the staff may go", "", "", "127.0.0.7", paper5NotAllowed, ""},
		{"fred where guests may go", "fred", "correct horse", "127.0.0.5", paper5Succeeded, "guests"},
		{"fred where he may go", "fred", "correct horse", "127.0.0.6", paper5Succeeded, "fred alone"},
		{"fred where the staff may go", "fred", "correct horse", "127.0.0.7", paper5Succeeded, "staff"},
		{"eve where fred may go", "eve", "battery staple", "127.0.0.6", paper5NotAllowed, ""},
		{"eve where the staff may go", "eve", "battery staple", "127.0.0.7", paper5Succeeded, "staff"},
		{"eve where nobody may go", "eve", "battery staple", "127.0.0.8", paper5NotAllowed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			echo := paperEcho(t, nil, c.to+":0")
			client := s.dial(t, "")
			if c.user == "" {
				client.sends(paper5Open(paper5Ask(paperCONNECT, echo)))
				client.hears(paper5ChoseNone)
			} else {
				client.sends(paper5Greet(paper5NoAuth, paper5Password), paper5Login(c.user, c.password), paper5Ask(paperCONNECT, echo))
				client.hears(paper5ChoseLogin + paper5LoggedIn)
			}
			client.answered5(c.code)
			client.leaves()
			if r := s.session(t, client); r.Rule != c.rule || r.User != c.user {
				t.Errorf("the log says %+v", r)
			}
		})
	}
	t.Run("SOCKS 4 with fred's name, where he may go: 91", func(t *testing.T) {
		t.Parallel()
		for _, to := range []string{"127.0.0.6", "127.0.0.7"} {
			x := paperListen(t, nil, to+":0")
			client := s.ask(t, paperAsk(paperCONNECT, x.addr, "fred"))
			client.refused(paperRejected)
			s.ended(t, client, "denied")
			x.untouched(t)
		}
	})
}

// Where no rule asks for a password none is read.
func TestPaper5LoginUnasked(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	x := paperListen(t, nil, "127.0.0.1:0")
	request := paper5Ask(paperCONNECT, x.addr)
	for _, c := range []struct {
		name  string
		bytes []byte
		said  string
	}{
		{"only a login is offered", slices.Concat(paper5Greet(paper5Password), paper5Login("fred", "x"), request), paper5ChoseNothing},
		{"only GSSAPI is offered", slices.Concat(paper5Greet(1), request), paper5ChoseNothing},
		{"FF is offered", slices.Concat(paper5Greet(255), request), paper5ChoseNothing},
		{"nothing is offered", slices.Concat(paper5Greet(), request), paper5ChoseNothing},
	} {
		t.Run(c.name+": FF, closed", func(t *testing.T) {
			t.Parallel()
			client := s.ask(t, c.bytes)
			client.hears(c.said)
			client.ends()
			s.session(t, client)
		})
	}
	t.Run("a login that was not asked for is no request", func(t *testing.T) {
		t.Parallel()
		client := s.ask(t, slices.Concat(paper5Greet(paper5NoAuth, paper5Password), paper5Login("fred", "x"), request))
		client.hears(paper5ChoseNone)
		client.refused5(paper5Failure)
		s.ended(t, client, "bad-request")
	})
	t.Cleanup(func() { x.untouched(t) })
}
