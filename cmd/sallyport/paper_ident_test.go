//go:build linux

package main_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// paperQuestion is what an identd was asked (RFC 1413: the port on the machine
// that it runs on, and the port on the machine that asks).
type paperQuestion struct {
	text         string
	ours, theirs uint16
	asker        netip.AddrPort
}

var paperQuestionText = regexp.MustCompile(`^ *(\d{1,5}) *, *(\d{1,5}) *\r\n$`)

// paperIdentd is an identd of the test.
type paperIdentd struct {
	asked atomic.Int64
	last  chan paperQuestion // the questions, as many as fit
}

// paperAnswer is how an identd deals with a question; the connection is closed
// when it returns.
type paperAnswer func(c net.Conn, q paperQuestion)

// paperIdent runs an identd at addr, port 113, until the test ends.
func paperIdent(t *testing.T, n *paperNet, addr string, answer paperAnswer) *paperIdentd {
	t.Helper()
	d := &paperIdentd{last: make(chan paperQuestion, 16)}
	ln := n.listen(t, net.JoinHostPort(addr, "113"))
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			d.asked.Add(1)
			go d.serve(t.Context(), c, answer)
		}
	}()
	return d
}

func (d *paperIdentd) serve(ctx context.Context, c net.Conn, answer paperAnswer) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	text, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return
	}
	q := paperQuestion{text: text, asker: c.RemoteAddr().(*net.TCPAddr).AddrPort()}
	if m := paperQuestionText.FindStringSubmatch(text); m != nil {
		ours, _ := strconv.ParseUint(m[1], 10, 16) // too large: 65535, which no answer will match
		theirs, _ := strconv.ParseUint(m[2], 10, 16)
		q.ours, q.theirs = uint16(ours), uint16(theirs)
	}
	select {
	case d.last <- q:
	default:
	}
	answer(c, q)
}

// paperTells answers with the text, in which OURS and THEIRS are the ports that
// were asked for, and closes.
func paperTells(text string) paperAnswer {
	return func(c net.Conn, q paperQuestion) {
		ports := strings.NewReplacer("OURS", strconv.Itoa(int(q.ours)), "THEIRS", strconv.Itoa(int(q.theirs)))
		_, _ = ports.WriteString(c, text) // the asker may have had enough
	}
}

// paperNames answers as identds do, with the name.
func paperNames(name string) paperAnswer {
	return paperTells("OURS , THEIRS : USERID : UNIX : " + name + "\r\n")
}

// paperHangs waits until the asker gives up.
func paperHangs(c net.Conn, _ paperQuestion) { _, _ = io.Copy(io.Discard, c) }

// paperTrickles sends a byte now and then, and never comes to an end.
func paperTrickles(c net.Conn, _ paperQuestion) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := c.Write([]byte("1")); err != nil {
			return
		}
	}
}

// paperRambles sends without end and without a newline.
func paperRambles(c net.Conn, _ paperQuestion) { _, _ = io.Copy(c, paperZeros{}) }

// paperBytewise sends every byte in a segment of its own.
func paperBytewise(c net.Conn, q paperQuestion) {
	for _, b := range fmt.Appendf(nil, "%d, %d : USERID : UNIX : alice\r\n", q.ours, q.theirs) {
		if _, err := c.Write([]byte{b}); err != nil {
			return
		}
	}
}

// paperStays answers and does not close.
func paperStays(c net.Conn, q paperQuestion) {
	paperNames("alice")(c, q)
	paperHangs(c, q)
}

const paperByIdent = `
log: {format: json}
timeouts: {ident: 1s}
rules: {allow: by ident, from: loopback, users: any, proof: ident, to: any, bind: {primary: optional}}
`

// paperIdentCase is one client, at an address of its own, and its identd.
type paperIdentCase struct {
	name   string
	user   string
	answer paperAnswer // nil: no identd
	code   byte
}

