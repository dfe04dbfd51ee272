package socks_test

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/socks"
)

// outcome is everything that a parser answers.
type outcome[T comparable] struct {
	value T
	took  int
	err   error
}

// wantOneAnswer requires of a parser that it answers alike for every way in
// which the bytes can arrive: ErrShort up to some byte, and from there on the
// same answer, whatever follows. It returns the answer to the whole. No cut
// after the first bound bytes is tried.
func wantOneAnswer[T comparable](t *testing.T, b []byte, bound int, parse func([]byte) (T, int, error)) outcome[T] {
	t.Helper()
	at := func(cut int) outcome[T] {
		value, took, err := parse(b[:cut:cut])
		return outcome[T]{value, took, err}
	}
	before, whole := bytes.Clone(b), at(len(b))
	decided := false
	for cut := range min(len(b), bound) + 1 {
		got := at(cut)
		short := got == outcome[T]{err: socks.ErrShort}
		if decided = decided || !short; decided && got != whole {
			t.Fatalf("cut at %d of %d: %+v; the whole: %+v", cut, len(b), got, whole)
		}
		if whole.err == nil && short != (cut < whole.took) {
			t.Fatalf("cut at %d of a message of %d bytes: %+v", cut, whole.took, got)
		}
	}
	if value, took, err := parse(slices.Concat(b, b, []byte{0})); !errors.Is(whole.err, socks.ErrShort) && whole != (outcome[T]{value, took, err}) {
		t.Fatalf("with a tail: %+v, %d, %v; without: %+v", value, took, err, whole)
	}
	if !bytes.Equal(b, before) {
		t.Fatalf("the parser wrote into its input: %q was %q", b, before)
	}
	return whole
}

func FuzzRequest4(f *testing.F) {
	for _, seed := range requests4 {
		f.Add([]byte(seed.in), uint16(255))
		f.Add([]byte(seed.in+"tail"), uint16(4))
		f.Add([]byte(seed.in[:len(seed.in)-1]), uint16(1024))
	}
	f.Add([]byte("\x04\x01\x00\x50\x01\x02\x03\x04fred\x00"), uint16(3))
	f.Add([]byte("\x04\x01\x00\x50\x00\x00\x00\x01fred\x00\x00"), uint16(255))
	f.Add([]byte("\x04\x01\x00\x50\x00\x00\x00\x01\x00"+strings.Repeat("h", 256)+"\x00"), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, limit uint16) {
		maxUserID := int(limit) % (socks.MaxUserID + 1)
		longest := 8 + maxUserID + 1 + socks.MaxHost + 1
		whole := wantOneAnswer(t, b, longest+1, func(b []byte) (socks.Request4, int, error) { return socks.ParseRequest4(b, maxUserID) })
		if want := specRequest4(b, maxUserID); !errors.Is(whole.err, want) {
			t.Fatalf("%v, want %v", whole.err, want)
		}
		if errors.Is(whole.err, socks.ErrShort) && len(b) >= longest {
			t.Fatalf("wants more than the %d bytes of the longest request", len(b))
		}
		if whole.err != nil {
			return
		}
		r := whole.value
		if strings.Contains(r.UserID+r.Host, "\x00") || len(r.UserID) > maxUserID || len(r.Host) > socks.MaxHost || r.Is4a() != (r.Host != "") {
			t.Fatalf("out of bounds: %+v", r)
		}
		if wire := r.Append([]byte("before")); !bytes.Equal(wire, append([]byte("before"), b[:whole.took]...)) {
			t.Fatalf("not canonical: %q was parsed, %q appended", b[:whole.took], wire)
		}
	})
}

// specRequest4 says by the paper and the bounds alone what must become of b.
func specRequest4(b []byte, maxUserID int) error {
	if len(b) > 0 && b[0] != 4 {
		return socks.ErrVersion
	}
	if len(b) < 8 {
		return socks.ErrShort
	}
	userid, host, ended := strings.Cut(string(b[8:]), "\x00")
	if len(userid) > maxUserID {
		return socks.ErrUserIDLength
	}
	named := strings.HasPrefix(string(b[4:8]), "\x00\x00\x00") && b[7] != 0
	if !ended || !named {
		return map[bool]error{false: socks.ErrShort}[ended]
	}
	host, _, ended = strings.Cut(host, "\x00")
	if len(host) > 255 || (ended && host == "") {
		return socks.ErrHostLength
	}
	return map[bool]error{false: socks.ErrShort}[ended]
}

