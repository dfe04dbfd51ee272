package access

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/server"
)

// closed is a port of loopback on which nothing listens.
func closed(t *testing.T) uint16 {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return netip.MustParseAddrPort(ln.Addr().String()).Port()
}

// Rules that the table below is made of. Each is for port 80 of the Internet.
var (
	fredByIdent   = Rule{Name: "fred", Users: &Users{Names: []string{"fred"}}, Proofs: []server.Proof{server.Ident}}
	aliceByIdent  = Rule{Name: "alice", Users: &Users{Names: []string{"alice"}}, Proofs: []server.Proof{server.Ident}}
	fredByDefault = Rule{Name: "fred", Users: &Users{Names: []string{"fred"}}}
	anyByIdent    = Rule{Name: "any", Users: &Users{Any: true}, Proofs: []server.Proof{server.Ident}}
	byIdent       = Rule{Name: "proven", Proofs: []server.Proof{server.Ident}}
	fredByClaim   = Rule{Name: "claim", Users: &Users{Names: []string{"fred"}}, Proofs: []server.Proof{server.Claimed}}
	byClaim       = Rule{Name: "claim", Proofs: []server.Proof{server.Claimed}}
	fredByEither  = Rule{Name: "either", Users: &Users{Names: []string{"fred"}}, Proofs: []server.Proof{server.Ident, server.Claimed}}
	byPassword    = Rule{Name: "password", Users: &Users{Any: true}, Proofs: []server.Proof{"password"}}
	byPassOrIdent = Rule{Name: "either", Users: &Users{Any: true}, Proofs: []server.Proof{"password", server.Ident}}
	everybody     = Rule{Name: "everybody"}
	nobody        = Rule{Name: "nobody", Users: &Users{}}
	onPort25      = Rule{Name: "mail", Ports: []server.PortRange{{First: 25, Last: 25}}, Users: &Users{Any: true}}
	onLAN         = Rule{Name: "lan", To: to("private"), Users: &Users{Any: true}}
	onOtherHost   = Rule{Name: "host", To: to("host.example"), Users: &Users{Any: true}}
	notFred       = deny(fredByDefault, "not fred")
	notFredProven = deny(fredByIdent, "not fred")
	notPassword   = deny(byPassword, "no password")
	nothing       = Rule{Name: "nothing", Deny: true}
	unnamed       = Rule{Users: &Users{Any: true}}
)

func deny(r Rule, name string) Rule {
	r.Name, r.Deny = name, true
	return r
}

const granted = ": 8.8.8.8"

