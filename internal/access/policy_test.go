package access

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// zone is a fake resolver: a map of names to addresses, parted by spaces. A
// name that is not there does not exist.
type zone struct {
	hosts map[string]string
	asked atomic.Int64
}

func (z *zone) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	z.asked.Add(1)
	if network != "ip" {
		return nil, fmt.Errorf("asked for %q", network)
	}
	texts, ok := z.hosts[host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs(texts), nil
}

func addrs(texts string) (all []netip.Addr) {
	for text := range strings.FieldsSeq(texts) {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// The addresses of the machine that the tests' policies run on, as they believe.
var ownTexts = "192.168.7.1 5.5.5.5 2a00:5::5 2002:909:909::9 127.0.0.1 ::1"

func newPolicy(resolver Resolver, rules ...Rule) *Policy {
	p := NewPolicy(rules, Options{Resolver: resolver})
	p.own.known.Store(&ownSnapshot{addrs: addrs(ownTexts), until: time.Now().Add(time.Hour)})
	return p
}

// newRequest is a CONNECT to a target by a client that said its name, if any.
func newRequest(t *testing.T, to, userid string) *server.Request {
	t.Helper()
	target, err := socks.ParseAddr(to)
	if err != nil {
		t.Fatal(err)
	}
	q := &server.Request{
		Protocol: server.SOCKS4, Command: socks.Connect, Target: target, Listener: "lan",
		Identity: server.Identity{Name: userid},
		Client:   client, Local: here,
	}
	if userid != "" {
		q.Identity.Proof = server.Claimed
	}
	if target.Name != "" {
		q.Protocol = server.SOCKS4a
	}
	return q
}

// verdict is a decision in one line: "web: 1.2.3.4 5.6.7.8" where the rule web
// grants these addresses, "denied web" where it denies, "denied" where no rule
// matches.
func verdict(ctx context.Context, p *Policy, q *server.Request) string {
	grant, err := p.Decide(ctx, q)
	if err != nil {
		if len(grant.Addrs) > 0 {
			return fmt.Sprintf("%v with the addresses %v", err, grant.Addrs)
		}
		return strings.TrimSpace(server.ReasonOf(err).Error() + " " + grant.Rule)
	}
	return fmt.Sprintf("%s: %s", grant.Rule, strings.Trim(fmt.Sprint(grant.Addrs), "[]"))
}

func wantVerdict(t *testing.T, p *Policy, q *server.Request, want string) {
	t.Helper()
	if got := verdict(t.Context(), p, q); got != want {
		t.Errorf("%s by %q: %q, want %q", q.Target, q.Identity.Name, got, want)
	}
}

// to makes destinations: words, prefixes, addresses, names and *.suffixes.
func to(texts ...string) (all []Destination) {
	for _, text := range texts {
		suffix, isSuffix := strings.CutPrefix(text, "*.")
		prefix, err := netip.ParsePrefix(text)
		if ip, ipErr := netip.ParseAddr(text); ipErr == nil {
			prefix, err = netip.PrefixFrom(ip, ip.BitLen()), nil
		}
		switch {
		case slices.Contains([]Class{Any, Internet, Private, Loopback}, Class(text)):
			all = append(all, Destination{Network: Network{Class: Class(text)}})
		case err == nil:
			all = append(all, Destination{Network: Network{Prefix: prefix}})
		default:
			all = append(all, Destination{Name: suffix, Suffix: isSuffix})
		}
	}
	return all
}

func from(texts ...string) (all []Network) {
	for _, d := range to(texts...) {
		all = append(all, d.Network)
	}
	return all
}

func TestNoRuleDenies(t *testing.T) {
	resolver := &zone{hosts: map[string]string{"example.com": "93.184.216.34"}}
	for _, target := range []string{"93.184.216.34:80", "example.com:80", "localhost:80", "127.0.0.1:80"} {
		wantVerdict(t, NewPolicy(nil, Options{Resolver: resolver}), newRequest(t, target, "fred"), "denied")
	}
	if resolver.asked.Load() != 0 {
		t.Error("a name was looked up though no rule can allow it")
	}
}

func TestFirstMatchDecides(t *testing.T) {
	web := Rule{Name: "web", Ports: []server.PortRange{{First: 80, Last: 80}}}
	noWeb := Rule{Name: "no web", Deny: true, Ports: []server.PortRange{{First: 80, Last: 80}}}
	all := Rule{Name: "all", To: to("any")}
	nothing := Rule{Name: "nothing", Deny: true}
	tests := []struct {
		rules     []Rule
		port80    string
		otherPort string
	}{
		{[]Rule{web, all}, "web: 8.8.8.8", "all: 8.8.8.8"},
		{[]Rule{all, web}, "all: 8.8.8.8", "all: 8.8.8.8"},
		{[]Rule{web, noWeb}, "web: 8.8.8.8", "denied"},
		{[]Rule{noWeb, web}, "denied no web", "denied"},
		{[]Rule{noWeb, all}, "denied no web", "all: 8.8.8.8"},
		{[]Rule{nothing, all}, "denied nothing", "denied nothing"},
		{[]Rule{web, nothing, all}, "web: 8.8.8.8", "denied nothing"},
		{[]Rule{web, web, nothing}, "web: 8.8.8.8", "denied nothing"},
	}
	for _, test := range tests {
		p := newPolicy(nil, test.rules...)
		wantVerdict(t, p, newRequest(t, "8.8.8.8:80", ""), test.port80)
		wantVerdict(t, p, newRequest(t, "8.8.8.8:81", ""), test.otherPort)
	}
}

// A rule without To: an allowing one is about the public Internet alone, a
// denying one about everything.
func TestWithoutTo(t *testing.T) {
	resolver := &zone{hosts: map[string]string{"public": "8.8.8.8", "private": "10.0.0.1", "both": "10.0.0.1 8.8.8.8"}}
	allow := newPolicy(resolver, Rule{Name: "allow"})
	deny := newPolicy(resolver, Rule{Name: "deny", Deny: true}, Rule{Name: "all", To: to("any")})
	for target, want := range map[string]string{
		"8.8.8.8:80": "allow: 8.8.8.8", "public:80": "allow: 8.8.8.8", "both:80": "allow: 8.8.8.8",
		"10.0.0.1:80": "denied", "private:80": "denied", "127.0.0.1:80": "denied", "localhost:80": "denied",
		"169.254.169.254:80": "denied", "5.5.5.5:80": "denied", "192.168.7.1:80": "denied", "0.0.0.0:80": "denied",
	} {
		wantVerdict(t, allow, newRequest(t, target, ""), want)
		wantVerdict(t, deny, newRequest(t, target, ""), "denied deny")
	}
}

// Every address of a name is judged by itself: what an earlier rule denies, a
// later one cannot allow, and the rest is still open to it.
func TestNamesPerAddress(t *testing.T) {
	resolver := &zone{hosts: map[string]string{
		"mixed":         "8.8.8.8 10.0.0.1 127.0.0.1 2606:4700::1 fd00::1 ::1 8.8.4.4",
		"mapped":        "::ffff:10.0.0.1 ::ffff:8.8.8.8",
		"mixed.example": "8.8.8.8 10.0.0.1 127.0.0.1 169.254.169.254",
	}}
	noEight := Rule{Name: "no eight", Deny: true, To: to("8.8.8.0/24")}
	noPrivate := Rule{Name: "no private", Deny: true, To: to("private")}
	all := Rule{Name: "all", To: to("any")}
	web := Rule{Name: "web"}
	tests := []struct {
		target string
		rules  []Rule
		want   string
	}{
		{"mixed:80", []Rule{web}, "web: 8.8.8.8 2606:4700::1 8.8.4.4"},
		{"mixed:80", []Rule{noEight, web}, "web: 2606:4700::1 8.8.4.4"},
		{"mixed:80", []Rule{noEight, noPrivate, all}, "all: 127.0.0.1 2606:4700::1 ::1 8.8.4.4"},
		{"mixed:80", []Rule{noEight, noPrivate}, "denied"},
		{"mixed:80", []Rule{{Name: "lan", To: to("private")}, web}, "lan: 10.0.0.1 fd00::1"},
		{"mixed:80", []Rule{{Name: "this machine", To: to("loopback")}}, "this machine: 127.0.0.1 ::1"},
		{"mixed:80", []Rule{{Name: "two", To: to("10.0.0.0/8", "8.8.4.4")}}, "two: 10.0.0.1 8.8.4.4"},
		{"mixed:80", []Rule{
			{Name: "not public", Deny: true, To: to("internet")},
			noPrivate,
			{Name: "not here", Deny: true, To: to("loopback")},
			all,
		}, "denied not here"},
		{"mapped:80", []Rule{web}, "web: 8.8.8.8"},
		{"mapped:80", []Rule{{Name: "ten", To: to("10.0.0.0/8")}}, "ten: 10.0.0.1"},
		{"mapped:80", []Rule{noPrivate, all}, "all: 8.8.8.8"},
		{"mapped:80", []Rule{{Name: "not mapped", Deny: true, To: to("::/0")}, all}, "all: 10.0.0.1 8.8.8.8"},
		{"mixed.example:80", []Rule{{Name: "named", To: to("*.example")}}, "named: 8.8.8.8 10.0.0.1"},
		{"mixed.example:80", []Rule{noPrivate, {Name: "named", To: to("*.example")}}, "named: 8.8.8.8"},
		{"mixed.example:80", []Rule{noEight, {Name: "no example", Deny: true, To: to("*.example")}, all}, "denied no example"},
		{"mixed.example:80", []Rule{{Name: "named", To: to("mixed.example", "loopback")}}, "named: 8.8.8.8 10.0.0.1 127.0.0.1"},
	}
	for _, test := range tests {
		before := resolver.asked.Load()
		wantVerdict(t, newPolicy(resolver, test.rules...), newRequest(t, test.target, ""), test.want)
		if asked := resolver.asked.Load() - before; asked != 1 {
			t.Errorf("%s: the resolver was asked %d times", test.target, asked)
		}
	}
}

// A rule that names a host vouches for the public and private addresses that
// the host's DNS gives, and for no other.
func TestVouching(t *testing.T) {
	for address, granted := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1": true, "10.0.0.1": true, "192.168.1.1": true, "172.31.0.1": true, "fd12::1": true,
		"127.0.0.1": false, "127.9.9.9": false, "::1": false, "::ffff:127.0.0.1": false, "0.0.0.0": false, "::": false,
		"169.254.169.254": false, "169.254.1.1": false, "fe80::1": false, "fe80::1%eth0": false, "fd00:ec2::254": false,
		"fd20:ce::254": false, "168.63.129.16": false, "100.100.100.200": false, "100.64.0.1": false, "224.0.0.1": false,
		"ff02::1": false, "255.255.255.255": false, "240.0.0.1": false, "64:ff9b::127.0.0.1": false, "2002:7f00:1::": false,
		"::127.0.0.1": false, "192.0.0.192": false,
	} {
		resolver := &zone{hosts: map[string]string{"host.example": address}}
		canonical := netip.MustParseAddr(address).Unmap().WithZone("").String()
		for _, name := range []string{"host.example", "*.example"} {
			p := newPolicy(resolver, Rule{Name: "named", To: to(name)})
			want := "denied"
			if granted {
				want = "named: " + canonical
			}
			wantVerdict(t, p, newRequest(t, "host.example:80", ""), want)
			// Said by address, the rule is not about it, whatever the name's is.
			wantVerdict(t, p, newRequest(t, net.JoinHostPort(address, "80"), ""), "denied")
		}
		// The address itself, named, is always good.
		p := newPolicy(resolver, Rule{Name: "named", To: to("host.example", canonical)})
		wantVerdict(t, p, newRequest(t, "host.example:80", ""), "named: "+canonical)
	}
}

func TestNameConditions(t *testing.T) {
	resolver := &zone{hosts: map[string]string{}}
	tests := []struct {
		to, host string
		want     bool
	}{
		{"example.com", "example.com", true},
		{"example.com", "EXAMPLE.com.", true},
		{"example.com", "www.example.com", false},
		{"example.com", "example.com.evil.net", false},
		{"example.com", "notexample.com", false},
		{"*.example.com", "www.example.com", true},
		{"*.example.com", "a.b.c.example.com", true},
		{"*.example.com", "WWW.Example.COM.", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "notexample.com", false},
		{"*.example.com", "www.notexample.com", false},
		{"*.example.com", "example.com.evil.net", false},
		{"*.com", "example.com", true},
		{"*.1", "127.0.0.1", false}, // an address has no suffix
	}
	for _, test := range tests {
		target, err := socks.NewAddr(test.host, 80)
		if err != nil {
			t.Fatal(err)
		}
		resolver.hosts[target.Name] = "8.8.8.8"
		q := newRequest(t, target.String(), "")
		allow, deny := "denied", "all: 8.8.8.8"
		if target.Name == "" {
			deny = "all: " + target.IP.String()
		}
		if test.want {
			allow, deny = "named: 8.8.8.8", "denied named"
		}
		wantVerdict(t, newPolicy(resolver, Rule{Name: "named", To: to(test.to)}), q, allow)
		wantVerdict(t, newPolicy(resolver, Rule{Name: "named", Deny: true, To: to(test.to)}, Rule{Name: "all", To: to("any")}), q, deny)
	}
}

// A name is looked up only where a rule is about addresses and all else that
// can be told without it matches.
func TestResolvesOnlyWhereNeeded(t *testing.T) {
	named := Rule{Name: "named", To: to("host.example")}
	tests := []struct {
		name  string
		rules []Rule
		want  string
		asked int64
	}{
		{"denied by name", []Rule{{Name: "no", Deny: true, To: to("*.example")}, {Name: "all", To: to("any")}}, "denied no", 0},
		{"denied by name or network", []Rule{{Name: "no", Deny: true, To: to("10.0.0.0/8", "host.example")}}, "denied no", 0},
		{"another name", []Rule{{Name: "other", To: to("other.example", "*.net")}}, "denied", 0},
		{"another port", []Rule{{Name: "mail", Ports: []server.PortRange{{First: 25, Last: 25}}}}, "denied", 0},
		{"another listener", []Rule{{Name: "wan", Listeners: []string{"wan"}}}, "denied", 0},
		{"allowed by name", []Rule{named}, "named: 8.8.8.8", 1},
		{"many rules", []Rule{{Name: "lan", To: to("private")}, {Name: "no", Deny: true, To: to("loopback")}, named}, "named: 8.8.8.8", 1},
		{"none of many matches", []Rule{{Name: "lan", To: to("private")}, {Name: "ten", To: to("10.0.0.0/8")}}, "denied", 1},
		{"looked up, then denied by name", []Rule{{Name: "lan", To: to("private")}, {Name: "no", Deny: true, To: to("host.example")}, named}, "denied no", 1},
	}
	for _, test := range tests {
		resolver := &zone{hosts: map[string]string{"host.example": "8.8.8.8"}}
		if got := verdict(t.Context(), newPolicy(resolver, test.rules...), newRequest(t, "host.example:80", "")); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		if asked := resolver.asked.Load(); asked != test.asked {
			t.Errorf("%s: the resolver was asked %d times, want %d", test.name, asked, test.asked)
		}
	}
}

// The names of this machine stand for loopback, whatever a resolver would say,
// and are looked up nowhere (RFC 6761, section 6.3).
func TestLocalhost(t *testing.T) {
	hosts := map[string]string{"localhost.example": "8.8.8.8", "notlocalhost": "8.8.8.8"}
	for _, host := range []string{"localhost", "LOCALHOST", "localhost.", "www.localhost", "a.b.LocalHost."} {
		hosts[strings.ToLower(strings.TrimSuffix(host, "."))] = "8.8.8.8"
		resolver := &zone{hosts: hosts}
		q := newRequest(t, host+":80", "")
		wantVerdict(t, newPolicy(resolver, Rule{Name: "web"}), q, "denied")
		wantVerdict(t, newPolicy(resolver, Rule{Name: "lan", To: to("private", "8.8.8.8")}), q, "denied")
		wantVerdict(t, newPolicy(resolver, Rule{Name: "all", To: to("any")}), q, "all: 127.0.0.1 ::1")
		wantVerdict(t, newPolicy(resolver, Rule{Name: "here", To: to("loopback")}), q, "here: 127.0.0.1 ::1")
		wantVerdict(t, newPolicy(resolver, Rule{Name: "named", To: to("localhost", "*.localhost")}), q, "named: 127.0.0.1 ::1")
		wantVerdict(t, newPolicy(resolver, Rule{Name: "no", Deny: true, To: to("loopback")}, Rule{Name: "all", To: to("any")}), q, "denied no")
		if asked := resolver.asked.Load(); asked != 0 {
			t.Errorf("%s was looked up %d times", host, asked)
		}
	}
	for _, host := range []string{"localhost.example", "notlocalhost"} {
		wantVerdict(t, newPolicy(&zone{hosts: hosts}, Rule{Name: "web"}), newRequest(t, host+":80", ""), "web: 8.8.8.8")
	}
}

// resolverFunc is a resolver made of a function.
type resolverFunc func(ctx context.Context) ([]netip.Addr, error)

func (f resolverFunc) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	return f(ctx)
}

