package access

import (
	"bufio"
	"cmp"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

var seedFlag = flag.Uint64("seed", 0, "what TestRandomRules makes its rules and requests of; 0: something new")

// The small world of TestRandomRules.
var (
	worldAddrs = map[string]Class{
		"8.8.8.8": Internet, "8.8.4.4": Internet, "2606:4700::1": Internet,
		"10.0.0.1": Private, "10.1.0.1": Private, "fd00::1": Private,
		"127.0.0.1": Loopback, "127.0.0.2": Loopback, "::1": Loopback,
		"169.254.169.254": "", "fd00:ec2::254": "", "0.0.0.0": "",
	}
	worldTexts    = []string{"8.8.8.8", "8.8.4.4", "2606:4700::1", "10.0.0.1", "10.1.0.1", "fd00::1", "127.0.0.1", "127.0.0.2", "::1", "169.254.169.254", "fd00:ec2::254", "0.0.0.0"}
	worldHosts    = []string{"a.example", "b.example", "deep.a.example", "c.test", "localhost", "gone.example"}
	worldNetworks = []string{"any", "internet", "private", "loopback", "8.8.0.0/16", "8.8.8.8", "10.0.0.0/16", "169.254.169.254", "0.0.0.0/0", "::/0", "fd00::/8"}
	worldNames    = []string{"a.example", "*.example", "*.a.example", "b.example", "*.test", "localhost", "*.localhost"}
	worldSources  = []string{"any", "loopback", "private", "127.0.0.0/8", "127.0.0.1", "127.0.0.2", "10.0.0.0/8"}
	worldUsers    = []string{"fred", "alice", "-"}
	worldHours    = NewSchedule([]Span{daily(9*60, 17*60)}, time.UTC)
	worldNights   = NewSchedule([]Span{daily(17*60, 9*60)}, time.UTC)
	worldNoon     = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
)

// worldSets are sets that rules can have, and what is in them.
func worldSets(tb testing.TB) map[*Set][]Destination {
	tb.Helper()
	sets := map[*Set][]Destination{}
	for _, entries := range []string{"a.example *.test", "8.8.0.0/16 fd00::/8", "8.8.4.4 *.example 127.0.0.0/8 b.example", "10.0.0.0/8 10.0.0.1 localhost", ""} {
		half := len(strings.Fields(entries)) / 2 // the first half stands in a file, the rest in the settings
		file := filepath.Join(tb.TempDir(), "set")
		if err := os.WriteFile(file, []byte(strings.Join(strings.Fields(entries)[:half], "\n")), 0o600); err != nil {
			tb.Fatal(err)
		}
		s, err := OpenSet(entries, to(strings.Fields(entries)[half:]...), []string{file}, slog.New(slog.DiscardHandler))
		if err != nil {
			tb.Fatal(err)
		}
		sets[s] = to(strings.Fields(entries)...)
	}
	return sets
}

// scene is one request in a world, and what the reference saw on its way.
type scene struct {
	rules    []Rule
	request  *server.Request
	addrs    []string // what the target is, or what its name resolves to; none: it does not resolve
	identd   string   // the name it gives; empty: it closes
	sets     map[*Set][]Destination
	known    bool // what the addresses are
	resolved bool
	asked    bool
}

// decide is the reference: the rules as they are written down, without regard
// to anything else. What it returns is a verdict.
func (s *scene) decide() string {
	open, failed, late := s.addrs, "", ""
	s.known = s.request.Target.Name == ""
	for _, r := range s.rules {
		if !s.plainly(r) || s.isForOthers(r) {
			continue
		}
		if r.During == worldNights {
			late = cmp.Or(late, s.atAnotherHour(r, open))
			continue
		}
		hit, decided := s.about(r, open)
		if decided != "" {
			return decided
		}
		shown := "not"
		if len(hit) > 0 {
			shown = s.shown(r)
		}
		switch {
		case shown == "not" || (shown != "" && r.Deny):
		case shown != "":
			failed = cmp.Or(failed, shown+" "+r.Name)
		case !r.Deny:
			return r.Name + ": " + strings.Join(hit, " ")
		default:
			open = slices.DeleteFunc(slices.Clone(open), func(a string) bool { return hit[0] == "*" || slices.Contains(hit, a) })
			if len(open) == 0 {
				return "denied " + r.Name
			}
		}
	}
	return cmp.Or(failed, late, "denied")
}

// isForOthers reports whether the client cannot be one of the rule's users,
// whatever the target and whoever is asked: then no name is looked up for it.
func (s *scene) isForOthers(r Rule) bool {
	q := s.request
	listed := r.Users == nil || r.Users.Any || slices.Contains(r.Users.Names, q.Identity.Name)
	takes := func(p server.Proof) bool {
		return slices.Contains(r.Proofs, p) || (len(r.Proofs) == 0 && (r.Deny || p != server.Claimed))
	}
	switch {
	case r.Users == nil && len(r.Proofs) == 0:
		return false
	case q.Protocol == server.SOCKS4 || q.Protocol == server.SOCKS4a:
		if takes(server.Claimed) {
			return !listed || q.Identity.Name == ""
		}
		return takes(server.Ident) && !listed
	case q.Identity.Name != "":
		return takes(server.Password) && !listed
	}
	nobody := r.Users != nil && !r.Users.Any && len(r.Users.Names) == 0
	return takes(server.Ident) && (nobody || (r.Deny && len(r.Proofs) == 0))
}

// plainly checks the conditions that need nobody's answer.
func (s *scene) plainly(r Rule) bool {
	q := s.request
	return (r.Listeners == nil || slices.Contains(r.Listeners, q.Listener)) &&
		(r.Protocols == nil || slices.Contains(r.Protocols, q.Protocol)) &&
		(r.Commands == nil || slices.Contains(r.Commands, q.Command)) &&
		(r.Ports == nil || (r.Ports[0].First <= q.Target.Port && r.Ports[0].Last >= q.Target.Port)) &&
		((r.From == nil && r.FromSets == nil) || slices.ContainsFunc(s.sources(r), func(d Destination) bool { return d.Name == "" && lies(q.Client.Addr().String(), d.Network) }))
}

// hosts is the zone of a resolver that knows what the scene does.
func (s *scene) hosts() map[string]string {
	if len(s.addrs) == 0 {
		return nil
	}
	return map[string]string{s.request.Target.Name: strings.Join(s.addrs, " ")}
}

// atAnotherHour returns the verdict where a rule might allow it then.
func (s *scene) atAnotherHour(r Rule, open []string) string {
	if !r.Deny && s.couldShow(r) && s.couldBeAbout(r, open) {
		return "schedule " + r.Name
	}
	return ""
}

// sources and destinations are what a rule lists, with what is in its sets.
func (s *scene) sources(r Rule) (all []Destination) {
	for _, n := range r.From {
		all = append(all, Destination{Network: n})
	}
	for _, set := range r.FromSets {
		all = append(all, s.sets[set]...)
	}
	return all
}

func (s *scene) destinations(r Rule) []Destination {
	all := slices.Clone(r.To)
	for _, set := range r.ToSets {
		all = append(all, s.sets[set]...)
	}
	if r.To == nil && r.ToSets == nil {
		return to(map[bool]string{false: "internet", true: "any"}[r.Deny])
	}
	return all
}

// couldShow reports whether the client might show what a rule asks at another
// hour, though nobody asks identd for that.
func (s *scene) couldShow(r Rule) bool {
	socks4 := s.request.Protocol == server.SOCKS4 || s.request.Protocol == server.SOCKS4a
	name := s.request.Identity.Name
	takesIdent := len(r.Proofs) == 0 || slices.Contains(r.Proofs, server.Ident)
	switch {
	case r.Users == nil && len(r.Proofs) == 0:
		return true
	case socks4 && slices.Contains(r.Proofs, server.Claimed):
		return true
	case !socks4 && name != "":
		return len(r.Proofs) == 0 || slices.Contains(r.Proofs, server.Password)
	case !takesIdent:
		return !socks4
	case !s.asked:
		return true
	case socks4:
		return s.identd == name && name != "-" && name != ""
	}
	listed := r.Users == nil || r.Users.Any || slices.Contains(r.Users.Names, s.identd)
	return s.identd != "" && s.identd != "-" && listed
}

// couldBeAbout reports whether a rule might be about one of the addresses.
func (s *scene) couldBeAbout(r Rule, open []string) bool {
	if s.known {
		copied := *s // whatever is noted there, nobody is asked
		hit, _ := copied.about(r, open)
		return len(hit) > 0
	}
	return slices.ContainsFunc(s.destinations(r), func(d Destination) bool { return d.Name == "" || covers(d, s.request.Target.Name) })
}

func lies(a string, n Network) bool {
	if n.Class != "" {
		return n.Class == Any || n.Class == worldAddrs[a]
	}
	return n.Prefix.Contains(netip.MustParseAddr(a))
}

// about returns the addresses that a rule is about; or what is decided, where
// they cannot be known.
func (s *scene) about(r Rule, open []string) (hit []string, decided string) {
	host := s.request.Target.Name
	if r.Bind.AnyPeer && !r.Deny && s.request.Command == socks.Bind && len(open) > 0 && open[0] == "0.0.0.0" && host == "" {
		return open, ""
	}
	destinations := s.destinations(r)
	named := slices.ContainsFunc(destinations, func(d Destination) bool { return d.Name != "" && covers(d, host) })
	networks := slices.ContainsFunc(destinations, func(d Destination) bool { return d.Name == "" })
	if named && r.Deny {
		return []string{"*"}, "" // all there are, known or not
	}
	if host != "" && !named && !networks {
		return nil, ""
	}
	s.resolved = s.resolved || (host != "" && host != "localhost")
	s.known = true
	if len(s.addrs) == 0 {
		return nil, "no-name"
	}
	vouched := map[Class]bool{Internet: named && host != "localhost", Private: named && host != "localhost", Loopback: named && host == "localhost"}
	for _, a := range open {
		if vouched[worldAddrs[a]] || slices.ContainsFunc(destinations, func(d Destination) bool { return d.Name == "" && lies(a, d.Network) }) {
			hit = append(hit, a)
		}
	}
	return hit, ""
}

func covers(d Destination, host string) bool {
	if d.Suffix {
		return strings.HasSuffix(host, "."+d.Name)
	}
	return host == d.Name
}

// shown returns nothing where the client shows what the rule asks, "not" where
// it does not, and else the reason why IDENT did not show it.
func (s *scene) shown(r Rule) string {
	switch s.request.Protocol {
	case server.SOCKS5, server.HTTP:
		return s.shownBy5(r)
	}
	userid := s.request.Identity.Name
	listed := r.Users == nil || r.Users.Any || slices.Contains(r.Users.Names, userid)
	claim := slices.Contains(r.Proofs, server.Claimed) || (len(r.Proofs) == 0 && r.Deny)
	ident := slices.Contains(r.Proofs, server.Ident) || (len(r.Proofs) == 0 && !r.Deny)
	switch {
	case r.Users == nil && len(r.Proofs) == 0:
		return ""
	case !listed || (!claim && !ident) || (claim && userid == ""):
		return "not"
	case claim:
		return ""
	}
	s.asked = true
	switch {
	case s.identd == "":
		return "no-identd"
	case s.identd != userid || userid == "-":
		return "other-user"
	}
	return ""
}

// shownBy5 is shown for a client that has either signed in, or shown nothing:
// then identd alone can say who it is.
func (s *scene) shownBy5(r Rule) string {
	if r.Users == nil && len(r.Proofs) == 0 {
		return ""
	}
	admits := func(name string) bool { return r.Users == nil || r.Users.Any || slices.Contains(r.Users.Names, name) }
	if name := s.request.Identity.Name; name != "" {
		if (len(r.Proofs) == 0 || slices.Contains(r.Proofs, server.Password)) && admits(name) {
			return ""
		}
		return "not"
	}
	wantsIdent := slices.Contains(r.Proofs, server.Ident) || (len(r.Proofs) == 0 && !r.Deny)
	if !wantsIdent || (r.Users != nil && !r.Users.Any && len(r.Users.Names) == 0) {
		return "not"
	}
	s.asked = true
	switch {
	case s.identd == "":
		return "no-identd"
	case s.identd == "-":
		return "other-user"
	case !admits(s.identd):
		return "not"
	}
	return ""
}

// maker makes random rules and requests.
type maker struct {
	*rand.Rand
	sets []*Set
}

func (m maker) someSets() []*Set {
	return []*Set{m.sets[m.IntN(len(m.sets))], m.sets[m.IntN(len(m.sets))]}
}

// newMaker has the sets in an order that is the same for a seed.
func newMaker(seed, turn uint64, sets map[*Set][]Destination) maker {
	ordered := slices.SortedFunc(maps.Keys(sets), func(a, b *Set) int { return cmp.Compare(a.name, b.name) })
	return maker{rand.New(rand.NewPCG(seed, turn)), ordered}
}

func (m maker) maybe(percent int) bool { return m.IntN(100) < percent }

func (m maker) pick(from []string) string { return from[m.IntN(len(from))] }

func (m maker) some(from []string, atMost int) (picked []string) {
	for range 1 + m.IntN(atMost) {
		picked = append(picked, m.pick(from))
	}
	return picked
}

func (m maker) rule(name string) Rule {
	r := Rule{Name: name, Deny: m.maybe(40), Bind: server.BindOptions{AnyPeer: m.maybe(20)}}
	if m.maybe(20) {
		r.Listeners = m.some([]string{"lan", "wan", "guests"}, 2)
	}
	if m.maybe(10) {
		r.Protocols = []server.Protocol{server.Protocol(m.pick([]string{"socks4", "socks4a", "socks5", "http"}))}
	}
	if m.maybe(20) {
		r.Commands = []socks.Command{socks.Command(1 + m.IntN(2))}
	}
	if m.maybe(30) {
		r.From = from(m.some(worldSources, 2)...)
	}
	if m.maybe(80) {
		r.To = to(m.some(slices.Concat(worldNetworks, worldNames), 3)...)
	}
	if m.maybe(15) {
		r.ToSets = m.someSets()
	}
	if m.maybe(10) {
		r.FromSets = m.someSets()
	}
	if m.maybe(30) {
		r.During = []*Schedule{worldHours, worldNights}[m.IntN(2)]
	}
	if m.maybe(30) {
		first := uint16(m.IntN(4))
		r.Ports = []server.PortRange{{First: first, Last: first + uint16(m.IntN(4))}}
	}
	if m.maybe(30) {
		r.Users = &Users{Any: m.maybe(30), Names: m.some(worldUsers, 2)}
	}
	if m.maybe(30) {
		for _, p := range m.some([]string{"ident", "ident", "claimed", "password", "password"}, 2) {
			r.Proofs = append(r.Proofs, server.Proof(p))
		}
	}
	return r
}

// rules makes a few rules; every tenth time so many that they are not listed
// one by one in the index.
func (m maker) rules(turn uint64) (rules []Rule) {
	n := 1 + m.IntN(6)
	if turn%10 == 0 {
		n = 60 + m.IntN(200)
	}
	for i := range n {
		rules = append(rules, m.rule(fmt.Sprintf("rule-%d", i)))
	}
	return rules
}

func (m maker) scene(rules []Rule) *scene {
	s := &scene{rules: rules, identd: m.pick([]string{"fred", "fred", "alice", "-", ""})}
	q := &server.Request{
		Protocol: server.SOCKS4, Command: socks.Command(1 + m.IntN(2)), Listener: m.pick([]string{"lan", "wan"}),
		Identity: server.Identity{Name: m.pick([]string{"fred", "fred", "alice", "-", ""}), Proof: server.Claimed},
		Client:   netip.MustParseAddrPort("127.0.0.1:40000"),
		Local:    netip.MustParseAddrPort(fmt.Sprintf("127.0.0.%d:1080", 1+m.IntN(8))), // spreads identd's connections
		Target:   socks.Addr{Port: uint16(m.IntN(8))},
	}
	s.request = q
	if m.maybe(50) {
		q.Protocol, q.Identity = server.Protocol(m.pick([]string{"socks5", "http"})), server.Identity{}
		if m.maybe(50) {
			q.Identity = server.Identity{Name: m.pick([]string{"fred", "fred", "alice", "-"}), Proof: server.Password}
		}
	}
	if m.maybe(40) {
		s.addrs = []string{m.pick(worldTexts)}
		q.Target.IP = netip.MustParseAddr(s.addrs[0])
		return s
	}
	q.Target.Name = m.pick(worldHosts)
	if q.Protocol == server.SOCKS4 {
		q.Protocol = server.SOCKS4a
	}
	switch q.Target.Name {
	case "gone.example":
	case "localhost":
		s.addrs = []string{"127.0.0.1", "::1"}
	default:
		s.addrs = m.some(worldTexts, 4)
		slices.Sort(s.addrs)
		s.addrs = slices.Compact(s.addrs)
	}
	return s
}

// TestRandomRules compares the policy with the reference above over tens of
// thousands of requests. It runs through the real resolver's and identd's doors.
func TestRandomRules(t *testing.T) {
	seed := cmp.Or(*seedFlag, rand.Uint64())
	var says atomic.Value
	says.Store("")
	d := newIdentd(t, "127.0.0.1", func(c net.Conn) {
		query, err := bufio.NewReader(c).ReadString('\n')
		if name := says.Load(); err == nil && name != "" {
			_, _ = io.WriteString(c, fmt.Sprintf("%s : USERID : UNIX : %s\r\n", strings.TrimSpace(query), name))
		}
	})
	resolver := &zone{}
	seen := map[string]int{}
	sets := worldSets(t)
	for set := range uint64(500) {
		m := newMaker(seed, set, sets)
		rules := m.rules(set)
		p := newPolicy(resolver, rules...)
		p.ident.Port, p.clock = d.port, func() time.Time { return worldNoon }
		for range 50 {
			s := m.scene(rules)
			s.sets = sets
			want := s.decide()
			resolver.hosts = s.hosts()
			says.Store(s.identd)
			resolver.asked.Store(0)
			d.asked.Store(0)
			known, fault := s.decidesNow(p, func() (server.Grant, error) { return p.Decide(t.Context(), s.request) }, func() bool { return resolver.asked.Load()+d.asked.Load() > 0 })
			if fault != "" {
				t.Fatalf("%s\n%+v\n%+v\nagain: go test -run TestRandomRules -seed %d", fault, *s.request, rules, seed)
			}
			if known {
				seen["now"]++
			}
			resolver.asked.Store(0)
			d.asked.Store(0)
			got := verdict(t.Context(), p, s.request)
			if got != want || (resolver.asked.Load() == 1) != s.resolved || resolver.asked.Load() > 1 || (d.asked.Load() == 1) != s.asked || d.asked.Load() > 1 {
				t.Fatalf("%q, want %q; resolver asked %d times, want %v; identd asked %d times, want %v\n%+v\n%v, identd says %q\n%+v\nagain: go test -run TestRandomRules -seed %d",
					got, want, resolver.asked.Load(), s.resolved, d.asked.Load(), s.asked, *s.request, s.addrs, s.identd, rules, seed)
			}
			seen[strings.Fields(got)[0]]++
		}
	}
	for _, kind := range []string{"rule-0:", "rule-3:", "denied", "no-name", "no-identd", "other-user", "schedule", "now"} {
		if seen[kind] < 30 {
			t.Errorf("%q came up only %d times: the world is too small (seed %d)", kind, seen[kind], seed)
		}
	}
}

// decidesNow compares DecideNow with Decide: it answers the same, and just where
// Decide asks nobody. It reports whether it did.
func (s *scene) decidesNow(p *Policy, decide func() (server.Grant, error), asked func() bool) (known bool, fault string) {
	now, known, errNow := p.DecideNow(s.request)
	if asked() {
		return known, "DecideNow asked somebody"
	}
	grant, err := decide()
	switch {
	case known == asked():
		fault = fmt.Sprintf("DecideNow knows: %v; Decide asks: %v", known, asked())
	case known && (!reflect.DeepEqual(now, grant) || fmt.Sprint(errNow) != fmt.Sprint(err)):
		fault = fmt.Sprintf("DecideNow: %+v, %v; Decide: %+v, %v", now, errNow, grant, err)
	}
	return known, fault
}