// paperRunIdent asks for an echo in every case.
func paperRunIdent(t *testing.T, settings, network string, cases []paperIdentCase) {
	t.Helper()
	n := newPaperNet(t)
	s := startPaper(t, paperSetup{net: n, settings: settings})
	echo := paperEcho(t, n, "127.0.0.1:0")
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			from := fmt.Sprintf("127.%s.%d", network, i+1)
			if c.answer != nil {
				paperIdent(t, n, from, c.answer)
			}
			client := s.dial(t, from)
			client.sends(paperAsk(paperCONNECT, echo, c.user))
			client.answered(c.code)
			switch c.code {
			case paperGranted:
				client.echoes()
				client.leaves()
				if r := s.session(t, client); r.Proof != "ident" || strings.Trim(c.user, "abcdefghijklmnopqrstuvwxyz") == "" && r.User != c.user {
					t.Errorf("the log says user %q, proof %q", r.User, r.Proof)
				}
			case paperNoIdentd:
				s.ended(t, client, "no-identd")
			case paperOtherUser:
				s.ended(t, client, "other-user")
			}
		})
	}
}

func TestPaperIdentNames(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	paperRunIdent(t, paperByIdent, "113.0", []paperIdentCase{
		{"the same name: 90", "alice", paperNames("alice"), paperGranted},
		{"another name: 93", "alice", paperNames("bob"), paperOtherUser},
		{"another case: 93", "alice", paperNames("Alice"), paperOtherUser},
		{"the beginning of it: 93", "alice", paperNames("ali"), paperOtherUser},
		{"more than it: 93", "alice", paperNames("alicex"), paperOtherUser},
		{"a name, and the client says none: 93", "", paperNames("alice"), paperOtherUser},
		{"a colon in the name: 90", "a:b", paperNames("a:b"), paperGranted},
		{"bytes over 127, the same: 90", "\xe9l\xff", paperNames("\xe9l\xff"), paperGranted},
		{"the same letter composed otherwise: 93", "\u00e9", paperNames("e\u0301"), paperOtherUser},
		{"255 bytes: 90", paperLong(255), paperNames(paperLong(255)), paperGranted},
		{"a space before the name, which only one of them has: 93", "alice", paperNames(" alice"), paperOtherUser},
		{"a space before the name, in both: 90", " alice", paperNames(" alice"), paperGranted},
		{"a space behind the name, which only one of them has: 93", "alice", paperNames("alice "), paperOtherUser},
		{"a space behind the name, in both: 90", "alice ", paperNames("alice "), paperGranted},
		{"the name is -, which is none: 93", "-", paperNames("-"), paperOtherUser},
		{"NO-USER: 93", "alice", paperTells("OURS , THEIRS : ERROR : NO-USER\r\n"), paperOtherUser},
		{"HIDDEN-USER: 93", "alice", paperTells("OURS , THEIRS : ERROR : HIDDEN-USER\r\n"), paperOtherUser},
		{"UNKNOWN-ERROR: 93", "alice", paperTells("OURS , THEIRS : ERROR : UNKNOWN-ERROR\r\n"), paperOtherUser},
		{"an error that the RFC does not know: 93", "alice", paperTells("OURS , THEIRS : ERROR : X-LUNCH\r\n"), paperOtherUser},
		{"an error that looks like the name: 93", "NO-USER", paperTells("OURS , THEIRS : ERROR : NO-USER\r\n"), paperOtherUser},
		{"OTHER as the operating system: 93", "alice", paperTells("OURS , THEIRS : USERID : OTHER : alice\r\n"), paperOtherUser},
		{"OTHER with a character set: 93", "alice", paperTells("OURS , THEIRS : USERID : OTHER , US-ASCII : alice\r\n"), paperOtherUser},
	})
}