func TestLookupFails(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want server.Reason
	}{
		{"no such host", &net.DNSError{Err: "no such host", IsNotFound: true}, server.NoName},
		{"no answer", &net.DNSError{Err: "i/o timeout", IsTimeout: true}, server.TimedOut},
		{"no address", nil, server.NoName},
		{"the server stops", context.Canceled, server.Shutdown},
		{"too late", context.DeadlineExceeded, server.TimedOut},
		{"anything else", errors.New("the resolver fell over"), server.Failed},
	}
	for _, test := range tests {
		p := newPolicy(resolverFunc(func(context.Context) ([]netip.Addr, error) { return nil, test.err }),
			Rule{Name: "web"}, Rule{Name: "all", To: to("any")})
		grant, err := p.Decide(t.Context(), newRequest(t, "host.example:80", "fred"))
		if server.ReasonOf(err) != test.want || len(grant.Addrs) > 0 {
			t.Errorf("%s: %v, %v; want %v", test.name, grant.Addrs, err, test.want)
		}
		if grant.Identity.Name != "fred" {
			t.Errorf("%s: the identity %+v does not say who it was", test.name, grant.Identity)
		}
	}
}

// A look-up ends with the context of its request.
func TestLookupHonoursItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := newPolicy(resolverFunc(func(ctx context.Context) ([]netip.Addr, error) {
		cancel()
		<-ctx.Done() // hangs for ever if this is another context
		return nil, ctx.Err()
	}), Rule{Name: "web"})
	if _, err := p.Decide(ctx, newRequest(t, "host.example:80", "fred")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}

