package server

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// piece is a datagram with a FRAG field, and what is whole after it: "-" nothing.
type piece struct {
	frag    byte
	payload string
	want    string
}

// TestFragments are the rules of RFC 1928, section 7, and what follows from them.
func TestFragments(t *testing.T) {
	for _, test := range []struct {
		name   string
		pieces []piece
	}{
		{"a whole one", []piece{{0, "a", "a"}}},
		{"an empty whole one", []piece{{0, "", ""}}},
		{"a sequence", []piece{{1, "a", "-"}, {2, "b", "-"}, {0x83, "c", "abc"}}},
		{"a sequence of one", []piece{{0x81, "a", "a"}}},
		{"two sequences", []piece{{1, "a", "-"}, {0x82, "b", "ab"}, {1, "c", "-"}, {0x82, "d", "cd"}}},
		{"empty fragments", []piece{{1, "", "-"}, {2, "", "-"}, {0x83, "", ""}}},
		{"a lower number abandons", []piece{{1, "a", "-"}, {2, "b", "-"}, {1, "c", "-"}, {0x82, "d", "cd"}}},
		{"a lower number that begins nothing", []piece{{1, "a", "-"}, {2, "b", "-"}, {3, "c", "-"}, {2, "d", "-"}, {0x84, "e", "-"}}},
		{"a whole one abandons", []piece{{1, "a", "-"}, {0, "w", "w"}, {0x82, "b", "-"}}},
		{"a gap", []piece{{1, "a", "-"}, {0x83, "c", "-"}, {0x82, "b", "-"}}},
		{"no beginning", []piece{{0x82, "b", "-"}, {3, "c", "-"}, {0x84, "d", "-"}}},
		{"the end's number is 0", []piece{{1, "a", "-"}, {0x80, "b", "-"}, {0x82, "c", "-"}}},
		{"a duplicate", []piece{{1, "a", "-"}, {2, "b", "-"}, {2, "b", "-"}, {0x83, "c", "abc"}}},
		{"a duplicate of the first", []piece{{1, "a", "-"}, {1, "a", "-"}, {0x82, "b", "ab"}}},
		{"another first", []piece{{1, "a", "-"}, {1, "c", "-"}, {0x82, "b", "cb"}}},
		{"the same number, another text", []piece{{1, "a", "-"}, {2, "b", "-"}, {2, "x", "-"}, {0x83, "c", "-"}}},
		{"the same number ends", []piece{{1, "a", "-"}, {2, "b", "-"}, {0x82, "x", "-"}, {0x83, "c", "-"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var f fragments
			for i, p := range test.pieces {
				whole, ok := f.add(p.frag, socks.Addr{}, []byte(p.payload), time.Unix(int64(i), 0))
				if got := string(whole); ok != (p.want != "-") || ok && got != p.want {
					t.Errorf("piece %d (%#x): %q, %v; want %q", i, p.frag, got, ok, p.want)
				}
			}
		})
	}
}

// TestFragmentsTimer: a sequence has five seconds from its first fragment on.
func TestFragmentsTimer(t *testing.T) {
	start := time.Unix(100, 0)
	for _, test := range []struct {
		after time.Duration
		want  bool
	}{{fragmentTime - 1, true}, {fragmentTime, false}} {
		var f fragments
		f.add(1, socks.Addr{}, []byte("a"), start)
		f.add(2, socks.Addr{}, []byte("b"), start.Add(test.after/2))
		if _, ok := f.add(0x83, socks.Addr{}, []byte("c"), start.Add(test.after)); ok != test.want {
			t.Errorf("after %v: whole %v, want %v", test.after, ok, test.want)
		}
	}
}

// TestFragmentsTarget: what is for two targets is never put together.
func TestFragmentsTarget(t *testing.T) {
	one := socks.FromIP(netip.MustParseAddrPort("192.0.2.1:53"))
	other := socks.FromIP(netip.MustParseAddrPort("192.0.2.1:54"))
	var f fragments
	f.add(1, one, []byte("a"), time.Time{})
	if _, ok := f.add(0x82, other, []byte("b"), time.Time{}); ok {
		t.Error("fragments for two targets were put together")
	}
	if _, ok := f.add(0x82, one, []byte("b"), time.Time{}); ok {
		t.Error("the sequence went on after a fragment for another target")
	}
}

// TestFragmentsAreBounded: nothing is kept that could not be sent.
func TestFragmentsAreBounded(t *testing.T) {
	var f fragments
	half := []byte(strings.Repeat("x", maxPayload/2))
	f.add(1, socks.Addr{}, half, time.Time{})
	f.add(2, socks.Addr{}, half, time.Time{})
	if whole, ok := f.add(0x83, socks.Addr{}, []byte("y"), time.Time{}); !ok || len(whole) != maxPayload {
		t.Errorf("the longest payload: %d bytes, %v", len(whole), ok)
	}
	f.add(1, socks.Addr{}, half, time.Time{})
	f.add(2, socks.Addr{}, half, time.Time{})
	if _, ok := f.add(0x83, socks.Addr{}, []byte("yz"), time.Time{}); ok || f.queue != nil {
		t.Errorf("one byte more: whole %v, %d bytes kept", ok, len(f.queue))
	}
}

// model says what a run of fragments is: numbered 1, 2 and so on, the last one
// marked, nothing else between them.
type model struct {
	highest byte
	run     []byte
}

func (m *model) add(frag byte, payload []byte) (whole []byte, ok bool) {
	number := frag & 0x7f
	if frag == 0 || number == 1 || number != m.highest+1 {
		*m = model{}
	}
	switch {
	case frag == 0:
		return payload, true
	case number != m.highest+1:
		return nil, false
	}
	m.highest, m.run = number, append(bytes.Clone(m.run), payload...)
	if frag < 0x80 {
		return nil, false
	}
	whole = m.run
	*m = model{}
	return whole, true
}

// FuzzFragments checks that what comes out is a run of fragments as they came in.
// Each byte of the input is a FRAG field; its place is its payload, so that none
// is another's duplicate.
func FuzzFragments(f *testing.F) {
	f.Add([]byte{0, 1, 2, 0x83, 1, 0x82, 0x81, 2, 0x80})
	f.Add([]byte{1, 3, 2, 0x81, 1, 2, 0, 3})
	f.Fuzz(func(t *testing.T, frags []byte) {
		var queue fragments
		var m model
		for i, frag := range frags[:min(len(frags), 256)] {
			payload := bytes.Repeat([]byte{byte(i)}, i%7+1)
			want, whole := m.add(frag, payload)
			got, ok := queue.add(frag, socks.Addr{}, payload, time.Time{})
			if ok != whole || !bytes.Equal(got, want) {
				t.Fatalf("% x, at %d: %x, %v; want %x, %v", frags, i, got, ok, want, whole)
			}
			if len(queue.queue) > maxPayload || len(queue.queue) > 0 && queue.highest == 0 {
				t.Fatalf("%d bytes kept", len(queue.queue))
			}
		}
	})
}
