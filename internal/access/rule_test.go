package access

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// full is a rule with every condition, and the request that fullRequest makes
// meets them all.
func full() Rule {
	return Rule{
		Name:      "full",
		Listeners: []string{"lan", "guests"},
		Protocols: []server.Protocol{server.SOCKS4},
		Commands:  []socks.Command{socks.Connect},
		From:      from("127.0.0.0/29", "10.1.0.0/16"),
		Users:     &Users{Names: []string{"fred", "alice"}},
		Proofs:    []server.Proof{server.Claimed},
		To:        to("8.8.8.0/24", "9.9.9.9"),
		Ports:     []server.PortRange{{First: 80, Last: 80}, {First: 8000, Last: 8999}},
	}
}

func fullRequest(t *testing.T) *server.Request {
	t.Helper()
	return newRequest(t, "8.8.8.8:80", "fred")
}

// changes are other requests, by what they change, and whether a rule with
// every condition is still about them.
var changes = []struct {
	name   string
	change func(q *server.Request)
	want   bool
}{
	{"nothing", func(*server.Request) {}, true},
	{"the other listener", func(q *server.Request) { q.Listener = "guests" }, true},
	{"a listener", func(q *server.Request) { q.Listener = "wan" }, false},
	{"no listener", func(q *server.Request) { q.Listener = "" }, false},
	{"a listener in capitals", func(q *server.Request) { q.Listener = "LAN" }, false},
	{"the protocol", func(q *server.Request) { q.Protocol = server.SOCKS4a }, false},
	{"the command", func(q *server.Request) { q.Command = socks.Bind }, false},
	{"an unknown command", func(q *server.Request) { q.Command = 3 }, false},
	{"the last source of the first network", source("127.0.0.7"), true},
	{"a source of the second network", source("10.1.255.255"), true},
	{"a source beside the first network", source("127.0.0.8"), false},
	{"a source beside the second network", source("10.2.0.0"), false},
	{"a source of IPv6", source("::1"), false},
	{"a source with a zone", source("fe80::1%eth0"), false},
	{"the other user", user("alice"), true},
	{"the user", user("bob"), false},
	{"no user", user(""), false},
	{"a user in capitals", user("FRED"), false},
	{"a user with a space", user("fred "), false},
	{"half a user", user("fre"), false},
	{"the last target of the first network", target("8.8.8.255"), true},
	{"the other target", target("9.9.9.9"), true},
	{"a target beside the first network", target("8.8.9.0"), false},
	{"a target beside the other", target("9.9.9.8"), false},
	{"a target of IPv6", target("2606:4700::1"), false},
	{"the first port of a range", port(8000), true},
	{"the last port of a range", port(8999), true},
	{"a port before the range", port(7999), false},
	{"a port behind the range", port(9000), false},
	{"a port beside", port(81), false},
	{"port 0", port(0), false},
	{"port 65535", port(65535), false},
}

func source(ip string) func(*server.Request) {
	return func(q *server.Request) { q.Client = netip.AddrPortFrom(netip.MustParseAddr(ip), q.Client.Port()) }
}

func user(name string) func(*server.Request) {
	return func(q *server.Request) { q.Identity.Name = name }
}

func target(ip string) func(*server.Request) {
	return func(q *server.Request) { q.Target.IP = netip.MustParseAddr(ip) }
}

func port(number uint16) func(*server.Request) {
	return func(q *server.Request) { q.Target.Port = number }
}

// One condition that is not met is enough for a rule to be about something else.
func TestEveryCondition(t *testing.T) {
	allow, deny := full(), full()
	deny.Deny = true
	allowing := newPolicy(nil, allow)
	denying := newPolicy(nil, deny, Rule{Name: "all", To: to("any")})
	for _, test := range changes {
		t.Run(test.name, func(t *testing.T) {
			q := fullRequest(t)
			test.change(q)
			address := q.Target.IP.String()
			allow, deny := "denied", "all: "+address
			if test.want {
				allow, deny = "full: "+address, "denied full"
			}
			wantVerdict(t, allowing, q, allow)
			wantVerdict(t, denying, q, deny)
		})
	}
}

