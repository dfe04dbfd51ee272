//go:build amd64 || arm64

package intercept

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// question is one of DNS, about a name with a dot at its end.
func question(tb testing.TB, name string, kind dnsmessage.Type, edit ...func(*dnsmessage.Message)) []byte {
	tb.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	for _, f := range edit {
		f(&m)
	}
	b, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestAnswers(t *testing.T) {
	n := newNames(10)
	n.standIn("known.example")
	const ok, none, refused = dnsmessage.RCodeSuccess, dnsmessage.RCodeNameError, dnsmessage.RCodeRefused
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		code dnsmessage.RCode
		want string
	}{
		{"www.example.com.", dnsmessage.TypeA, ok, "198.18.0.2"},
		{"WWW.Example.COM.", dnsmessage.TypeA, ok, "198.18.0.2"},
		{"known.example.", dnsmessage.TypeA, ok, "198.18.0.1"},
		{"web.", dnsmessage.TypeA, ok, "198.18.0.3"},
		{"www.example.com.", dnsmessage.TypeAAAA, ok, ""},
		{"www.example.com.", typeHTTPS, ok, ""},
		{"_http._tcp.example.com.", typeSRV, ok, ""},
		{"localhost.", dnsmessage.TypeA, ok, "127.0.0.1"},
		{"a.localhost.", dnsmessage.TypeA, ok, "127.0.0.1"},
		{"notlocalhost.", dnsmessage.TypeA, ok, "198.18.0.4"},
		{"1.0.18.198.in-addr.arpa.", dnsmessage.TypePTR, ok, "known.example."},
		{"9.0.18.198.in-addr.arpa.", dnsmessage.TypePTR, none, ""},
		{"1.2.0.192.in-addr.arpa.", dnsmessage.TypePTR, none, ""},
		{"x.0.18.198.in-addr.arpa.", dnsmessage.TypePTR, none, ""},
		{"0.18.198.in-addr.arpa.", dnsmessage.TypePTR, none, ""},
		{"example.com.", dnsmessage.TypeMX, refused, ""},
		{"example.com.", dnsmessage.TypeTXT, refused, ""},
		{"192.0.2.1.", dnsmessage.TypeA, none, ""},
		{"with blank.example.", dnsmessage.TypeA, none, ""},
		{".", dnsmessage.TypeA, none, ""},
	} {
		var m dnsmessage.Message
		if err := m.Unpack(answerQuery(n, question(t, c.name, c.kind))); err != nil {
			t.Errorf("%s %v: %v", c.name, c.kind, err)
			continue
		}
		got := ""
		for _, a := range m.Answers {
			switch body := a.Body.(type) {
			case *dnsmessage.AResource:
				got += netip.AddrFrom4(body.A).String()
			case *dnsmessage.PTRResource:
				got += body.PTR.String()
			}
		}
		if m.RCode != c.code || got != c.want || m.ID != 7 || !m.Response || !m.RecursionAvailable || len(m.Questions) != 1 {
			t.Errorf("%s %v: %q, %+v", c.name, c.kind, got, m)
		}
	}
}

func TestAnswersToWhatIsNoQuestion(t *testing.T) {
	n := newNames(10)
	code := func(b []byte) string {
		if b == nil {
			return "nothing"
		}
		var p dnsmessage.Parser
		h, err := p.Start(b)
		if err != nil {
			return err.Error()
		}
		return h.RCode.String()
	}
	whole := question(t, "www.example.com.", dnsmessage.TypeA)
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"nothing":           {nil, "nothing"},
		"half a head":       {whole[:11], "nothing"},
		"an answer":         {question(t, "a.", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.Response = true }), "nothing"},
		"half a question":   {whole[:20], "RCodeFormatError"},
		"no question":       {question(t, "a.", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.Questions = nil }), "RCodeFormatError"},
		"another operation": {question(t, "a.", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.OpCode = 5 }), "RCodeNotImplemented"},
		"another class":     {question(t, "a.", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }), "RCodeRefused"},
	} {
		if got := code(answerQuery(n, c.in)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if len(n.all) != 0 {
		t.Errorf("they have addresses: %q", n.all)
	}
}

func TestNames(t *testing.T) {
	n := newNames(3)
	for _, c := range []struct{ name, want string }{
		{"a", "198.18.0.1"},
		{"b", "198.18.0.2"},
		{"a", "198.18.0.1"},
		{"c", "198.18.0.3"},
		{"d", "198.18.0.1"}, // the oldest goes
		{"a", "198.18.0.2"},
	} {
		if got := n.standIn(c.name); got.String() != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
	for ip, want := range map[string]string{
		"198.18.0.1": "d", "::ffff:198.18.0.3": "c", "198.18.0.4": "", "198.18.0.0": "", "198.17.255.255": "", "2001:db8::1": "", "0.0.0.0": "",
	} {
		if got, ok := n.behind(netip.MustParseAddr(ip)); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v; want %q", ip, got, ok, want)
		}
	}
	if len(n.of) != 3 {
		t.Errorf("%d names are remembered", len(n.of))
	}
	if last := netip.MustParsePrefix("198.18.0.0/15"); !last.Contains(netip.AddrFrom4([4]byte{198, 19, 255, 254})) || firstStandIn+maxStandIns-1 != 198<<24|19<<16|255<<8|254 {
		t.Error("they are not those of the prefix")
	}
}

// FuzzAnswer requires that whoever asks something gets an answer that can be read, which is
// not much longer than the question, and that a name is found again.
func FuzzAnswer(f *testing.F) {
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypePTR, dnsmessage.TypeTXT, typeHTTPS} {
		f.Add(question(f, "www.example.com.", kind))
		f.Add(question(f, "1.0.18.198.in-addr.arpa.", kind))
	}
	f.Add(question(f, "a.", dnsmessage.TypeA)[:14])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := newNames(4)
		n.standIn("www.example.com")
		answer := answerQuery(n, b)
		if answer == nil {
			return
		}
		const head, longestName, record = 12, 255, 16
		if len(answer) > head+2*longestName+record+4 {
			t.Fatalf("%d bytes for %d", len(answer), len(b))
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil || !m.Response {
			t.Fatalf("%x: %v", answer, err)
		}
		for _, a := range m.Answers {
			body, ok := a.Body.(*dnsmessage.AResource)
			if !ok || body.A == [4]byte{127, 0, 0, 1} {
				continue
			}
			name, ok := n.behind(netip.AddrFrom4(body.A))
			if !ok || !strings.EqualFold(name+".", a.Header.Name.String()) {
				t.Fatalf("%v stands for %q, and was given for %v", body.A, name, a.Header.Name)
			}
		}
	})
}
