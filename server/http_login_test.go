//go:build unix

package server

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// gatekeeper is an Authenticator that knows alice and carol, of one password.
type gatekeeper struct {
	login Login
	seen  chan Credentials
}

func newGatekeeper(login Login) *gatekeeper {
	return &gatekeeper{login, make(chan Credentials, 100)}
}

func (g *gatekeeper) Login(string, Protocol, netip.Addr) Login { return g.login }

func (g *gatekeeper) Authenticate(_ context.Context, c Credentials) (Identity, error) {
	g.seen <- c
	switch {
	case c.Name == "busy":
		return Identity{}, fmt.Errorf("%w: too many guesses at once", Busy)
	case c.Name != "alice" && c.Name != "carol" || c.Password != "wonder:länd":
		return Identity{}, fmt.Errorf("%w: the user %q", BadLogin, c.Name)
	}
	return Identity{Name: c.Name, Proof: Password}, nil
}

// named grants whoever has shown a password.
func named(ctx context.Context, r *Request) (Grant, error) {
	if r.Identity.Proof != Password {
		return Grant{}, fmt.Errorf("%w: nobody", Denied)
	}
	return anything(ctx, r)
}

func basic(credentials string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials)) + "\r\n"
}

const alice = "alice:wonder:länd"

func TestBasic(t *testing.T) {
	for value, want := range map[string]string{
		"Basic YTpi":             "a|b",
		"basic   YTpi":           "a|b",
		"Basic YTpiOmM=":         "a|b:c",
		"Basic YTo=":             "a|",
		"Basic Og==":             "|",
		"Basic w6Q6w7Y=":         "ä|ö",
		"Basic YTpiOmM":          "!", // no padding
		"Basic YTpiOmN=":         "!", // bits that no encoder sets
		"Basic YWI=":             "!", // no colon
		"Basic YQA6Yg==":         "!", // NUL in the name
		"Basic YTpiAA==":         "!", // NUL in the password
		"Basic YQo6Yg==":         "!", // LF in the name
		"Basic YT pi":            "!",
		"Basic":                  "!",
		"Basic ":                 "!",
		"":                       "!",
		"Bearer YTpi":            "!",
		"BasicYTpi":              "!",
		"Basic YTpi, Basic YTpi": "!",
	} {
		name, password, err := parseBasic(value)
		got := name + "|" + password
		if err != nil {
			got = "!"
			if ReasonOf(err) != BadLogin {
				t.Errorf("%q: %v", value, err)
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

// TestHTTPLogin: a connection stays open behind a 407, so that the client can
// try again.
func TestHTTPLogin(t *testing.T) {
	for login, bare := range map[Login]Reason{LoginOptional: Denied, LoginRequired: BadLogin} {
		keeper := newGatekeeper(login)
		r := onLoopback(t, &Server{Policy: deciding(named), Authenticator: keeper}, Listener{Name: "lan"})
		target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
		for fields, want := range map[string]Reason{
			"":                                 bare,
			basic("alice:x"):                   BadLogin,
			basic("bob:wonder:länd"):           BadLogin,
			"Proxy-Authorization: Basic !\r\n": BadLogin,
		} {
			c.say("GET http://%s/ HTTP/1.1\r\nHost: x\r\n%s\r\n", target.Addr(), fields)
			response := c.hears(407, "")
			if got := response.Header.Get("Proxy-Authenticate"); got != `Basic realm="sallyport", charset="UTF-8"` || response.Close {
				t.Errorf("%q: %q, close %v", fields, got, response.Close)
			}
			if e := r.next(want); e.Protocol != HTTP || e.Target.Port != target.Addr().Port() {
				t.Errorf("recorded %+v", e.Session)
			}
		}
		c.say("GET http://%s/ HTTP/1.1\r\nHost: x\r\n%s\r\n", target.Addr(), basic("busy:x"))
		c.hears(503, "")
		r.next(Busy)
		target.Untouched(t)
		letsIn(r, c, target)
		for range 4 {
			if seen := <-keeper.seen; seen.Listener != "lan" || seen.Protocol != HTTP || !seen.Client.IsValid() {
				t.Errorf("the Authenticator got %+v", seen)
			}
		}
	}
}

func letsIn(r *rig, c *web, target *proxytest.Target) {
	r.Helper()
	c.say("GET http://%s/ HTTP/1.1\r\nHost: x\r\n%s\r\n", target.Addr(), basic(alice))
	far := nextFar(r, target)
	if head := far.head(); strings.Contains(head, "Proxy-Auth") {
		r.Errorf("%q", head)
	}
	far.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	c.hears(200, "ok")
	if e := r.next(Closed); e.Identity != (Identity{Name: "alice", Proof: Password}) {
		r.Errorf("recorded %+v", e.Identity)
	}
}

// TestKeptConnectionIsItsUsers: what one user has said on a connection to a
// target, such as a login that the target binds to it, serves no other user.
func TestKeptConnectionIsItsUsers(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(named), Authenticator: newGatekeeper(LoginRequired)}, Listener{})
	target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
	var far *farSide
	ask := func(user string, anew bool) {
		c.say("GET http://%s/%s HTTP/1.1\r\nHost: x\r\n%s\r\n", target.Addr(), user, basic(user+":wonder:länd"))
		if anew {
			far = nextFar(t, target)
		}
		if head := far.head(); !strings.HasPrefix(head, "GET /"+user+" ") {
			t.Fatalf("%q", head)
		}
		far.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		c.hears(200, "ok")
		r.next(Closed)
	}
	ask("alice", true)
	ask("alice", false)
	before := far
	ask("carol", true)
	proxytest.Ends(t, before.in)
	ask("alice", true)
}

func TestHTTPConnectLogin(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(named), Authenticator: newGatekeeper(LoginRequired)}, Listener{})
	echo, c := proxytest.Echo(t, "127.0.0.1"), r.web()
	c.say("CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", echo)
	c.hears(407, "")
	c.say("CONNECT %s HTTP/1.1\r\nHost: x\r\n%s\r\nping", echo, basic(alice))
	if response := c.head("CONNECT"); response.StatusCode != http.StatusOK || len(response.Header) > 0 {
		t.Errorf("%v", response)
	}
	proxytest.Hear(t, c.in, "ping")
	c.Close()
	r.next(BadLogin)
	r.next(Closed)
}