// blanks empty one condition of a rule each.
var blanks = []struct {
	name  string
	blank func(r *Rule)
	meets []string // the changes that the rule does not mind any more
}{
	{"Listeners", func(r *Rule) { r.Listeners = nil }, []string{"a listener", "no listener", "a listener in capitals"}},
	{"Protocols", func(r *Rule) { r.Protocols = nil }, []string{"the protocol"}},
	{"Commands", func(r *Rule) { r.Commands = nil }, []string{"the command", "an unknown command"}},
	{"From", func(r *Rule) { r.From = nil }, []string{
		"a source beside the first network", "a source beside the second network", "a source of IPv6", "a source with a zone",
	}},
	{"Users and Proofs", func(r *Rule) { r.Users, r.Proofs = nil, nil }, []string{
		"the user", "no user", "a user in capitals", "a user with a space", "half a user",
	}},
	{"Users", func(r *Rule) { r.Users = nil }, []string{"the user", "a user in capitals", "a user with a space", "half a user"}},
	{"To", func(r *Rule) { r.To = nil }, []string{"a target beside the first network", "a target beside the other", "a target of IPv6"}},
	{"Ports", func(r *Rule) { r.Ports = nil }, []string{
		"a port before the range", "a port behind the range", "a port beside", "port 0", "port 65535",
	}},
}

// An empty condition matches everything, and changes nothing about the others.
func TestEmptyConditions(t *testing.T) {
	for _, test := range blanks {
		rule := full()
		test.blank(&rule)
		p := newPolicy(nil, rule)
		meets := map[string]bool{}
		for _, name := range test.meets {
			meets[name] = true
		}
		for _, change := range changes {
			q := fullRequest(t)
			change.change(q)
			want := "denied"
			if change.want || meets[change.name] {
				want = "full: " + q.Target.IP.String()
			}
			if got := verdict(t.Context(), p, q); got != want {
				t.Errorf("without %s, other by %s: %q, want %q", test.name, change.name, got, want)
			}
			delete(meets, change.name)
		}
		for name := range meets {
			t.Errorf("without %s: no change is called %q", test.name, name)
		}
	}
}

// Two conditions that are not met, of different kinds, do not make up for each other.
func TestConditionsCombine(t *testing.T) {
	p := newPolicy(nil, full())
	for _, first := range changes {
		for _, second := range changes {
			q := fullRequest(t)
			first.change(q)
			second.change(q)
			if first.want && second.want {
				continue // one may undo what the other did
			}
			turned := fullRequest(t)
			second.change(turned)
			first.change(turned)
			if verdict(t.Context(), p, q) != "denied" && verdict(t.Context(), p, turned) != "denied" {
				t.Errorf("%s with %s is granted", first.name, second.name)
			}
		}
	}
}

// Classes hold for sources as for targets.
func TestFromClass(t *testing.T) {
	for class, sources := range map[string][]string{
		"loopback": {"127.0.0.1", "127.5.5.5", "::1"},
		"private":  {"10.0.0.1", "172.16.0.1", "192.168.0.1", "fd00::1"},
		"internet": {"8.8.8.8", "2606:4700::1"},
	} {
		for other, others := range map[string][]string{"loopback": {"127.0.0.1", "::1"}, "private": {"10.0.0.1", "fd00::1"}, "internet": {"8.8.8.8"}} {
			p := newPolicy(nil, Rule{Name: other, From: from(other), To: to("any")})
			for _, ip := range append(sources, others...) {
				q := fullRequest(t)
				source(ip)(q)
				if class != other && !slices.Contains(others, ip) {
					wantVerdict(t, p, q, "denied")
					continue
				}
				wantVerdict(t, p, q, other+": 8.8.8.8")
			}
		}
	}
	q := fullRequest(t)
	source("fe80::1%eth0")(q)
	wantVerdict(t, newPolicy(nil, Rule{Name: "link", From: from("fe80::/10")}), q, "link: 8.8.8.8")
}

// The zero values that a mistake would leave behind match nothing.
func TestZeroConditionsMatchNothing(t *testing.T) {
	for name, rule := range map[string]Rule{
		"To":     {Name: "zero", To: []Destination{{}}},
		"suffix": {Name: "zero", To: []Destination{{Suffix: true}}},
		"From":   {Name: "zero", From: []Network{{}}},
		"class":  {Name: "zero", To: []Destination{{Network: Network{Class: "intranet"}}}},
		"Users":  {Name: "zero", Users: &Users{}, Proofs: []server.Proof{server.Claimed}},
	} {
		p := newPolicy(&zone{hosts: map[string]string{"host.example": "8.8.8.8"}}, rule)
		for _, to := range []string{"8.8.8.8:80", "host.example:80", "127.0.0.1:80"} {
			if got := verdict(t.Context(), p, newRequest(t, to, "fred")); got != "denied" {
				t.Errorf("%s, %s: %q, want denied", name, to, got)
			}
		}
	}
}