// proofs are what a client claims, what its identd says of it ("" for a
// connection that is closed at once, "refused" where there is none), what must
// become of a CONNECT, how the client's name is known then, and how often
// identd is asked.
var proofs = []struct {
	name   string
	rules  []Rule
	userid string
	identd string
	want   string
	proof  server.Proof
	asked  int64
}{
	// Only a rule that needs it makes the server ask, and only if it matches otherwise.
	{"nobody needs it", []Rule{everybody}, "fred", "fred", "everybody" + granted, server.Claimed, 0},
	{"an earlier rule matches", []Rule{everybody, fredByIdent}, "fred", "fred", "everybody" + granted, server.Claimed, 0},
	{"another port", []Rule{onPort25}, "fred", "fred", "denied", server.Claimed, 0},
	{"another network", []Rule{onLAN}, "fred", "fred", "denied", server.Claimed, 0},
	{"another host", []Rule{onOtherHost}, "fred", "fred", "denied", server.Claimed, 0},
	{"an earlier rule denies", []Rule{nothing, fredByIdent}, "fred", "fred", "denied nothing", server.Claimed, 0},

	// What identd says decides: 90, 93, 92.
	{"the same name", []Rule{fredByIdent}, "fred", "fred", "fred" + granted, server.Ident, 1},
	{"the same name, by default", []Rule{fredByDefault}, "fred", "fred", "fred" + granted, server.Ident, 1},
	{"the same name, anybody's", []Rule{anyByIdent}, "fred", "fred", "any" + granted, server.Ident, 1},
	{"the same name, no user asked for", []Rule{byIdent}, "fred", "fred", "proven" + granted, server.Ident, 1},
	{"the same odd name", []Rule{anyByIdent}, "\xff :\t:", "\xff :\t:", "any" + granted, server.Ident, 1},
	{"another name", []Rule{fredByIdent}, "fred", "alice", "other-user fred", server.Claimed, 1},
	{"the name of the rule, not claimed", []Rule{fredByIdent}, "alice", "fred", "denied", server.Claimed, 0},
	{"the name of the rule, nothing claimed", []Rule{fredByIdent}, "", "fred", "denied", server.NoProof, 0},
	{"the name of a rule that denies, not claimed", []Rule{notFredProven, everybody}, "alice", "fred", "everybody" + granted, server.Claimed, 0},
	{"capitals", []Rule{fredByIdent}, "fred", "Fred", "other-user fred", server.Claimed, 1},
	{"a space more", []Rule{fredByIdent}, "fred", "fred ", "other-user fred", server.Claimed, 1},
	{"no userid", []Rule{anyByIdent}, "", "fred", "other-user any", server.NoProof, 1},
	{"a hyphen", []Rule{anyByIdent}, "-", "-", "other-user any", server.Claimed, 1},
	{"ERROR", []Rule{anyByIdent}, "fred", "ERROR", "other-user any", server.Claimed, 1},
	{"OTHER", []Rule{anyByIdent}, "fred", "OTHER", "other-user any", server.Claimed, 1},
	{"no answer", []Rule{anyByIdent}, "fred", "", "no-identd any", server.Claimed, 1},
	{"no identd", []Rule{anyByIdent}, "fred", "refused", "no-identd any", server.Claimed, 0},

	// Asked once, however many rules need it; the first of them is named.
	{"for somebody else", []Rule{aliceByIdent}, "fred", "fred", "denied", server.Claimed, 0},
	{"for a later rule", []Rule{aliceByIdent, fredByIdent}, "fred", "fred", "fred" + granted, server.Ident, 1},
	{"many that fail", []Rule{aliceByIdent, fredByIdent, anyByIdent}, "fred", "bob", "other-user fred", server.Claimed, 1},
	{"many without identd", []Rule{anyByIdent, fredByIdent, byIdent}, "fred", "", "no-identd any", server.Claimed, 1},
	{"a rule without a name", []Rule{unnamed}, "fred", "", "no-identd", server.Claimed, 1},
	{"a rule without a name, another user", []Rule{unnamed}, "fred", "bob", "other-user", server.Claimed, 1},

	// Where it fails and the rules go on, what comes later decides.
	{"a later rule allows", []Rule{fredByIdent, everybody}, "fred", "bob", "everybody" + granted, server.Claimed, 1},
	{"a later rule allows without identd", []Rule{fredByIdent, fredByClaim}, "fred", "", "claim" + granted, server.Claimed, 1},
	{"a later rule denies", []Rule{fredByIdent, nothing}, "fred", "bob", "denied nothing", server.Claimed, 1},
	{"a later rule is about something else", []Rule{fredByIdent, onPort25, onLAN}, "fred", "bob", "other-user fred", server.Claimed, 1},

	// A bare claim is enough only where a rule says so, or denies.
	{"claim", []Rule{fredByClaim}, "fred", "bob", "claim" + granted, server.Claimed, 0},
	{"claim of another", []Rule{fredByClaim}, "bob", "fred", "denied", server.Claimed, 0},
	{"any claim", []Rule{byClaim}, "\x01", "", "claim" + granted, server.Claimed, 0},
	{"no claim", []Rule{byClaim}, "", "fred", "denied", server.NoProof, 0},
	{"claim or ident", []Rule{fredByEither}, "fred", "bob", "either" + granted, server.Claimed, 0},
	{"nobody's rule", []Rule{deny(nobody, "no"), everybody}, "fred", "fred", "everybody" + granted, server.Claimed, 0},
	{"denied on a claim", []Rule{notFred, everybody}, "fred", "refused", "denied not fred", server.Claimed, 0},
	{"not denied, another claim", []Rule{notFred, everybody}, "bob", "refused", "everybody" + granted, server.Claimed, 0},
	{"not denied, no claim", []Rule{notFred, everybody}, "", "refused", "everybody" + granted, server.NoProof, 0},

	// A rule that denies on proof alone.
	{"denied on proof", []Rule{notFredProven, everybody}, "fred", "fred", "denied not fred", server.Ident, 1},
	{"another is denied", []Rule{notFredProven, everybody}, "bob", "bob", "everybody" + granted, server.Claimed, 0},
	{"not proven", []Rule{notFredProven, everybody}, "fred", "bob", "everybody" + granted, server.Claimed, 1},
	{"not proven, no identd", []Rule{notFredProven, everybody}, "fred", "refused", "everybody" + granted, server.Claimed, 0},
	{"not proven, nothing allows", []Rule{notFredProven}, "fred", "", "denied", server.Claimed, 1},
	{"not proven, another needs it", []Rule{notFredProven, anyByIdent}, "fred", "bob", "other-user any", server.Claimed, 1},

	// Proofs that SOCKS 4 has not.
	{"password", []Rule{byPassword}, "fred", "fred", "denied", server.Claimed, 0},
	{"password, then everybody", []Rule{byPassword, everybody}, "fred", "fred", "everybody" + granted, server.Claimed, 0},
	{"password or ident", []Rule{byPassOrIdent}, "fred", "fred", "either" + granted, server.Ident, 1},
	{"password or no identd", []Rule{byPassOrIdent}, "fred", "", "no-identd either", server.Claimed, 1},
	{"denied with a password", []Rule{notPassword, everybody}, "fred", "fred", "everybody" + granted, server.Claimed, 0},
	{"password, then ident fails", []Rule{byPassword, fredByIdent}, "fred", "bob", "other-user fred", server.Claimed, 1},
}