func TestPaperIdentAnswers(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	long := strings.Repeat("x", 1100)
	cases := []paperIdentCase{
		{"no identd: 92", "alice", nil, paperNoIdentd},
		{"an identd that hangs: 92", "alice", paperHangs, paperNoIdentd},
		{"an identd that trickles: 92", "alice", paperTrickles, paperNoIdentd},
		{"an identd that closes without a word: 92", "alice", paperTells(""), paperNoIdentd},
		{"ended by CR LF", "alice", paperTells("OURS , THEIRS : USERID : UNIX : alice\r\n"), paperGranted},
		{"ended by a lone LF", "alice", paperTells("OURS , THEIRS : USERID : UNIX : alice\n"), paperGranted},
		{"ended by the end of the stream", "alice", paperTells("OURS , THEIRS : USERID : UNIX : alice"), paperGranted},
		{"an identd that stays connected", "alice", paperStays, paperGranted},
		{"byte by byte", "alice", paperBytewise, paperGranted},
		{"no spaces at all", "alice", paperTells("OURS,THEIRS:USERID:UNIX:alice\r\n"), paperGranted},
		{"many spaces", "alice", paperTells("  OURS  ,  THEIRS  :  USERID  :  UNIX  : alice\r\n"), paperGranted},
		{"a character set behind the operating system", "alice", paperTells("OURS , THEIRS : USERID : UNIX , US-ASCII : alice\r\n"), paperGranted},
		{"another operating system", "alice", paperTells("OURS , THEIRS : USERID : VAX/VMS : alice\r\n"), paperGranted},
		{"only the first line counts", "alice", paperTells("OURS , THEIRS : USERID : UNIX : bob\r\nOURS , THEIRS : USERID : UNIX : alice\r\n"), paperOtherUser},
	}
	paperRunIdent(t, paperByIdent, "113.1", cases)

	// What these deserve, 92 or 93, the texts leave open: the answer is none.
	none := []paperIdentCase{
		{"other ports", "alice", paperTells("1 , 1 : USERID : UNIX : alice\r\n"), 0},
		{"ports the wrong way round", "alice", paperTells("THEIRS , OURS : USERID : UNIX : alice\r\n"), 0},
		{"a port with a sign", "alice", paperTells("+OURS , THEIRS : USERID : UNIX : alice\r\n"), 0},
		{"a port that is right modulo 65,536", "alice", func(c net.Conn, q paperQuestion) {
			fmt.Fprintf(c, "%d , %d : USERID : UNIX : alice\r\n", int(q.ours)+65536, q.theirs)
		}, 0},
		{"garbage", "alice", paperTells("220 ready\r\n"), 0},
		{"an empty line", "alice", paperTells("\r\n"), 0},
		{"fields missing", "alice", paperTells("OURS , THEIRS : USERID : alice\r\n"), 0},
		{"neither USERID nor ERROR", "alice", paperTells("OURS , THEIRS : GROUPID : UNIX : alice\r\n"), 0},
		{"a NUL in the name", "alice", paperNames("alice\x00"), 0},
		{"a NUL in the name, and more", "alice", paperNames("alice\x00evil"), 0},
		{"more than 1,000 bytes", long, paperNames(long), 0},
		{"more than 1,000 bytes of spaces first", "alice", paperTells(strings.Repeat(" ", 1000) + "OURS , THEIRS : USERID : UNIX : alice\r\n"), 0},
		{"no newline, no end", "alice", paperRambles, 0},
	}
	paperRunIdentNone(t, none)
}

// paperRunIdentNone checks that the answers convince nobody.
func paperRunIdentNone(t *testing.T, cases []paperIdentCase) {
	t.Helper()
	n := newPaperNet(t)
	s := startPaper(t, paperSetup{net: n, settings: `
log: {format: json}
timeouts: {ident: 1s}
listeners: {name: lan, listen: "127.0.0.1:0", userid_max: 1024}
rules: {allow: by ident, from: loopback, users: any, proof: ident, to: any}
`})
	x := paperListen(t, n, "127.0.0.1:0")
	for i, c := range cases {
		t.Run(c.name+": 92 or 93", func(t *testing.T) {
			t.Parallel()
			from := fmt.Sprintf("127.113.2.%d", i+1)
			paperIdent(t, n, from, c.answer)
			client := s.dial(t, from)
			client.sends(paperAsk(paperCONNECT, x.addr, paperCutText(c.user, 1024)))
			code, _ := client.replied()
			if code != paperNoIdentd && code != paperOtherUser {
				t.Errorf("reply %d, want 92 or 93", code)
			}
			client.ends()
		})
	}
	t.Cleanup(func() { x.untouched(t) })
}

func paperCutText(s string, n int) string { return s[:min(len(s), n)] }

