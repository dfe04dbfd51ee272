//go:build unix

package access

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// A million of each, and a thousand rules, are what a decision is measured with.
const (
	manyEntries = 1_000_000
	manyRules   = 1_000
)

// writeLists writes block lists of a million host names and a million networks,
// some of them twice and some within others, and returns their names.
func writeLists(tb testing.TB) []string {
	tb.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	var names, networks bytes.Buffer
	paths := map[string]string{}
	for i := range manyEntries {
		switch i % 10 {
		case 0:
			fmt.Fprintf(&names, "*.zone%d.example\n", i)
			fmt.Fprintf(&networks, "%d.%d.%d.0/24\n", 1+r.IntN(220), r.IntN(256), r.IntN(256))
		case 1:
			fmt.Fprintf(&names, "0.0.0.0 host.zone%d.example # within another\n", i-1)
			fmt.Fprintf(&networks, "2%03x:%x:%x::/48\n", r.IntN(4096), r.IntN(65536), r.IntN(65536))
		case 2:
			fmt.Fprintf(&names, "*.zone%d.example\n", i-2)
			fmt.Fprintf(&networks, "2%03x:%x:%x:%x::%x\n", r.IntN(4096), r.IntN(65536), r.IntN(65536), r.IntN(65536), r.IntN(65536))
		default:
			fmt.Fprintf(&names, "tracker%d.ads%d.example\n", i, r.IntN(100_000))
			fmt.Fprintf(&networks, "%d.%d.%d.%d\n", 1+r.IntN(220), r.IntN(256), r.IntN(256), r.IntN(256))
		}
	}
	names.WriteString("blocked.example\n")
	networks.WriteString("203.0.113.0/24\n203.0.113.7\n203.0.113.0-203.0.113.99\n")
	for name, content := range map[string][]byte{"names": names.Bytes(), "networks": networks.Bytes()} {
		path := filepath.Join(tb.TempDir(), name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			tb.Fatal(err)
		}
		paths[name] = path
	}
	return []string{paths["names"], paths["networks"]}
}

// openLists returns the lists as four sets: each file alone, both, and a small one.
func openLists(tb testing.TB, files []string) []*Set {
	tb.Helper()
	var sets []*Set
	for _, f := range [][]string{files[:1], files[1:]} {
		s, err := OpenSet("lists", nil, f, slog.New(slog.DiscardHandler))
		if err != nil {
			tb.Fatal(err)
		}
		sets = append(sets, s)
	}
	small, err := OpenSet("small", to("small.example", "198.51.100.0/24"), nil, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return append(sets, small)
}

// manyRulesWith is a thousand rules of every kind, the first of which denies the
// host names of a set. What no other rule is about comes to the last two.
func manyRulesWith(sets []*Set) (rules []Rule) {
	hours := NewSchedule([]Span{daily(0, 1439)}, time.UTC)
	rules = append(rules, Rule{Name: "no trackers", Deny: true, ToSets: sets[:1]})
	for i := range manyRules - 3 {
		r := Rule{Name: fmt.Sprintf("rule %d", i), Deny: i%3 == 0}
		switch i % 8 {
		case 0:
			r.From = from(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))
		case 1:
			r.Users, r.Proofs = &Users{Names: []string{fmt.Sprintf("user%d", i), fmt.Sprintf("user%d", i+1)}}, []server.Proof{server.Password}
		case 2:
			r.To = to(fmt.Sprintf("host%d.example", i), fmt.Sprintf("*.zone%d.test", i), fmt.Sprintf("9.%d.%d.0/24", i/256, i%256))
		case 3:
			r.Ports, r.During = []server.PortRange{{First: uint16(20000 + i), Last: uint16(20010 + i)}}, hours
		case 4:
			r.Listeners = []string{fmt.Sprintf("listener%d", i)}
		case 5:
			r.FromSets = sets[2:]
		case 6:
			r.ToSets, r.From = sets, from("172.16.0.0/12")
		case 7:
			r.ToSets = sets[2:]
		}
		rules = append(rules, r)
	}
	return append(rules, Rule{Name: "not there", Deny: true, ToSets: sets}, Rule{Name: "else", From: from("192.168.0.0/16"), During: hours})
}

// benchRequests are what is decided on, and the rule that decides: by an address
// in a set, by a host name in a set, and by the last rule, once nothing else was about it.
var benchRequests = []struct {
	name   string
	target socks.Addr
	rule   string
}{
	{"address in a set", socks.Addr{IP: netip.MustParseAddr("203.0.113.7"), Port: 443}, "not there"},
	{"name in a set", socks.Addr{Name: "blocked.example", Port: 443}, "no trackers"},
	{"name below a suffix in a set", socks.Addr{Name: "a.b.zone500000.example", Port: 443}, "no trackers"},
	{"address of the last rule", socks.Addr{IP: netip.MustParseAddr("223.255.0.1"), Port: 443}, "else"},
}

func benchRequest(target socks.Addr) *server.Request {
	return &server.Request{
		Protocol: server.SOCKS5, Command: socks.Connect, Listener: "lan", Target: target,
		Identity: server.Identity{Name: "alice", Proof: server.Password},
		Client:   netip.MustParseAddrPort("192.168.1.5:40000"),
	}
}

func BenchmarkDecide(b *testing.B) {
	p := newPolicy(&zone{}, manyRulesWith(openLists(b, writeLists(b)))...)
	for _, bench := range benchRequests {
		b.Run(bench.name, func(b *testing.B) {
			q := benchRequest(bench.target)
			b.ReportAllocs()
			defer reportCPU(b)()
			for b.Loop() {
				if grant, _ := p.Decide(b.Context(), q); grant.Rule != bench.rule {
					b.Fatal(grant)
				}
			}
		})
	}
}

// BenchmarkLoad reads a million host names and a million networks, and compiles
// a thousand rules.
func BenchmarkLoad(b *testing.B) {
	files := writeLists(b)
	b.ReportAllocs()
	defer reportCPU(b)()
	for b.Loop() {
		NewPolicy(manyRulesWith(openLists(b, files)), Options{})
	}
}

// reportCPU begins to count the processor time of this process, and returns what
// reports it: on a busy machine the time that passes says little.
func reportCPU(b *testing.B) (report func()) {
	b.Helper()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

// TestManyEntries holds the bars that do not depend on the machine: the memory of
// the lists and the rules, and that a decision allocates none.
func TestManyEntries(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	files := writeLists(t)
	before := heap()
	sets := openLists(t, files)
	p := newPolicy(&zone{}, manyRulesWith(sets)...)
	if used := int64(heap()) - int64(before); used > 300<<20 {
		t.Errorf("the lists take %d MiB, want at most 300", used>>20)
	} else {
		t.Logf("the lists take %d MiB", used>>20)
	}
	hosts, _ := sets[0].Len()
	if also, _ := sets[1].Len(); hosts+also < manyEntries*8/10 {
		t.Errorf("there are %d host names", hosts+also)
	}
	for _, test := range benchRequests {
		q := benchRequest(test.target)
		if grant, err := p.Decide(t.Context(), q); grant.Rule != test.rule {
			t.Errorf("%s: %q decided (%v), want %q", test.name, grant.Rule, err, test.rule)
		}
	}
	runtime.KeepAlive(sets)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // what was in pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
