package access

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// classified are hosts as clients spell them, and the classes that they are of
// besides any: what is of none is reached only by whoever names it.
var classified = []struct {
	class Class
	hosts string // parted by spaces
}{
	{Internet, "1.1.1.1 8.8.8.8 93.184.216.34 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0"},
	{Internet, "169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255"},
	{Internet, "8.8.2056 0x08080808 134744072 010.010.010.010 8.8.8.8. ::ffff:8.8.8.8 [::ffff:8.8.8.8] ::FFFF:808:808"},
	{Internet, "2606:4700:4700::1111 2001:200::1 2001:4860:4860::8888 2a00:1450::1 [2a00:1450::1] 2A00:1450::1 3ffd:ffff::1"},
	{Internet, "64:ff9b::8.8.8.8 64:ff9b::808:808 2002:808:808::1"}, // they carry 8.8.8.8

	{Private, "10.0.0.0 10.0.0.1 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255"},
	{Private, "10.1 0xa.1 012.0.0.1 167772161 0xA000001 10.0.0.1. ::ffff:10.0.0.1 [::ffff:c0a8:1] 192.168.257 192.0xa80001"},
	{Private, "fc00:: fc00::1 fd00::1 fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff [FD12:3456::1] fd00::1%eth0"},

	{Loopback, "127.0.0.0 127.0.0.1 127.1 127.255.255.255 0x7f.1 0177.0.0.1 2130706433 017700000001 127.0.0.1. [127.0.0.1]"},
	{Loopback, "::1 [::1] 0:0:0:0:0:0:0:1 ::ffff:127.0.0.1 ::ffff:7f00:1 0:0:0:0:0:ffff:127.0.0.1 ::1%lo ::ffff:127.1.2.3%lo"},

	// This network, shared, link-local, documentation, benchmarks, multicast, reserved, broadcast.
	{"", "0.0.0.0 0 0. 0.0.0.1 0.255.255.255 ::ffff:0.0.0.0 100.64.0.0 100.64.0.1 100.127.255.255 169.254.0.0 169.254.1.1 169.254.255.255"},
	{"", "192.0.0.0 192.0.0.1 192.0.0.170 192.0.2.1 192.88.99.1 198.18.0.0 198.19.255.255 198.51.100.1 203.0.113.255"},
	{"", "224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.254 255.255.255.255 4294967295 0xffffffff ::ffff:255.255.255.255"},
	// IPv6: unspecified, IPv4 inside, discard, protocols (Teredo, ORCHID), documentation, SRv6, link-local, site-local, multicast, reserved.
	{"", ":: [::] ::2 ::7f00:1 ::127.0.0.1 ::8.8.8.8 ::ffff:0:7f00:1 64:ff9b:1::1 64:ff9b:1::a00:1 100::1 100:0:0:1::1 200::1"},
	{"", "2001::1 2001:0:808:808::1 2001:10::1 2001:20::1 2001:1ff::1 2001:db8::1 3fff::1 3fff:fff::1 4000::1 5f00::1 8000::1 fbff::1"},
	{"", "fe80::1 fe80::1%eth0 [fe80::a9fe:a9fe] febf::1 fec0::1 ff02::1 ff0e::1 ff02::1%eth0"},
	// Translators that lead to what is not public.
	{"", "64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::0.0.0.0 2002:7f00:1:: 2002:a00:1::1 2002:c0a8:101::1 2002:a9fe:a9fe::"},
	// Where clouds tell their secrets.
	{"", "169.254.169.254 169.254.43518 2852039166 0xA9FEA9FE 0251.0376.0251.0376 ::ffff:169.254.169.254 [::ffff:a9fe:a9fe] 169.254.169.254."},
	{"", "169.254.170.2 169.254.42.42 100.100.100.200 192.0.0.192 168.63.129.16 64:ff9b::168.63.129.16 fd00:ec2::254 fd00:ec2::23 [FD00:EC2::254]"},
	{"", "fd20:ce::254 fd00:c1::a9fe:a9fe fd00:42::42 fd00:a9fe:a9fe::1 fd00:100::100:200"},
	// This machine's own public addresses, straight and through a translator.
	{"", "5.5.5.5 5.5.1285 84215045 ::ffff:5.5.5.5 5.5.5.5. 2a00:5::5 [2a00:5:0::5] 2A00:5::5 64:ff9b::5.5.5.5 2002:505:505::1 2002:909:909::9"},
}