func TestPaperIdentQuestion(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	n := newPaperNet(t)
	s := startPaper(t, paperSetup{net: n, settings: paperByIdent, listen: "127.77.0.1:0"})
	echo := paperEcho(t, n, "127.0.0.1:0")
	ask := func(t *testing.T, from string, request []byte) (*paperConn, *paperIdentd) {
		t.Helper()
		d := paperIdent(t, n, from, paperNames("alice"))
		client := s.dial(t, from)
		client.sends(request)
		return client, d
	}
	t.Run("the ports, the client's first, and CR LF", func(t *testing.T) {
		t.Parallel()
		client, d := ask(t, "127.113.3.1", paperAsk(paperCONNECT, echo, "alice"))
		client.granted()
		q := <-d.last
		if q.ours != netip.MustParseAddrPort(client.local).Port() || q.theirs != s.addr().Port() {
			t.Errorf("asked %q about the connection from %s to %s", q.text, client.local, client.remote)
		}
	})
	t.Run("asked from the address that the client is connected to", func(t *testing.T) {
		t.Parallel()
		client, d := ask(t, "127.113.3.2", paperAsk(paperCONNECT, echo, "alice"))
		client.granted()
		if q := <-d.last; q.asker.Addr() != s.addr().Addr() {
			t.Errorf("asked from %s about a connection to %s", q.asker, client.remote)
		}
	})
	t.Run("asked once, for 4a too", func(t *testing.T) {
		t.Parallel()
		client, d := ask(t, "127.113.3.3", paperAskName(paperCONNECT, "127.0.0.1", echo.Port(), "alice"))
		client.granted()
		client.echoes()
		if asked := d.asked.Load(); asked != 1 {
			t.Errorf("asked %d times", asked)
		}
	})
	t.Run("BIND: asked, and both replies are 90", func(t *testing.T) {
		t.Parallel()
		client, _ := ask(t, "127.113.3.4", paperAsk(paperBIND, paperAt("127.0.0.1", 21), "alice"))
		peer := client.granted()
		n.dial(t, "127.0.0.1", peer)
		client.granted()
	})
	t.Run("BIND: another name: 93", func(t *testing.T) {
		t.Parallel()
		client, _ := ask(t, "127.113.3.5", paperAsk(paperBIND, paperAt("127.0.0.1", 21), "bob"))
		client.refused(paperOtherUser)
	})
	t.Run("BIND: no identd: 92", func(t *testing.T) {
		t.Parallel()
		client := s.dial(t, "127.113.3.6")
		client.sends(paperAsk(paperBIND, paperAt("127.0.0.1", 21), "bob"))
		client.refused(paperNoIdentd)
	})
}

const paperSomeIdent = `
log: {format: json}
timeouts: {ident: 1s}
rules:
  - {allow: plain, from: 127.1.0.0/24, to: any}
  - {allow: claimed, from: 127.1.1.0/24, users: alice, proof: claimed, to: any}
  - {allow: strict, from: 127.1.2.0/24, users: alice, proof: ident, ports: %[1]d, commands: connect, to: any}
  - {allow: either, from: 127.1.3.0/24, users: alice, proof: ident, to: any}
  - {allow: either after all, from: 127.1.3.0/24, to: any, ports: %[1]d}
  - {allow: default proof, from: 127.1.4.0/24, users: alice, to: any}
  - {allow: both, from: 127.1.5.0/24, users: alice, proof: [ident, claimed], to: any}
  - {deny: first, from: [127.1.6.0/25, 127.1.6.128/25], to: any}  # in two halves: of one, sallyport check would say that it shadows the next
  - {allow: never reached, from: 127.1.6.0/24, users: any, proof: ident, to: any}
`