// proofs5 are the same for SOCKS 5, and HTTP, where a client has signed in or
// is nobody: what it is then, by which proof.
var proofs5 = []struct {
	name   string
	rules  []Rule
	login  string // empty: none
	identd string
	want   string
	is     server.Identity
	asked  int64
}{
	{"nobody needs it", []Rule{everybody}, "", "fred", "everybody" + granted, server.Identity{}, 0},
	{"signed in, and nobody needs it", []Rule{everybody}, "fred", "fred", "everybody" + granted, byLogin("fred"), 0},

	// A password.
	{"signed in", []Rule{byPassword}, "fred", "bob", "password" + granted, byLogin("fred"), 0},
	{"signed in, no user asked for", []Rule{{Name: "in", Proofs: []server.Proof{"password"}}}, "fred", "bob", "in" + granted, byLogin("fred"), 0},
	{"signed in, by default", []Rule{fredByDefault}, "fred", "bob", "fred" + granted, byLogin("fred"), 0},
	{"signed in, or ident", []Rule{byPassOrIdent}, "fred", "bob", "either" + granted, byLogin("fred"), 0},
	{"signed in as another", []Rule{fredByDefault}, "alice", "fred", "denied", byLogin("alice"), 0},
	{"signed in as another, then everybody", []Rule{fredByDefault, everybody}, "alice", "fred", "everybody" + granted, byLogin("alice"), 0},
	{"signed in, for a later rule", []Rule{aliceByIdent, onPort25, byPassword}, "fred", "alice", "password" + granted, byLogin("fred"), 0},
	{"not signed in", []Rule{byPassword}, "", "fred", "denied", server.Identity{}, 0},
	{"not signed in, then everybody", []Rule{byPassword, everybody}, "", "fred", "everybody" + granted, server.Identity{}, 0},
	{"denied who signed in", []Rule{notPassword, everybody}, "fred", "fred", "denied no password", byLogin("fred"), 0},
	{"not denied who did not", []Rule{notPassword, everybody}, "", "fred", "everybody" + granted, server.Identity{}, 0},
	{"denied by name", []Rule{notFred, everybody}, "fred", "bob", "denied not fred", byLogin("fred"), 0},
	{"not denied by name", []Rule{notFred, everybody}, "alice", "fred", "everybody" + granted, byLogin("alice"), 0},
	{"capitals", []Rule{fredByDefault}, "Fred", "fred", "denied", byLogin("Fred"), 0},

	// Whoever has signed in is nobody else: a login is no claim, and no identd is asked.
	{"signed in is not ident", []Rule{fredByIdent}, "fred", "fred", "denied", byLogin("fred"), 0},
	{"signed in is not a claim", []Rule{fredByClaim}, "fred", "fred", "denied", byLogin("fred"), 0},
	{"denied on proof of ident", []Rule{notFredProven, everybody}, "fred", "fred", "everybody" + granted, byLogin("fred"), 0},

	// IDENT: nothing is claimed, and the name that identd gives is the client's.
	{"ident", []Rule{fredByIdent}, "", "fred", "fred" + granted, server.Identity{Name: "fred", Proof: server.Ident}, 1},
	{"ident, by default", []Rule{fredByDefault}, "", "fred", "fred" + granted, server.Identity{Name: "fred", Proof: server.Ident}, 1},
	{"ident, anybody", []Rule{anyByIdent}, "", "bob", "any" + granted, server.Identity{Name: "bob", Proof: server.Ident}, 1},
	{"ident, no user asked for", []Rule{byIdent}, "", "bob", "proven" + granted, server.Identity{Name: "bob", Proof: server.Ident}, 1},
	{"ident or password", []Rule{byPassOrIdent}, "", "fred", "either" + granted, server.Identity{Name: "fred", Proof: server.Ident}, 1},
	{"ident or a claim, which there is not", []Rule{fredByEither}, "", "fred", "either" + granted, server.Identity{Name: "fred", Proof: server.Ident}, 1},
	{"ident for another", []Rule{fredByIdent}, "", "alice", "denied", server.Identity{Name: "alice", Proof: server.Ident}, 1},
	{"ident for a later rule", []Rule{fredByIdent, aliceByIdent}, "", "alice", "alice" + granted, server.Identity{Name: "alice", Proof: server.Ident}, 1},
	{"denied on ident", []Rule{notFredProven, everybody}, "", "fred", "denied not fred", server.Identity{Name: "fred", Proof: server.Ident}, 1},
	{"not denied on ident", []Rule{notFredProven, everybody}, "", "bob", "everybody" + granted, server.Identity{Name: "bob", Proof: server.Ident}, 1},
	{"not denied, nobody asks", []Rule{notFred, everybody}, "", "fred", "everybody" + granted, server.Identity{}, 0},
	{"nobody's rule", []Rule{nobody}, "", "fred", "denied", server.Identity{}, 0},
	{"a claim", []Rule{byClaim}, "", "fred", "denied", server.Identity{}, 0},
	{"no name", []Rule{anyByIdent}, "", "-", "other-user any", server.Identity{}, 1},
	{"no identd", []Rule{anyByIdent}, "", "refused", "no-identd any", server.Identity{}, 0},
}

