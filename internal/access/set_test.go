package access

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func parsed(t *testing.T, text string) *entries {
	t.Helper()
	e, err := parseEntries([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// What is in a set, by the line of its file.
func TestSetEntries(t *testing.T) {
	for _, test := range []struct{ line, in, out string }{
		{"example.com", "example.com", "www.example.com com xample.com myexample.com example.com.org"},
		{"*.example.com", "www.example.com a.b.example.com", "example.com myexample.com com"},
		{".example.com", "example.com www.example.com a.b.example.com", "myexample.com com"},
		{"  Example.COM.\t # the shop", "example.com", "www.example.com"},
		{"example.com\r", "example.com", ""},
		{"xn--bcher-kva.example", "xn--bcher-kva.example", ""},
		{"1.2.3.4-a.3-b.example", "1.2.3.4-a.3-b.example", "1.2.3.4"},
		{"_dmarc.example.com", "_dmarc.example.com", ""},
		{"0.0.0.0 ads.example", "ads.example", "0.0.0.0 www.ads.example"},
		{"127.0.0.1\ta.example b.example\t c.example # three", "a.example b.example c.example", "127.0.0.1"},
		{":: a.example", "a.example", "::"},
		{"127.0.0.1 localhost localhost.localdomain local a.example", "a.example", "localhost local 127.0.0.1"},
		{"0.0.0.0 0.0.0.0", "", "0.0.0.0"},
		{"255.255.255.255 broadcasthost", "", "broadcasthost 255.255.255.255"},
		{"fe80::1%lo0 localhost", "", "localhost fe80::1"},
		{"ff02::1 ip6-allnodes", "", "ip6-allnodes ff02::1"},
		{"192.0.2.1", "192.0.2.1 64:ff9b::192.0.2.1 2002:c000:201::1", "192.0.2.0 192.0.2.2"},
		{"::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"},
		{"192.0.2.0/24", "192.0.2.0 192.0.2.255", "192.0.1.255 192.0.3.0 2001:db8::"},
		{"0.0.0.0/0", "0.0.0.0 255.255.255.255", "::1"},
		{"2001:db8::/33", "2001:db8:: 2001:db8:7fff::1", "2001:db8:8000:: 32.1.13.184"},
		{"192.0.2.3-192.0.2.9", "192.0.2.3 192.0.2.6 192.0.2.9", "192.0.2.2 192.0.2.10"},
		{"192.0.2.3-192.0.2.3", "192.0.2.3", "192.0.2.2 192.0.2.4"},
		{"0.0.0.0-255.255.255.255", "0.0.0.0 255.255.255.255 10.0.0.1", "::"},
		{"2001:db8::ff-2001:db8::1:0", "2001:db8::ff 2001:db8::1:0", "2001:db8::fe 2001:db8::1:1"},
		{"# example.com", "", "example.com"},
		{" \t", "", "example.com"},
	} {
		e := content{parsed(t, test.line)}
		has := func(text string) bool {
			if a, err := netip.ParseAddr(text); err == nil {
				return e.hasAddr(a)
			}
			return e.hasHost(text)
		}
		for text := range strings.FieldsSeq(test.in) {
			if !has(text) {
				t.Errorf("%q: %s is not in it", test.line, text)
			}
		}
		for text := range strings.FieldsSeq(test.out) {
			if has(text) {
				t.Errorf("%q: %s is in it", test.line, text)
			}
		}
	}
}

func TestSetFaults(t *testing.T) {
	for line, want := range map[string]string{
		"example..com":                       `"example..com" is not a host name`,
		"bücher.example":                     "xn--",
		"http://example.com":                 "is not an address, a prefix or a range",
		"example.com:80":                     "is not an address, a prefix or a range",
		"*":                                  `"*" is not a host name`,
		"*.":                                 "is not a host name",
		"a.*.example":                        "is not a host name",
		"192.0.2.1/24":                       "write 192.0.2.0/24",
		"192.0.2.0/33":                       "is not an address, a prefix or a range",
		"192.0.2.256":                        "is not an address, a prefix or a range",
		"127.1":                              "is not an address, a prefix or a range",
		"fe80::1%eth0":                       "is not an address, a prefix or a range",
		"::ffff:192.0.2.0/120":               "is not an address, a prefix or a range",
		"192.0.2.9-192.0.2.3":                "ends before it begins",
		"192.0.2.9-2001:db8::1":              "is not a range",
		"192.0.2.1-":                         "is not a range",
		"10":                                 "is not an address",
		"a.example b.example":                "one entry a line",
		"192.0.2.1 a.example":                "by which hosts files block",
		"0.0.0.0 *.example":                  "is not a host name",
		"0.0.0.0 a.example 1.2.3.4":          "is not a host name",
		strings.Repeat("a", 70) + ".example": "is not a host name",
		strings.Repeat("x", maxSetLine+1):    "over 4096 bytes",
		"a\x00b.example":                     "is not a host name",
	} {
		_, err := parseEntries([]byte("# comment\ngood.example\n" + line + "\ngood.example\n"))
		if err == nil || !strings.HasPrefix(err.Error(), "line 3: ") || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), "\n") > 0 || len(err.Error()) > 400 {
			t.Errorf("%.80q: %v, want line 3 and %q", line, err, want)
		}
	}
	_, err := parseEntries([]byte(strings.Repeat("?\n", 1000)))
	if err == nil || strings.Count(err.Error(), "\n") != maxFileFaults-1 {
		t.Errorf("of a thousand faults are told:\n%v", err)
	}
}

// FuzzSetFile: whatever a file holds, it is read or its lines are named, and what
// was read is what its lines say, one by one.
func FuzzSetFile(f *testing.F) {
	f.Add([]byte("example.com\n*.example.com # x\n.a.b\n10.0.0.0/8\n0.0.0.0 a b c\n"))
	f.Add([]byte("1.2.3.4-1.2.5.6\r\n2001:db8::-2001:db8::ffff\n::1 localhost\nfe80::1%lo0 localhost"))
	f.Add([]byte("1.2.3.4/33\n\x00\n-\n. \n*.\n0.0.0.0-255.255.255.255\n::-ffff::\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, err := parseEntries(data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "line ") {
				t.Fatalf("%v", err)
			}
			return
		}
		hosts, networks := 0, 0
		for line := range bytes.Lines(data) {
			one, err := parseEntries(line)
			if err != nil {
				t.Fatalf("%q alone: %v", line, err)
			}
			hosts, networks = hosts+one.hosts.count, networks+one.networks.Size()
			holdsNetworks(t, whole, one)
		}
		if whole.hosts.count > hosts || whole.networks.Size() > networks {
			t.Fatalf("there is more in it than its lines say")
		}
	})
}

