package access

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"

	"github.com/sallyport/sallyport/server"
)

// Class is a kind of addresses that a rule can name by one word.
type Class string

// The classes, by the words of the settings.
const (
	Any      Class = "any"      // every address
	Internet Class = "internet" // public addresses that are not this machine's own
	Private  Class = "private"  // RFC 1918 and RFC 4193
	Loopback Class = "loopback" // 127.0.0.0/8 and ::1
)

// contains reports whether an address, unmapped and without zone, is of the class.
func (c Class) contains(a netip.Addr, own *ownAddrs) bool {
	switch c {
	case Any:
		return true
	case Loopback:
		return a.IsLoopback()
	case Private:
		return a.IsPrivate() && !inAny(metadata, a)
	case Internet:
		c := carried(a)
		return isPublic(a) && !own.has(a) && (c == a || !own.has(c))
	}
	return false
}

// metadata are the addresses where clouds tell a machine its secrets, as far as
// they lie in public or private networks. (The others are link-local or shared.)
var metadata = prefixes(
	"168.63.129.16/32",
	"fd00:42::42/128", "fd00:c1::a9fe:a9fe/128", "fd00:100::100:200/128", "fd00:a9fe:a9fe::1/128",
	"fd00:ec2::/32", "fd20:ce::254/128",
)

// special are the networks that are not public Internet: IANA's registries of
// special-purpose addresses (RFC 6890 and what came after it), multicast, and
// what is reserved; of IPv6 that is all but 2000::/3.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
	"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"::/3", "2001::/23", "2001:db8::/32", "3fff::/20", "4000::/2", "8000::/1",
)

// notPublic are all of them.
var notPublic = func() *bart.Lite {
	var all bart.Lite
	for _, p := range slices.Concat(special, metadata) {
		all.Insert(p)
	}
	return &all
}()

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range texts {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func inAny(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
}

// isPublic reports whether an address is one of the public Internet's. An IPv6
// address that carries an IPv4 address is what that one is.
func isPublic(a netip.Addr) bool {
	a = carried(a)
	return a.IsValid() && !notPublic.Contains(a)
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052: the IPv4 address in the last 4 bytes
	sixToFour = netip.MustParsePrefix("2002::/16")    // RFC 3056: the IPv4 address in bytes 2 to 5
)

// carried returns the IPv4 address that an IPv6 address leads to through a
// translator, or else the address itself.
func carried(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	b := a.As16()
	switch {
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}

// ownAddrs knows this machine's addresses, asking the system at most every few
// seconds. The zero value is ready; safe for concurrent use.
type ownAddrs struct {
	known atomic.Pointer[ownSnapshot]
}

type ownSnapshot struct {
	addrs []netip.Addr
	err   error
	until time.Time
}

const ownAddrsLife = 5 * time.Second

// has reports whether a is this machine's. Where that cannot be known, it is
// taken for one: denied rather than let in.
func (o *ownAddrs) has(a netip.Addr) bool {
	now := time.Now()
	s := o.known.Load()
	if s == nil || now.After(s.until) {
		addrs, err := server.LocalAddrs()
		s = &ownSnapshot{addrs, err, now.Add(ownAddrsLife)}
		o.known.Store(s)
	}
	return s.err != nil || slices.Contains(s.addrs, a)
}