// A rule that asks for IDENT and otherwise matches makes the server ask, and
// nothing else does.
func TestPaperIdentOnlyWhereNeeded(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	n := newPaperNet(t)
	echo, other := paperEcho(t, n, "127.0.0.1:0"), paperEcho(t, n, "127.0.0.2:0")
	s := startPaper(t, paperSetup{net: n, settings: fmt.Sprintf(paperSomeIdent, echo.Port())})
	for i, c := range []struct {
		name, net, user, identd string
		to                      netip.AddrPort
		code                    byte
		asked                   bool
		rule                    string
	}{
		{"a rule without users", "127.1.0", "alice", "bob", echo, paperGranted, false, "plain"},
		{"a rule for a claimed userid", "127.1.1", "alice", "bob", echo, paperGranted, false, "claimed"},
		{"a claimed userid that is not the rule's: 91", "127.1.1", "bob", "alice", echo, paperRejected, false, ""},
		{"a rule for IDENT", "127.1.2", "alice", "alice", echo, paperGranted, true, "strict"},
		{"a rule for IDENT, another port: 91", "127.1.2", "alice", "alice", other, paperRejected, false, ""},
		{"a rule for IDENT, another userid: 91", "127.1.2", "bob", "bob", echo, paperRejected, false, ""},
		{"no rule for the source: 91", "127.1.9", "alice", "alice", echo, paperRejected, false, ""},
		{"IDENT first, and it agrees", "127.1.3", "alice", "alice", echo, paperGranted, true, "either"},
		{"IDENT first, it does not agree, a later rule asks for nothing", "127.1.3", "alice", "bob", echo, paperGranted, true, "either after all"},
		{"IDENT first, it fails, a later rule asks for nothing", "127.1.3", "alice", "", echo, paperGranted, true, "either after all"},
		{"IDENT first, it does not agree, no other rule: 93", "127.1.3", "alice", "bob", other, paperOtherUser, true, "either"},
		{"IDENT first, it fails, no other rule: 92", "127.1.3", "alice", "", other, paperNoIdentd, true, "either"},
		{"without proof, users must show more than a claim: 93", "127.1.4", "alice", "bob", echo, paperOtherUser, true, "default proof"},
		{"without proof, IDENT does", "127.1.4", "alice", "alice", echo, paperGranted, true, "default proof"},
		{"a claim is enough where both will do", "127.1.5", "alice", "bob", echo, paperGranted, false, "both"},
		{"a deny before it decides: 91", "127.1.6", "alice", "alice", echo, paperRejected, false, "first"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			from := fmt.Sprintf("%s.%d", c.net, i+1)
			answer := paperNames(c.identd)
			if c.identd == "" {
				answer = paperTells("")
			}
			d := paperIdent(t, n, from, answer)
			client := s.dial(t, from)
			client.sends(paperAsk(paperCONNECT, c.to, c.user))
			client.answered(c.code)
			if asked := d.asked.Load(); asked != map[bool]int64{true: 1}[c.asked] {
				t.Errorf("asked %d times", asked)
			}
			client.leaves()
			if r := s.session(t, client); r.Rule != c.rule {
				t.Errorf("the log's rule is %q, want %q", r.Rule, c.rule)
			}
		})
	}
}

func TestPaperIdentHangs(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	n := newPaperNet(t)
	s := startPaper(t, paperSetup{net: n, settings: `
log: {format: json}
timeouts: {ident: 4s}
rules: {allow: by ident, from: loopback, users: any, proof: ident, to: any}
`})
	echo := paperEcho(t, n, "127.0.0.1:0")
	d := paperIdent(t, n, "127.113.4.1", paperHangs)
	paperIdent(t, n, "127.113.4.2", paperNames("alice"))

	before := s.descriptors(t)
	hanging := make([]*paperConn, 200)
	for i := range hanging {
		hanging[i] = s.dial(t, "127.113.4.1")
		hanging[i].sends(paperAsk(paperCONNECT, echo, "alice"))
	}
	paperEventually(t, "200 questions hang", func() bool { return d.asked.Load() == 200 })

	t.Run("200 questions that hang do not hold up another client", func(t *testing.T) {
		good := s.dial(t, "127.113.4.2")
		good.sends(paperAsk(paperCONNECT, echo, "alice"))
		good.granted()
		good.echoes()
	})
	t.Run("clients that go away meanwhile leave nothing behind", func(t *testing.T) {
		for _, c := range hanging {
			c.leaves()
		}
		paperEventually(t, "the descriptors are back", func() bool { return s.descriptors(t) <= before+8 })
		s.session(t, hanging[0])
	})
}

// On a socket of both families the client's IPv4 address arrives in IPv6's clothes.
func TestPaperIdentMappedClient(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	n := newPaperNet(t)
	s := startPaper(t, paperSetup{net: n, settings: paperByIdent, listen: "[::]:0"})
	echo := paperEcho(t, n, "127.0.0.1:0")
	for from, to := range map[string]string{"127.113.5.1": "127.66.0.1", "::1": "::1"} {
		t.Run("a client at "+from, func(t *testing.T) {
			t.Parallel()
			d := paperIdent(t, n, from, paperNames("alice"))
			client := n.dial(t, from, paperAt(to, s.addr().Port()))
			client.sends(paperAsk(paperCONNECT, echo, "alice"))
			client.granted()
			client.echoes()
			if q := <-d.last; q.asker.Addr().Unmap() != netip.MustParseAddr(to) {
				t.Errorf("asked from %s about a connection to %s", q.asker, to)
			}
		})
	}
}