func byLogin(name string) server.Identity {
	return server.Identity{Name: name, Proof: server.Password}
}

func TestProofs5(t *testing.T) {
	for _, protocol := range []server.Protocol{server.SOCKS5, server.HTTP} {
		for _, test := range proofs5 {
			t.Run(string(protocol)+" "+test.name, func(t *testing.T) {
				d := newIdentd(t, "127.0.0.1", saysOf(test.identd))
				p := newPolicy(nil, test.rules...)
				p.ident.Port = d.port
				if test.identd == "refused" {
					p.ident.Port = closed(t)
				}
				q := newRequest(t, "8.8.8.8:80", "")
				q.Protocol = protocol
				if test.login != "" {
					q.Identity = byLogin(test.login)
				}
				wantVerdict(t, p, q, test.want)
				if asked := d.asked.Load(); asked != test.asked {
					t.Errorf("identd was asked %d times, want %d", asked, test.asked)
				}
				if grant, _ := p.Decide(t.Context(), q); grant.Identity != test.is {
					t.Errorf("the client is %+v, want %+v", grant.Identity, test.is)
				}
			})
		}
	}
}

func TestProofs(t *testing.T) {
	for _, test := range proofs {
		t.Run(test.name, func(t *testing.T) {
			d := newIdentd(t, "127.0.0.1", saysOf(test.identd))
			p := newPolicy(nil, test.rules...)
			p.ident.Port = d.port
			if test.identd == "refused" {
				p.ident.Port = closed(t)
			}
			q := newRequest(t, "8.8.8.8:80", test.userid)
			before := *q
			wantVerdict(t, p, q, test.want)
			if asked := d.asked.Load(); asked != test.asked {
				t.Errorf("identd was asked %d times, want %d", asked, test.asked)
			}
			if *q != before {
				t.Errorf("the request was changed to %+v", *q)
			}
			grant, _ := p.Decide(t.Context(), q)
			if want := (server.Identity{Name: test.userid, Proof: test.proof}); grant.Identity != want {
				t.Errorf("the client is %+v, want %+v", grant.Identity, want)
			}
		})
	}
}