func holdsNetworks(t *testing.T, whole, part *entries) {
	t.Helper()
	for p := range part.networks.All() {
		if !whole.hasAddr(p.Addr()) || !whole.hasAddr(lastOf(p)) {
			t.Fatalf("%s is not in it", p)
		}
	}
}

// isCovered is the reference for what a set of names covers.
func isCovered(names map[string]byte, host string) bool {
	in := names[host]&itself != 0
	for rest, ok := host, true; ok; {
		if _, rest, ok = strings.Cut(rest, "."); ok {
			in = in || names[rest]&below != 0
		}
	}
	return in
}

// TestHosts compares the compact set with a map.
func TestHosts(t *testing.T) {
	seed := cmp.Or(*seedFlag, rand.Uint64())
	r := rand.New(rand.NewPCG(seed, 0))
	labels := []string{"a", "b", "c", "example", strings.Repeat("x", 63), "1"}
	name := func() string {
		var parts []string
		for range 1 + r.IntN(4) {
			parts = append(parts, labels[r.IntN(len(labels))])
		}
		return strings.Join(parts, ".")
	}
	for range 200 {
		var h hosts
		want := map[string]byte{}
		for range r.IntN(300) {
			n, covers := name(), byte(1+r.IntN(3))
			h.add(n, covers)
			want[n] |= covers
		}
		for range 300 {
			host := name()
			in := isCovered(want, host)
			if h.has(host) != in || h.count != len(want) {
				t.Fatalf("%s: %v, want %v; %d names, want %d (seed %d)", host, h.has(host), in, h.count, len(want), seed)
			}
		}
	}
	var none hosts
	if none.has("") || none.has("example") {
		t.Error("there is something in nothing")
	}
}

// TestRanges: the prefixes of a range hold it and nothing else, and no two of
// them could be one.
func TestRanges(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		b := [4]byte{10, byte(r.IntN(2)), byte(r.IntN(256)), byte(r.IntN(256))}
		c := [4]byte{10, byte(r.IntN(2)), byte(r.IntN(256)), byte(r.IntN(256))}
		first, last := netip.AddrFrom4(b), netip.AddrFrom4(c)
		if last.Less(first) {
			first, last = last, first
		}
		next := first
		for _, p := range rangePrefixes(first, last) {
			if p.Addr() != next || p.Masked() != p {
				t.Fatalf("%s-%s: %s does not begin at %s", first, last, p, next)
			}
			next = lastOf(p).Next()
		}
		if next != last.Next() {
			t.Fatalf("%s-%s ends before %s", first, last, next)
		}
	}
}