// TestNoRequestFromATunnel: a client that does not wait for the answer to its
// CONNECT has sent what is for the target. Where that is refused, it must not
// be read as a request.
func TestNoRequestFromATunnel(t *testing.T) {
	keeper := newGatekeeper(LoginRequired)
	r := onLoopback(t, &Server{Policy: deciding(named), Authenticator: keeper}, Listener{})
	target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
	c.say("CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\nGET http://%s/ HTTP/1.1\r\nHost: x\r\n%s\r\n", target.Addr(), target.Addr(), basic(alice))
	if !c.hears(407, "").Close {
		t.Error("the connection stays open")
	}
	c.ends()
	r.next(BadLogin)
	target.Untouched(t)
}

// TestNobodyIsAsked: where no password would be read, none is asked for and none
// counts.
func TestNobodyIsAsked(t *testing.T) {
	keeper := newGatekeeper(LoginNone)
	r := onLoopback(t, &Server{Policy: deciding(named), Authenticator: keeper}, Listener{})
	c := r.web()
	c.say("GET http://127.0.0.1:9/ HTTP/1.1\r\nHost: x\r\n%s\r\n", basic(alice))
	c.hears(403, "")
	c.say("GET http://127.0.0.1:9/ HTTP/1.1\r\nHost: x\r\n%s%s\r\n", basic(alice), basic(alice))
	c.hears(403, "")
	if len(keeper.seen) > 0 {
		t.Error("a password was checked")
	}
}