// saysOf makes the identd of a row above.
func saysOf(word string) func(net.Conn) {
	switch word {
	case "":
		return func(net.Conn) {}
	case "ERROR":
		return says(func(query string) string { return query + " : ERROR : NO-USER\r\n" })
	case "OTHER":
		return says(func(query string) string { return query + " : USERID : OTHER : fred\r\n" })
	}
	return names(word)
}

// A client that fails by a proof that its protocol does not have is told so by
// the log: by the rule's name, the proof and the protocol.
func TestHint(t *testing.T) {
	tests := []struct {
		rules []Rule
		want  []string // the words
		not   []string
	}{
		{[]Rule{byPassword}, []string{`"password"`, "password", "socks4"}, nil},
		{[]Rule{{Name: "staff", Proofs: []server.Proof{"password", "certificate"}}}, []string{`"staff"`, "password or certificate", "socks4"}, nil},
		{[]Rule{byPassword, onPort25}, []string{`"password"`}, nil},
		{[]Rule{notPassword}, nil, []string{"password"}}, // a rule that denies would not have helped
		{[]Rule{{Name: "staff mail", Ports: onPort25.Ports, Proofs: byPassword.Proofs}}, nil, []string{"staff mail"}},
		{[]Rule{aliceByIdent}, nil, []string{"cannot show", "alice"}},
	}
	for _, test := range tests {
		d := newIdentd(t, "127.0.0.1", names("fred"))
		p := newPolicy(nil, test.rules...)
		p.ident.Port = d.port
		_, err := p.Decide(t.Context(), newRequest(t, "8.8.8.8:80", "fred"))
		if server.ReasonOf(err) != server.Denied {
			t.Errorf("%s: %v, want denied", test.rules[0].Name, err)
			continue
		}
		said := err.Error()
		for _, word := range test.want {
			if !strings.Contains(said, word) {
				t.Errorf("%q does not say %s", err, word)
			}
		}
		for _, word := range test.not {
			if strings.Contains(said, word) {
				t.Errorf("%q says %s", err, word)
			}
		}
	}
}

// A client that could have shown what a rule asks for is told so as well.
func TestHint5(t *testing.T) {
	q := newRequest(t, "8.8.8.8:80", "")
	q.Protocol = server.SOCKS5
	_, err := newPolicy(nil, byPassword).Decide(t.Context(), q)
	if err == nil || !strings.Contains(err.Error(), `the rule "password" asks for password, which the client has not shown`) {
		t.Errorf("no login: %v", err)
	}
	q.Identity = byLogin("fred")
	_, err = newPolicy(nil, byIdent).Decide(t.Context(), q)
	if err == nil || !strings.Contains(err.Error(), `the rule "proven" asks for ident, which the client has not shown`) {
		t.Errorf("another proof: %v", err)
	}
}

// Names from the wire are in an error's words only escaped.
func TestErrorsEscapeNames(t *testing.T) {
	evil := "fred\x1b[2Jgrant rule=root"
	d := newIdentd(t, "127.0.0.1", names("al\x1bice"))
	p := newPolicy(nil, anyByIdent)
	p.ident.Port = d.port
	_, err := p.Decide(t.Context(), newRequest(t, "8.8.8.8:80", evil))
	if server.ReasonOf(err) != server.OtherUser {
		t.Fatalf("%v, want other-user", err)
	}
	for _, c := range []byte(err.Error()) {
		if c < ' ' || c > '~' {
			t.Fatalf("%q has the byte %#x", err, c)
		}
	}
}