// setLog is a log that two goroutines use.
type setLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *setLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// take returns what was written since the last time.
func (l *setLog) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

// TestSetIsReadAgain: a change is taken within a second or two, a broken line is
// named once, and until it is mended the set stays as it was.
func TestSetIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		names, networks := filepath.Join(dir, "names"), filepath.Join(dir, "networks")
		write := func(path, text string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(names, "a.example\n")
		write(networks, "10.0.0.0/8\n")
		var log setLog
		s, err := OpenSet("blocked", to("own.example"), []string{names, networks}, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		changes := 0
		go s.Watch(ctx, func() { changes++ })
		holds := func(what string, hosts, networks, changed int) {
			t.Helper()
			time.Sleep(3 * lookAgain)
			synctest.Wait()
			if h, n := s.Len(); h != hosts || n != networks || changes != changed {
				t.Errorf("%s: %d hosts and %d networks after %d changes, want %d, %d and %d", what, h, n, changes, hosts, networks, changed)
			}
		}
		holds("nothing changed", 2, 1, 0)
		before := *s.now.Load()
		write(names, "a.example\nb.example\n")
		holds("a name more", 3, 1, 1)
		if before.hasHost("b.example") || !s.now.Load().hasHost("own.example") || !s.now.Load().hasHost("b.example") {
			t.Error("the state of a decision that runs has changed, or the new one is not whole")
		}
		log.take()
		write(networks, "10.0.0.0/8\n10.1.0.0/99\n")
		holds("a broken line", 3, 1, 1)
		if said := log.take(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "line 2") || !strings.Contains(said, "set=blocked") {
			t.Errorf("the log says\n%s", said)
		}
		write(names, "c.example\n")
		holds("the other file, meanwhile", 2, 1, 2)
		write(networks, "10.0.0.0/8\n192.168.0.0/16\n")
		holds("mended", 2, 2, 3)
		if err := os.Remove(names); err != nil {
			t.Fatal(err)
		}
		log.take()
		holds("gone", 2, 2, 3)
		if said := log.take(); strings.Count(said, "\n") != 1 {
			t.Errorf("the log says\n%s", said)
		}
		cancel()
		synctest.Wait()
	})
}

func TestOpenSet(t *testing.T) {
	dir := t.TempDir()
	broken, good := filepath.Join(dir, "broken"), filepath.Join(dir, "good")
	for path, text := range map[string]string{broken: "a.example\n?\n!\n", good: "a.example\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		broken:                     broken + ":\nline 2: ",
		dir:                        "it is a folder",
		filepath.Join(dir, "none"): "none: no such file",
	} {
		if _, err := OpenSet("", nil, []string{path}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	_, err := OpenSet("all of them", nil, []string{broken, good, dir}, nil)
	if faults, ok := errors.AsType[SetFaults](err); !ok || len(faults) != 2 || faults[0].File != broken || faults[1].File != dir ||
		!strings.Contains(err.Error(), "line 3: ") || !strings.Contains(err.Error(), "\nthe set's file "+dir) {
		t.Errorf("the faults of three files: %v", err)
	}
	s, err := OpenSet("own", slices.Concat(to("a.example", "*.b.example", "10.0.0.0/8", "any"), []Destination{{}}), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if hosts, networks := s.Len(); hosts != 2 || networks != 1 || s.Name() != "own" {
		t.Errorf("%s has %d hosts and %d networks", s.Name(), hosts, networks)
	}
	s.Watch(t.Context(), nil) // there is nothing to watch
}

// changing is a resolver that changes a set while a decision waits for it.
type changing struct {
	zone
	change func()
}

func (c *changing) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	c.change()
	return c.zone.LookupNetIP(ctx, network, host)
}

// A decision goes by one state of a set, though it is changed meanwhile.
func TestSetChangesWhileDeciding(t *testing.T) {
	s, err := OpenSet("set", to("host.example"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	before := s.now.Load()
	resolver := &changing{zone: zone{hosts: map[string]string{"host.example": "8.8.8.8"}}}
	resolver.change = func() { s.now.Store(&content{newEntries()}) }
	p := newPolicy(resolver, Rule{Name: "some", To: to("9.9.9.9")}, Rule{Name: "in", ToSets: []*Set{s}})
	for _, want := range []string{"in: 8.8.8.8", "denied"} {
		wantVerdict(t, p, newRequest(t, "host.example:80", ""), want)
	}
	s.now.Store(before)
	wantVerdict(t, p, newRequest(t, "host.example:80", ""), "in: 8.8.8.8")
}
