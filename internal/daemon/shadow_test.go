package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// shadowWorld is what the rules below are about; each is one line behind it.
const shadowWorld = `listeners: [{name: a, listen: 127.0.0.1:1}, {name: b, listen: 127.0.0.1:2, protocols: [socks5, http]}]
users: {file: users}
groups: {g: [alice]}
rules:
`

// TestNeverMatching: of a rule that the settings say can never match, no request
// finds that it matches. Rules and requests are made of a few words, so that they
// meet often.
func TestNeverMatching(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	groups := lists{groups: map[string][]string{"g": {"alice"}}}
	ident := identd(t)
	shadowed, contradicting := 0, 0
	pairs := 20_000
	if testing.Short() {
		pairs = 3000
	}
	for range pairs {
		earlier, later := randomRule(random, "earlier"), randomRule(random, "later")
		file := shadowWorld + written(earlier) + written(later)
		_, err := config.Parse("f.yaml", []byte(file), config.Override{})
		faults, _ := errors.AsType[config.Errors](err)
		if len(faults) == 0 || faults[len(faults)-1].Line != 6 {
			continue
		}
		var rules []access.Rule
		switch problem := faults[len(faults)-1].Problem; {
		case strings.HasPrefix(problem, "the rule can never match"):
			contradicting++
		case strings.HasPrefix(problem, `the rule "later" can never match`):
			rules = append(rules, buildRule(earlier, groups))
			shadowed++
		default:
			t.Fatalf("%s%v", file, err)
		}
		rules = append(rules, buildRule(later, groups))
		policy := access.NewPolicy(rules, access.Options{Resolver: oneName{}, Ident: access.Ident{Port: ident}})
		for range 40 {
			r := randomRequest(random)
			if grant, _ := policy.Decide(t.Context(), r); grant.Rule == "later" {
				t.Fatalf("%sthe later rule decides on %+v", file, r)
			}
		}
	}
	if shadowed < 30 || contradicting < 30 {
		t.Errorf("only %d and %d rules were put to the test", shadowed, contradicting)
	}
}

// some returns a few of the words, or none: then the condition is left out.
func some(random *rand.Rand, words ...string) []string {
	if random.IntN(3) > 0 {
		return nil
	}
	random.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
	return words[:1+random.IntN(len(words))]
}

func randomRule(random *rand.Rand, name string) config.Rule {
	r := config.Rule{
		Name: name, Deny: random.IntN(2) == 0,
		Listeners: some(random, "a", "b"),
		Protocols: some(random, "socks4", "socks4a", "socks5", "http"),
		Commands:  some(random, "connect", "bind", "udp"),
		Users:     some(random, "alice", "bob", "@g", "any"),
		Proof:     some(random, "claimed", "ident", "password", "certificate"),
		Bind:      config.Bind{AnyPeer: random.IntN(4) == 0},
	}
	for _, word := range some(random, "loopback", "any", "127.0.0.0/8", "127.0.0.1/32") {
		prefix, err := netip.ParsePrefix(word)
		if err == nil {
			word = ""
		}
		r.From = append(r.From, config.Network{Word: word, Prefix: prefix})
	}
	for _, word := range some(random, "internet", "any", "private", "10.0.0.0/8", "10.0.0.1/32", "*.example", "a.example", "*.a.example") {
		to := config.Target{Word: word}
		if prefix, err := netip.ParsePrefix(word); err == nil {
			to = config.Target{Prefix: prefix}
		} else if name, below := strings.CutPrefix(word, "*."); strings.Contains(word, ".") {
			to = config.Target{Name: name, Suffix: below}
		}
		r.To = append(r.To, to)
	}
	for _, word := range some(random, "80", "443", "8000") {
		ports := map[string]config.PortRange{"80": {First: 80, Last: 80}, "443": {First: 1, Last: 443}, "8000": {First: 443, Last: 8000}}
		r.Ports = append(r.Ports, ports[word])
	}
	if len(r.To) == 0 {
		r.To = []config.Target{{Word: map[bool]string{true: "any", false: "internet"}[r.Deny]}}
	}
	return r
}

// written is the rule as a line of a settings file.
func written(r config.Rule) string {
	parts := []string{map[bool]string{true: "deny", false: "allow"}[r.Deny] + ": " + r.Name}
	add := func(key string, words []string) {
		if len(words) > 0 {
			parts = append(parts, key+`: ["`+strings.Join(words, `", "`)+`"]`)
		}
	}
	var from, to, ports []string
	for _, n := range r.From {
		if n.Word == "" {
			n.Word = n.Prefix.String()
		}
		from = append(from, n.Word)
	}
	for _, target := range r.To {
		switch {
		case target.Suffix:
			to = append(to, "*."+target.Name)
		case target.Prefix.IsValid():
			to = append(to, target.Prefix.String())
		default:
			to = append(to, target.Word+target.Name)
		}
	}
	for _, p := range r.Ports {
		ports = append(ports, fmt.Sprintf("%d-%d", p.First, p.Last))
	}
	add("listeners", r.Listeners)
	add("protocols", r.Protocols)
	add("commands", r.Commands)
	add("from", from)
	add("users", r.Users)
	add("proof", r.Proof)
	add("to", to)
	add("ports", ports)
	return fmt.Sprintf("  - {%s, bind: {any_peer: %v}}\n", strings.Join(parts, ", "), r.Bind.AnyPeer)
}

// randomRequest is one that the listeners of shadowWorld could see.
func randomRequest(random *rand.Rand) *server.Request {
	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	r := &server.Request{
		Listener: pick("a", "b"),
		Client:   netip.AddrPortFrom(netip.MustParseAddr(pick("127.0.0.1", "127.0.0.2", "198.51.100.7")), 40_000),
		Local:    netip.MustParseAddrPort("127.0.0.1:1080"),
	}
	r.Relayed = !r.Client.Addr().IsLoopback() // nobody to ask
	r.Protocol = server.Protocol(pick("socks5", "http"))
	r.Command = socks.Connect
	if r.Listener == "a" {
		r.Protocol = server.Protocol(pick("socks4", "socks4a", "socks5", "http"))
	}
	switch {
	case r.Protocol == server.SOCKS5:
		r.Command = commands[pick("connect", "bind", "udp")]
	case r.Protocol != server.HTTP:
		r.Command = commands[pick("connect", "bind")]
	}
	if name := pick("alice", "bob", ""); name != "" {
		proof := server.Proof("password")
		if r.Protocol == server.SOCKS4 || r.Protocol == server.SOCKS4a {
			proof = server.Claimed
		}
		r.Identity = server.Identity{Name: name, Proof: proof}
	}
	r.Target.Port = uint16([]int{25, 80, 443, 8000}[random.IntN(4)])
	text := pick("192.0.2.1", "8.8.8.8", "10.0.0.1", "10.0.0.2", "127.0.0.1", "0.0.0.0", "a.example", "b.a.example", "b.example", "gone.example")
	if ip, err := netip.ParseAddr(text); err == nil {
		r.Target.IP = ip
	} else {
		r.Target.Name = text
	}
	return r
}

// oneName resolves every name to the same addresses, but for one.
type oneName struct{}

func (oneName) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if strings.HasPrefix(host, "gone.") {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("127.0.0.1")}, nil
}

// identd says alice to whoever asks at 127.0.0.1; nobody answers at 127.0.0.2.
func identd(t *testing.T) (port uint16) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
				fmt.Fprintf(c, "%s : USERID : UNIX : alice\r\n", strings.TrimSpace(line))
			}
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}
