package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/socks"
)

// door is an Authenticator that knows one user.
type door struct {
	login Login
	check func(context.Context, Credentials) (Identity, error) // nil: fred, whose password is "secret"
}

func (d door) Login(string, Protocol, netip.Addr) Login { return d.login }

func (d door) Authenticate(ctx context.Context, c Credentials) (Identity, error) {
	if d.check != nil {
		return d.check(ctx, c)
	}
	if c.Name != "fred" || c.Password != "secret" {
		return Identity{}, fmt.Errorf("%w: no such user, or another password", BadLogin)
	}
	return fred, nil
}

var fred = Identity{Name: "fred", Proof: Password}

// What clients and servers of SOCKS 5 say.
const (
	fredsLogin   = "\x01\x04fred\x06secret"
	badLogin     = "\x01\x04fred\x06hunter"
	toTarget     = "\x05\x01\x00\x01\x7f\x00\x00\x02\x00\x50"
	choseNone    = "\x05\x00"
	choseLogin   = "\x05\x02"
	choseNothing = "\x05\xff"
	loginGranted = "\x01\x00"
	loginRefused = "\x01\x01"
)

// refused5 is a reply with a code and no address.
func refused5(code byte) string {
	return string([]byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0})
}

// transcript is what came of a client's bytes.
type transcript struct {
	said        string  // by the server, the last words included
	outcome     outcome // without its reply
	credentials string  // each that was asked about
	left        string  // what was not taken of the client's bytes
	over        bool
}

// chunks is a connection on which bytes arrive in pieces, and that notes what
// is said on it.
type chunks struct {
	net.Conn
	pieces [][]byte
	said   bytes.Buffer
}

func (c *chunks) Read(b []byte) (int, error) {
	for len(c.pieces) > 0 && len(c.pieces[0]) == 0 {
		c.pieces = c.pieces[1:]
	}
	if len(c.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.pieces[0])
	c.pieces[0] = c.pieces[0][n:]
	return n, nil
}

func (c *chunks) Write(b []byte) (int, error) { return c.said.Write(b) }

// play drives the handshake of SOCKS 5 over the pieces.
func play(t *testing.T, login Login, pieces ...[]byte) transcript {
	t.Helper()
	var got transcript
	inner := door{login: login}
	server := &Server{Authenticator: door{login: login, check: func(ctx context.Context, c Credentials) (Identity, error) {
		got.credentials += c.Name + ":" + c.Password + " "
		if c.Protocol != SOCKS5 || c.Listener != "lan" || c.Client != netip.AddrPortFrom(clientAt, 4) {
			t.Errorf("asked about %+v", c)
		}
		return inner.Authenticate(ctx, c)
	}}}
	c := &chunks{pieces: pieces}
	d := &driver{headed: true, buf: make([]byte, 0, handshakeBuffer), exchange: &exchange{
		server: server, conn: c, listener: &Listener{Name: "lan"}, session: NewSession(Record{Client: netip.AddrPortFrom(clientAt, 4)}),
	}}
	last, err := d.drive(t.Context(), step{})
	if over := last.over(); over != (err == nil) || !over && !errors.Is(err, io.EOF) {
		t.Fatalf("over: %v, and %v", over, err)
	}
	got.over = last.over()
	got.said = c.said.String() + string(last.reply)
	last.reply = nil
	got.outcome = outcomeOf(last)
	if last.refusal == nil { // the rest of a refused client is of no interest
		got.left = string(d.buf) + string(bytes.Join(c.pieces, nil))
	}
	return got
}

// case5 is what a client sends and what must come of it.
type case5 struct {
	name  string
	login Login
	bytes string
	said  string
	want  outcome
	creds string
}

// asked5 is the outcome of a request.
func asked5(c socks.Command, id Identity, host string, port uint16) outcome {
	o := asked(SOCKS5, c, "", host, port)
	o.identity = id
	return o
}

// not5 is the outcome of a refusal.
func not5(r Reason) outcome { return outcome{over: true, refusal: r} }

var (
	target5 = asked5(socks.Connect, Identity{}, "127.0.0.2", 80)
	freds5  = asked5(socks.Connect, fred, "127.0.0.2", 80)
)