func FuzzReply4(f *testing.F) {
	f.Add([]byte("\x00\x5a\x04\x38\xc6\x33\x64\x07"))
	f.Add([]byte("\x04\x5b\x00\x00\x00\x00\x00\x00tail"))
	f.Add([]byte("\x05\x5c"))
	f.Add([]byte("\x00\x5d\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := wantOneAnswer(t, b, 9, socks.ParseReply4)
		var want error
		switch {
		case len(b) > 0 && b[0] != 0 && b[0] != 4:
			want = socks.ErrVersion
		case len(b) < 8:
			want = socks.ErrShort
		}
		if !errors.Is(whole.err, want) {
			t.Fatalf("%v, want %v", whole.err, want)
		}
		if whole.err != nil {
			return
		}
		r := whole.value
		if whole.took != 8 || !r.IP.Is4() || !bytes.Equal(r.Append(nil), b[:8]) {
			t.Fatalf("not canonical: %+v from %x", whole, b[:8])
		}
		if r.Version != 0 {
			return
		}
		if made := socks.NewReply4(r.Code, netip.AddrPortFrom(r.IP, r.Port)); made != r {
			t.Fatalf("NewReply4 made %+v, want %+v", made, r)
		}
	})
}

func FuzzAddr(f *testing.F) {
	for _, seed := range spellings {
		f.Add(seed.host, uint16(80))
	}
	f.Add("[::1]:80", uint16(0))
	f.Add("example.com:65536", uint16(0))
	f.Fuzz(func(t *testing.T, host string, port uint16) {
		if a, err := socks.ParseAddr(host); err == nil {
			wantCanonical(t, a)
		} else if !errors.Is(err, socks.ErrHost) {
			t.Fatalf("ParseAddr fails with %v", err)
		}
		a, err := socks.NewAddr(host, port)
		if err != nil {
			if !errors.Is(err, socks.ErrHost) || a != (socks.Addr{}) {
				t.Fatalf("%v, %v; want nothing and ErrHost", a, err)
			}
			return
		}
		wantCanonical(t, a)
		wantWellSpelled(t, host, a)
		if upper, err := socks.NewAddr(strings.ToUpper(host), port); err != nil || upper != a {
			t.Fatalf("in capitals: %v, %v; want %v", upper, err, a)
		}
		if dotted, err := socks.NewAddr(host+".", port); err == nil && dotted != a {
			t.Fatalf("with a dot: %v, want %v", dotted, a)
		}
		if inner, err := socks.NewAddr("["+host+"]", port); err == nil && inner != a {
			t.Fatalf("in brackets: %v, want %v", inner, a)
		}
	})
}

// wantWellSpelled requires that what was taken for a name can be one, and that
// what some resolver would take for an address was not.
func wantWellSpelled(t *testing.T, host string, a socks.Addr) {
	t.Helper()
	ip, isAddress := atonIP(host)
	if isAddress && (a.IP != ip || a.Name != "") {
		t.Fatalf("%q is %v to inet_aton, and became %v", host, ip, a)
	}
	if a.Name == "" {
		if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil && !isAddress {
			t.Fatalf("%q is no address, and became %v", host, a)
		}
		return
	}
	if _, err := netip.ParseAddr(a.Name); err == nil || !strings.EqualFold(a.Name, strings.TrimSuffix(host, ".")) {
		t.Fatalf("%q became the name %q", host, a.Name)
	}
	if len(a.Name) > 253 || strings.Trim(a.Name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		t.Fatalf("%q became the name %q", host, a.Name)
	}
	for label := range strings.SplitSeq(a.Name, ".") {
		if len(label) == 0 || len(label) > 63 {
			t.Fatalf("%q became the name %q with the label %q", host, a.Name, label)
		}
	}
}

// atonIP reads an address as the C library does: up to four numbers, the last
// of which fills the rest.
func atonIP(host string) (netip.Addr, bool) {
	parts := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var ip [4]byte
	for i, part := range parts {
		if part == "0x" || part == "0X" {
			part = "0" // as browsers read it
		}
		isHex := strings.HasPrefix(strings.ToLower(part), "0x")
		n, err := strconv.ParseUint(part, 0, 32) // which also takes 0b1, 0o7 and 1_0
		last := i == len(parts)-1
		if err != nil || strings.Contains(part, "_") || !isHex && strings.ContainsAny(part, "oObB") || !last && n > 255 || n>>(8*(4-i)) != 0 {
			return netip.Addr{}, false
		}
		if !last {
			ip[i] = byte(n)
			continue
		}
		for at := 3; at >= i; at-- {
			ip[at] = byte(n)
			n >>= 8
		}
	}
	return netip.AddrFrom4(ip), true
}