// DNS rebinding: whoever answers a harmless address at one moment and a
// dangerous one at the next is asked once for each decision, and the address
// that was judged is the one in the grant.
func TestRebinding(t *testing.T) {
	dangerous := addrs("127.0.0.1 10.0.0.1 169.254.169.254 ::1 fd00:ec2::254 192.168.7.1 5.5.5.5 0.0.0.0 ::ffff:127.0.0.1 64:ff9b::10.0.0.1")
	good := netip.MustParseAddr("93.184.216.34")
	for name, rule := range map[string]Rule{
		"by class": {Name: "web"},
		"by both":  {Name: "web", To: to("internet", "*.example.com")},
	} {
		var asked int
		alternating := resolverFunc(func(context.Context) ([]netip.Addr, error) {
			asked++
			bad := dangerous[asked/3%len(dangerous)]
			return [][]netip.Addr{{good}, {bad}, {good, bad}}[asked%3], nil
		})
		p := newPolicy(alternating, Rule{Name: "no mail", Deny: true, To: to("8.8.8.8")}, rule, Rule{Name: "web again"})
		for try := range 1000 {
			asked = try
			grant, err := p.Decide(t.Context(), newRequest(t, "rebind.example.net:80", ""))
			if asked != try+1 {
				t.Fatalf("%s: the resolver was asked %d times for one decision", name, asked-try)
			}
			if onlyBad := asked%3 == 1; (err != nil) != onlyBad || (onlyBad && !errors.Is(err, server.Denied)) {
				t.Fatalf("%s, try %d: %v, %v", name, try, grant.Addrs, err)
			}
			if err == nil && !slices.Equal(grant.Addrs, []netip.Addr{good}) {
				t.Fatalf("%s, try %d: granted %v", name, try, grant.Addrs)
			}
		}
	}
}