// methodCases: what the client offers and the rules ask for decides.
var methodCases = []case5{
	{"none; none offered", LoginNone, "\x05\x01\x00" + toTarget, choseNone, target5, ""},
	{"none; both offered", LoginNone, "\x05\x02\x00\x02" + toTarget, choseNone, target5, ""},
	{"none; both offered, the login first", LoginNone, "\x05\x02\x02\x00" + toTarget, choseNone, target5, ""},
	{"none; only a login offered", LoginNone, "\x05\x01\x02" + fredsLogin, choseNothing, not5(Unsupported), ""},
	{"none; only GSSAPI offered", LoginNone, "\x05\x01\x01", choseNothing, not5(Unsupported), ""},
	{"none; GSSAPI offered as well", LoginNone, "\x05\x02\x01\x00" + toTarget, choseNone, target5, ""},
	{"none; FF offered", LoginNone, "\x05\x01\xff", choseNothing, not5(Unsupported), ""},
	{"none; all but the two offered", LoginNone, "\x05\xfd\x01" + everyMethodFrom(3), choseNothing, not5(Unsupported), ""},
	{"none; 255 methods, the last one fits", LoginNone, "\x05\xff" + everyMethodFrom(1) + "\x00" + toTarget, choseNone, target5, ""},

	{"optional; none offered", LoginOptional, "\x05\x01\x00" + toTarget, choseNone, target5, ""},
	{"optional; a login offered", LoginOptional, "\x05\x01\x02" + fredsLogin + toTarget, choseLogin + loginGranted, freds5, "fred:secret "},
	{"optional; both offered", LoginOptional, "\x05\x02\x00\x02" + fredsLogin + toTarget, choseLogin + loginGranted, freds5, "fred:secret "},
	{"optional; only GSSAPI offered", LoginOptional, "\x05\x01\x01", choseNothing, not5(Unsupported), ""},

	{"required; none offered", LoginRequired, "\x05\x01\x00" + toTarget, choseNothing, not5(BadLogin), ""},
	{"required; a login offered", LoginRequired, "\x05\x01\x02" + fredsLogin + toTarget, choseLogin + loginGranted, freds5, "fred:secret "},
	{"required; both offered", LoginRequired, "\x05\x02\x00\x02" + fredsLogin + toTarget, choseLogin + loginGranted, freds5, "fred:secret "},
	{"required; only GSSAPI offered", LoginRequired, "\x05\x01\x01", choseNothing, not5(BadLogin), ""},

	{"no method", LoginNone, "\x05\x00" + toTarget, choseNothing, not5(BadRequest), ""},
	{"no method where a login is required", LoginRequired, "\x05\x00" + fredsLogin, choseNothing, not5(BadRequest), ""},
}

// everyMethodFrom is all methods from first to 254.
func everyMethodFrom(first int) string {
	var b []byte
	for m := first; m < 255; m++ {
		b = append(b, byte(m))
	}
	return string(b)
}