// Every address in every spelling, asked for by a client and found by a
// resolver, is of its class and of no other.
func TestClasses(t *testing.T) {
	count := 0
	for _, group := range classified {
		for host := range strings.FieldsSeq(group.hosts) {
			count++
			wantClass(t, host, group.class)
		}
	}
	if count < 150 {
		t.Errorf("only %d spellings were tried", count)
	}
}

// wantClass requires that a host is granted by rules for its class, and for
// any, alone.
func wantClass(t *testing.T, host string, want Class) {
	t.Helper()
	target, err := socks.NewAddr(host, 80)
	if err != nil || !target.IP.IsValid() {
		t.Errorf("%s is %v, %v; want an address", host, target, err)
		return
	}
	byAddress, byName := newRequest(t, "8.8.8.8:80", ""), newRequest(t, "host.example:80", "")
	byAddress.Target = target
	found := []netip.Addr{target.IP}
	if raw, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		found = []netip.Addr{raw} // mapped, with its zone: as a resolver may say it
	}
	resolver := resolverFunc(func(context.Context) ([]netip.Addr, error) { return found, nil })
	for _, class := range []Class{Any, Internet, Private, Loopback} {
		p := newPolicy(resolver, Rule{Name: "class", To: to(string(class))})
		want := map[bool]string{false: "denied", true: "class: " + target.IP.String()}[class == Any || class == want]
		if got := verdict(t.Context(), p, byAddress); got != want {
			t.Errorf("%s to %s: %q, want %q", host, class, got, want)
		}
		if got := verdict(t.Context(), p, byName); got != want {
			t.Errorf("a name for %s to %s: %q, want %q", host, class, got, want)
		}
	}
}

// A prefix holds for an address in every spelling, and never for one of the
// other family.
func TestPrefixes(t *testing.T) {
	tests := []struct {
		to, inside, outside string
	}{
		{"127.0.0.0/8", "127.0.0.1 127.1 ::ffff:127.0.0.1 2130706433", "126.255.255.255 128.0.0.0 ::1 ::127.0.0.1"},
		{"10.0.0.0/8", "10.0.0.1 [::ffff:10.0.0.1] 0xa.1", "11.0.0.0 9.255.255.255"},
		{"0.0.0.0/0", "8.8.8.8 0.0.0.0 255.255.255.255 ::ffff:8.8.8.8", "2606:4700::1 :: ::8.8.8.8"},
		{"::/0", "2606:4700::1 :: ::1 fe80::1%eth0", "8.8.8.8 ::ffff:8.8.8.8"},
		{"fe80::/10", "fe80::1 fe80::1%eth0 [febf::1%lo]", "fec0::1"},
		{"169.254.169.254", "169.254.169.254 2852039166", "169.254.169.253"},
		{"fd00:ec2::254", "fd00:ec2::254 [FD00:EC2::254]", "fd00:ec2::253"},
	}
	for _, test := range tests {
		p := newPolicy(nil, Rule{Name: "prefix", To: to(test.to)})
		for _, hosts := range []string{test.inside, test.outside} {
			for host := range strings.FieldsSeq(hosts) {
				target, err := socks.NewAddr(host, 80)
				if err != nil {
					t.Fatal(err)
				}
				want := "denied"
				if hosts == test.inside {
					want = "prefix: " + target.IP.String()
				}
				wantVerdict(t, p, newRequest(t, target.String(), ""), want)
			}
		}
	}
}

// What this machine's addresses are is asked of the system, and again after a while.
func TestOwnAddrs(t *testing.T) {
	local, err := server.LocalAddrs()
	if err != nil || len(local) == 0 {
		t.Fatalf("this machine has no address: %v", err)
	}
	stranger := netip.MustParseAddr("93.184.216.34")
	var own ownAddrs
	for range 2 {
		if slices.ContainsFunc(local, func(a netip.Addr) bool { return !own.has(a) }) || own.has(stranger) {
			t.Errorf("%v are this machine's, and %v is not", local, stranger)
		}
		// Long ago, it had another.
		own.known.Store(&ownSnapshot{addrs: []netip.Addr{stranger}, until: time.Now().Add(-time.Second)})
	}
}

// Where it cannot be known which addresses are this machine's, none is let in.
func TestOwnAddrsUnknown(t *testing.T) {
	p := newPolicy(nil, Rule{Name: "web"}, Rule{Name: "lan", To: to("private")})
	p.own.known.Store(&ownSnapshot{err: errors.New("no such file"), until: time.Now().Add(time.Hour)})
	wantVerdict(t, p, newRequest(t, "8.8.8.8:80", ""), "denied")
	wantVerdict(t, p, newRequest(t, "10.0.0.1:80", ""), "lan: 10.0.0.1")
}