// BIND for whoever comes (DSTIP 0.0.0.0) needs a rule that says so; such a rule
// is no wider for anything else.
func TestAnyPeer(t *testing.T) {
	anyPeer := Rule{Name: "any peer", Bind: server.BindOptions{AnyPeer: true, WaitForRightPeer: true}}
	tests := []struct {
		command socks.Command
		target  string
		rules   []Rule
		want    string
	}{
		{socks.Bind, "0.0.0.0:21", []Rule{anyPeer}, "any peer: 0.0.0.0"},
		{socks.Bind, "0.0.0.0:21", []Rule{{Name: "web"}}, "denied"},
		{socks.Bind, "0.0.0.0:21", []Rule{{Name: "web"}, anyPeer}, "any peer: 0.0.0.0"},
		{socks.Bind, "0.0.0.0:21", []Rule{{Name: "nothing", Deny: true}, anyPeer}, "denied nothing"},
		{socks.Bind, "0.0.0.0:21", []Rule{{Name: "no", Deny: true, Bind: server.BindOptions{AnyPeer: true}, To: to("8.8.8.8")}}, "denied"},
		{socks.Bind, "8.8.8.8:21", []Rule{anyPeer}, "any peer: 8.8.8.8"},
		{socks.Bind, "10.0.0.1:21", []Rule{anyPeer}, "denied"},
		{socks.Bind, "127.0.0.1:21", []Rule{anyPeer}, "denied"},
		{socks.Connect, "0.0.0.0:21", []Rule{anyPeer}, "denied"},
		{socks.Connect, "10.0.0.1:21", []Rule{anyPeer}, "denied"},
	}
	for _, test := range tests {
		q := newRequest(t, test.target, "")
		q.Command = test.command
		p := newPolicy(nil, test.rules...)
		wantVerdict(t, p, q, test.want)
		if grant, err := p.Decide(t.Context(), q); err == nil && grant.Bind != anyPeer.Bind {
			t.Errorf("%s: the grant's terms are %+v, want the rule's", test.target, grant.Bind)
		}
	}
}

func TestDecideAtOnce(t *testing.T) {
	d := newIdentd(t, "127.0.0.1", names("fred"))
	p := newPolicy(&zone{hosts: map[string]string{"host.example": "8.8.8.8 10.0.0.1"}},
		Rule{Name: "no", Deny: true, To: to("10.0.0.0/8")}, Rule{Name: "fred", Users: &Users{Names: []string{"fred"}}})
	p.own.known.Store(nil) // so that all find out at once
	p.ident = Ident{Port: d.port}
	byName, byIP := newRequest(t, "host.example:80", "fred"), newRequest(t, "10.0.0.1:80", "fred")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if got := verdict(t.Context(), p, byName); got != "fred: 8.8.8.8" {
					t.Errorf("by name: %q", got)
				}
				if got := verdict(t.Context(), p, byIP); got != "denied no" {
					t.Errorf("by address: %q", got)
				}
			}
		})
	}
	wg.Wait()
}