// loginCases: who does not show what is asked for gets no further.
var loginCases = []case5{
	{"another password", LoginRequired, "\x05\x01\x02" + badLogin + toTarget, choseLogin + loginRefused, not5(BadLogin), "fred:hunter "},
	{"another user", LoginRequired, "\x05\x01\x02\x01\x03eve\x06secret" + toTarget, choseLogin + loginRefused, not5(BadLogin), "eve:secret "},
	{"another password where none is needed", LoginOptional, "\x05\x02\x00\x02" + badLogin + toTarget, choseLogin + loginRefused, not5(BadLogin), "fred:hunter "},
	{"a second try", LoginRequired, "\x05\x01\x02" + badLogin + fredsLogin + toTarget, choseLogin + loginRefused, not5(BadLogin), "fred:hunter "},
	{"a password cut short", LoginRequired, "\x05\x01\x02\x01\x04fred\x05secre" + toTarget, choseLogin + loginRefused, not5(BadLogin), "fred:secre "},
	{"a password with more behind it", LoginRequired, "\x05\x01\x02\x01\x04fred\x07secrets" + toTarget, choseLogin + loginRefused, not5(BadLogin), "fred:secrets "},
	{"a request in the place of the login", LoginRequired, "\x05\x01\x02" + toTarget, choseLogin + loginRefused, not5(BadRequest), ""},
	{"a second greeting in the place of the login", LoginRequired, "\x05\x02\x00\x02\x05\x01\x00" + toTarget, choseLogin + loginRefused, not5(BadRequest), ""},
	{"no name", LoginRequired, "\x05\x01\x02\x01\x00\x06secret" + toTarget, choseLogin + loginRefused, not5(BadRequest), ""},
	{"no password", LoginRequired, "\x05\x01\x02\x01\x04fred\x00" + toTarget, choseLogin + loginRefused, not5(BadRequest), ""},
	{"NUL in the name", LoginRequired, "\x05\x01\x02\x01\x06fred\x00x\x06secret" + toTarget, choseLogin + loginRefused, not5(BadRequest), ""},
	{"NUL in the password", LoginRequired, "\x05\x01\x02\x01\x04fred\x08secret\x00x" + toTarget, choseLogin + loginRefused, not5(BadRequest), ""},
	{
		"the longest name and password", LoginRequired,
		"\x05\x01\x02\x01\xff" + strings.Repeat("n", 255) + "\xff" + strings.Repeat("p", 255) + toTarget,
		choseLogin + loginRefused, not5(BadLogin), strings.Repeat("n", 255) + ":" + strings.Repeat("p", 255) + " ",
	},
	{"a login that was not asked for", LoginNone, "\x05\x02\x00\x02" + fredsLogin + toTarget, choseNone + refused5(1), not5(BadRequest), ""},
	{"a login that was not offered", LoginOptional, "\x05\x01\x00" + fredsLogin + toTarget, choseNone + refused5(1), not5(BadRequest), ""},
	{"a second login", LoginRequired, "\x05\x01\x02" + fredsLogin + fredsLogin + toTarget, choseLogin + loginGranted + refused5(1), not5(BadRequest), "fred:secret "},
}

// requestCases have a greeting before them.
var requestCases = []case5{
	{"connect", LoginNone, toTarget, "", target5, ""},
	{"bind", LoginNone, "\x05\x02\x00\x01\x0a\x00\x00\x09\x00\x15", "", asked5(socks.Bind, Identity{}, "10.0.0.9", 21), ""},
	{"unknown commands are whole requests", LoginNone, "\x05\x09\x00\x01\x0a\x00\x00\x09\x00\x15", "", asked5(9, Identity{}, "10.0.0.9", 21), ""},
	{"IPv6", LoginNone, "\x05\x01\x00\x04\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x00\x50", "", asked5(socks.Connect, Identity{}, "2001:db8::1", 80), ""},
	{"a mapped address", LoginNone, "\x05\x01\x00\x04" + strings.Repeat("\x00", 10) + "\xff\xff\x7f\x00\x00\x02\x00\x50", "", target5, ""},
	{"a name", LoginNone, "\x05\x01\x00\x03\x0fWWW.Example.COM\x00\x50", "", asked5(socks.Connect, Identity{}, "www.example.com", 80), ""},
	{"a name with a dot", LoginNone, "\x05\x01\x00\x03\x0cexample.com.\x00\x50", "", asked5(socks.Connect, Identity{}, "example.com", 80), ""},
	{"an address as a name", LoginNone, "\x05\x01\x00\x03\x09127.0.0.2\x00\x50", "", target5, ""},
	{"an address in hex as a name", LoginNone, "\x05\x01\x00\x03\x060x7f.2\x00\x50", "", target5, ""},
	{"an IPv6 address as a name", LoginNone, "\x05\x01\x00\x03\x0b2001:db8::1\x00\x50", "", asked5(socks.Connect, Identity{}, "2001:db8::1", 80), ""},
	{"the longest name", LoginNone, "\x05\x01\x00\x03\xfd" + longName + "\x00\x50", "", asked5(socks.Connect, Identity{}, longName, 80), ""},
	{"0.0.0.1 marks no name here", LoginNone, "\x05\x01\x00\x01\x00\x00\x00\x01\x00\x50", "", asked5(socks.Connect, Identity{}, "0.0.0.1", 80), ""},
	{"no name", LoginNone, "\x05\x01\x00\x03\x00\x00\x50", refused5(4), not5(BadRequest), ""},
	{"a name with NUL", LoginNone, "\x05\x01\x00\x03\x0elocalhost\x00.com\x00\x50", refused5(4), not5(BadRequest), ""},
	{"a name that ends in NUL", LoginNone, "\x05\x01\x00\x03\x0alocalhost\x00\x00\x50", refused5(4), not5(BadRequest), ""},
	{"a name that would forge a line", LoginNone, "\x05\x01\x00\x03\x04a\r\nb\x00\x50", refused5(4), not5(BadRequest), ""},
	{"255 bytes that are no name", LoginNone, "\x05\x01\x00\x03\xff" + strings.Repeat("h", 255) + "\x00\x50", refused5(4), not5(BadRequest), ""},
	{"address type 0", LoginNone, "\x05\x01\x00\x00\x7f\x00\x00\x02\x00\x50", refused5(8), not5(BadRequest), ""},
	{"address type 2", LoginNone, "\x05\x01\x00\x02\x7f\x00\x00\x02\x00\x50", refused5(8), not5(BadRequest), ""},
	{"address type 255", LoginNone, "\x05\x01\x00\xff\x7f\x00\x00\x02\x00\x50", refused5(8), not5(BadRequest), ""},
	{"the reserved byte", LoginNone, "\x05\x01\x01\x01\x7f\x00\x00\x02\x00\x50", refused5(1), not5(BadRequest), ""},
	{"a request of SOCKS 4", LoginNone, "\x04\x01\x00\x50\x7f\x00\x00\x02bob\x00", refused5(1), not5(BadRequest), ""},
	{"a second greeting", LoginNone, "\x05\x01\x00\x05\x01\x00", refused5(8), not5(BadRequest), ""},
}

// allCases5 are all of them, whole.
func allCases5() []case5 {
	all := slices.Concat(methodCases, loginCases)
	for _, c := range requestCases {
		plain, proven := c, c
		plain.bytes, plain.said = "\x05\x01\x00"+c.bytes, choseNone+c.said
		proven.name, proven.login, proven.creds = c.name+", behind a login", LoginRequired, "fred:secret "
		proven.bytes, proven.said = "\x05\x01\x02"+fredsLogin+c.bytes, choseLogin+loginGranted+c.said
		if c.want.refusal == "" {
			proven.want.identity = fred
		}
		all = append(all, plain, proven)
	}
	return all
}

// TestSOCKS5Machine feeds each whole, with a tail, cut at every byte and byte
// by byte: the client may wait for the answers in between, or not.
func TestSOCKS5Machine(t *testing.T) {
	const tail = "\x05\x01\x00the target's"
	for _, c := range allCases5() {
		t.Run(c.name, func(t *testing.T) {
			b := []byte(c.bytes)
			want := transcript{c.said, c.want, c.creds, "", true}
			if got := play(t, c.login, bytes.Clone(b)); got != want {
				t.Fatalf("whole: %+v\nwant %+v", got, want)
			}
			if c.want.refusal == "" {
				want.left = tail
			}
			if got := play(t, c.login, []byte(c.bytes+tail)); got != want {
				t.Fatalf("with a tail: %+v\nwant %+v", got, want)
			}
			if got := play(t, c.login, singly(c.bytes+tail)...); got != want {
				t.Fatalf("byte by byte: %+v\nwant %+v", got, want)
			}
			for cut := range b {
				if got := play(t, c.login, []byte(c.bytes[:cut]), []byte(c.bytes[cut:]+tail)); got != want {
					t.Fatalf("cut at %d: %+v\nwant %+v", cut, got, want)
				}
				wantNoMore(t, play(t, c.login, []byte(c.bytes[:cut])), want, cut)
			}
		})
	}
}

func singly(s string) (pieces [][]byte) {
	for i := range len(s) {
		pieces = append(pieces, []byte{s[i]})
	}
	return pieces
}

// wantNoMore requires that the first bytes are answered with the first words,
// and that nobody is granted anything by half a handshake.
func wantNoMore(t *testing.T, got, whole transcript, cut int) {
	t.Helper()
	switch {
	case !strings.HasPrefix(whole.said, got.said) || !strings.HasPrefix(whole.credentials, got.credentials):
		t.Fatalf("the first %d bytes: %q is said, want a part of %q", cut, got.said, whole.said)
	case got.over && whole.outcome.refusal == "":
		t.Fatalf("the first %d bytes are enough", cut)
	case got.over && got != whole:
		t.Fatalf("the first %d bytes: %+v, want %+v", cut, got, whole)
	}
}

// TestSOCKS5IsBounded: a message has a longest form, and what is behind it is not
// collected.
func TestSOCKS5IsBounded(t *testing.T) {
	endless := "\x05\x01\x02\x01\xff" + strings.Repeat("\xff", 64<<10)
	if got := play(t, LoginRequired, []byte(endless)); got.outcome.refusal != BadLogin {
		t.Errorf("%+v; want a refused login", got)
	}
	endless = "\x05\xff" + strings.Repeat("\x01", 64<<10)
	if got := play(t, LoginNone, []byte(endless)); got.said != choseNothing {
		t.Errorf("%+v; want that no method is acceptable", got)
	}
}

func TestSOCKS5IsSpokenWhereItIsServed(t *testing.T) {
	for _, test := range []struct {
		protocols []Protocol
		first     byte
		want      bool
	}{
		{nil, 5, true},
		{nil, 4, true},
		{[]Protocol{SOCKS5}, 5, true},
		{[]Protocol{SOCKS5}, 4, false},
		{[]Protocol{SOCKS4, SOCKS4a}, 5, false},
		{[]Protocol{SOCKS4, SOCKS5}, 4, true},
	} {
		h, err := detectFor(test.first, &Listener{Protocols: test.protocols})
		if (h != nil) != test.want || (err == nil) != test.want || !test.want && ReasonOf(err) != Garbage {
			t.Errorf("%v, first byte %d: %T, %v", test.protocols, test.first, h, err)
		}
	}
}

// FuzzHandshake5: in whatever pieces the bytes come and whatever is behind them,
// the handshake says the same and loses and invents nothing; and where a login
// is required, nobody but fred comes to a request.
func FuzzHandshake5(f *testing.F) {
	for i, c := range allCases5() {
		f.Add([]byte(c.bytes), uint8(c.login), uint16(i), []byte("GET /"))
	}
	f.Fuzz(func(t *testing.T, b []byte, l uint8, cut uint16, tail []byte) {
		if b = b[:min(len(b), 2<<10)]; len(b) > 0 {
			b[0] = socks.Version5
		}
		login := Login(l % 3)
		want := play(t, login, bytes.Clone(b))
		at := min(int(cut), len(b))
		for name, pieces := range map[string][][]byte{
			"byte by byte": singly(string(b)),
			"cut in two":   {bytes.Clone(b[:at]), bytes.Clone(b[at:])},
		} {
			if got := play(t, login, pieces...); got != want {
				t.Fatalf("%s, %d: %+v\nwant %+v", name, at, got, want)
			}
		}
		if !strings.HasSuffix(string(b), want.left) {
			t.Fatalf("%q is left of %q", want.left, b)
		}
		if want.over {
			got := play(t, login, slices.Concat(b, tail))
			if want.outcome.refusal == "" {
				want.left += string(tail)
			}
			if got != want {
				t.Fatalf("with a tail: %+v\nwant %+v", got, want)
			}
		}
		checkProven(t, login, want)
	})
}

func checkProven(t *testing.T, login Login, got transcript) {
	t.Helper()
	if got.outcome.protocol == "" {
		return
	}
	proven := got.outcome.identity == fred
	switch {
	case got.outcome.identity != (Identity{}) && !proven,
		proven != (got.credentials == "fred:secret "),
		login == LoginRequired && !proven,
		login == LoginNone && got.credentials != "":
		t.Fatalf("%d: %+v", login, got)
	}
}
