package socks_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/socks"
)

// wantCanonical5 requires of a parser that it answers as the RFC has it (spec
// says with what, and how many bytes there are to a message), alike for every
// way in which the bytes can arrive, and that what it accepts is written back
// as it was.
func wantCanonical5[T interface {
	comparable
	appender
}](t *testing.T, b []byte, parse func([]byte) (T, int, error), spec func([]byte) (int, error)) T {
	t.Helper()
	whole := wantOneAnswer(t, b, 600, bare(parse))
	took, err := spec(b)
	if !errors.Is(whole.err, err) || whole.took != took {
		t.Fatalf("%d, %v; want %d, %v", whole.took, whole.err, took, err)
	}
	if whole.err != nil {
		var nothing T
		if whole.value != nothing {
			t.Fatalf("%+v beside %v", whole.value, whole.err)
		}
		return nothing
	}
	if wire := whole.value.Append([]byte("before")); !bytes.Equal(wire, append([]byte("before"), b[:took]...)) {
		t.Fatalf("not canonical: %x was parsed, %x appended", b[:took], wire)
	}
	return whole.value
}

// ended returns the end of a message, or ErrShort where it is not there yet.
func ended(b []byte, end int) (int, error) {
	if len(b) < end {
		return 0, socks.ErrShort
	}
	return end, nil
}

func FuzzGreeting5(f *testing.F) {
	for _, seed := range greetings5 {
		f.Add([]byte(seed.wire))
	}
	f.Add([]byte("\x05\x00"))
	f.Add([]byte("\x05\x02\x00"))
	f.Add([]byte("\x04\x01\x00\x50"))
	f.Fuzz(func(t *testing.T, b []byte) {
		g := wantCanonical5(t, b, socks.ParseGreeting5, specGreeting5)
		for method := range 256 {
			if g.Offers(socks.Method(method)) != bytes.Contains([]byte(g.Methods), []byte{byte(method)}) {
				t.Fatalf("%x offers %d: %v", g.Methods, method, g.Offers(socks.Method(method)))
			}
		}
	})
}

// specGreeting5: VER, NMETHODS, METHODS (RFC 1928, section 3).
func specGreeting5(b []byte) (int, error) {
	switch {
	case len(b) > 0 && b[0] != 5:
		return 0, socks.ErrVersion
	case len(b) < 2:
		return 0, socks.ErrShort
	case b[1] == 0:
		return 0, socks.ErrNoMethods
	}
	return ended(b, 2+int(b[1]))
}

func FuzzChoice5(f *testing.F) {
	for _, seed := range []string{"\x05\x00", "\x05\x02tail", "\x05\xff", "\x05", "\x01\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		wantCanonical5(t, b, socks.ParseChoice5, func(b []byte) (int, error) {
			if len(b) > 0 && b[0] != 5 {
				return 0, socks.ErrVersion
			}
			return ended(b, 2)
		})
	})
}

func FuzzLogin5(f *testing.F) {
	for _, seed := range logins5 {
		f.Add([]byte(seed.wire))
	}
	f.Add([]byte("\x01\x00\x01p"))
	f.Add([]byte("\x01\x03u\x00v\x01p"))
	f.Add([]byte("\x01\x01u\x00"))
	f.Add([]byte("\x05\x01u\x01p"))
	f.Fuzz(func(t *testing.T, b []byte) {
		wantCanonical5(t, b, socks.ParseLogin5, specLogin5)
	})
}

// specLogin5: VER, ULEN, UNAME, PLEN, PASSWD (RFC 1929, section 2); both have 1
// to 255 bytes, and none of them is NUL.
func specLogin5(b []byte) (int, error) {
	switch {
	case len(b) > 0 && b[0] != 1:
		return 0, socks.ErrVersion
	case len(b) < 2 || len(b) < 3+int(b[1]):
		return 0, socks.ErrShort
	}
	name, rest := b[2:2+int(b[1])], b[2+int(b[1]):]
	end, err := ended(b, 3+len(name)+int(rest[0]))
	if err != nil {
		return 0, err
	}
	password := rest[1 : 1+int(rest[0])]
	if len(name) == 0 || len(password) == 0 || bytes.Count(name, []byte{0})+bytes.Count(password, []byte{0}) > 0 {
		return 0, socks.ErrLogin
	}
	return end, nil
}

func FuzzLoginReply5(f *testing.F) {
	for _, seed := range []string{"\x01\x00", "\x01\x01tail", "\x05\x00", "\x01\xff", "\x01", "\x00\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := wantOneAnswer(t, b, 3, socks.ParseLoginReply5)
		took, err := ended(b, 2)
		if len(b) > 0 && b[0] != 1 && b[0] != 5 {
			took, err = 0, socks.ErrVersion
		}
		if want := (outcome[socks.LoginReply5]{socks.LoginReply5{Granted: err == nil && b[1] == 0}, took, err}); whole != want {
			t.Fatalf("%+v, want %+v", whole, want)
		}
		if err == nil && b[0] == 1 && b[1] <= 1 && !bytes.Equal(whole.value.Append(nil), b[:2]) {
			t.Fatalf("not canonical: %x", b[:2])
		}
	})
}

// specHost5: ATYP, address, port (RFC 1928, section 5) from b[3] on.
func specHost5(b []byte) (int, error) {
	if len(b) < 4 {
		return 0, socks.ErrShort
	}
	switch b[3] {
	case 1:
		return ended(b, 4+4+2)
	case 3:
		if len(b) < 5 {
			return 0, socks.ErrShort
		}
		return ended(b, 4+1+int(b[4])+2)
	case 4:
		return ended(b, 4+16+2)
	}
	return 0, socks.ErrAddressType
}

// specMessage5: VER, CMD or REP, RSV (RFC 1928, sections 4 and 6).
func specMessage5(b []byte) (int, error) {
	switch {
	case len(b) > 0 && b[0] != 5:
		return 0, socks.ErrVersion
	case len(b) > 2 && b[2] != 0:
		return 0, socks.ErrReserved
	}
	return specHost5(b)
}

// wantHost5 requires that an address is one thing, and its target canonical.
func wantHost5(t *testing.T, h socks.Host5) {
	t.Helper()
	if h.IP.IsValid() && (h.Name != "" || h.IP.Zone() != "") || len(h.Name) > 255 {
		t.Fatalf("out of bounds: %+v", h)
	}
	a, err := h.Addr()
	if err != nil {
		if h.IP.IsValid() || !errors.Is(err, socks.ErrHost) {
			t.Fatalf("%+v is no target: %v", h, err)
		}
		return
	}
	wantCanonical(t, a)
	if h.IP.IsValid() {
		again := socks.NewHost5(netip.AddrPortFrom(h.IP, h.Port))
		if same, err := again.Addr(); err != nil || same != a {
			t.Fatalf("%+v is %v, and %+v is %v, %v", h, a, again, same, err)
		}
	}
}

func FuzzRequest5(f *testing.F) {
	for _, seed := range requests5() {
		f.Add([]byte(seed.wire))
	}
	f.Add([]byte("\x05\x01\x01\x01\x01\x02\x03\x04\x00\x50"))
	f.Add([]byte("\x05\x01\x00\x05\x01"))
	f.Add([]byte("\x04\x01\x00\x05\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := wantCanonical5(t, b, socks.ParseRequest5, specMessage5)
		wantHost5(t, r.Host)
	})
}

func FuzzReply5(f *testing.F) {
	for _, seed := range replies5() {
		f.Add([]byte(seed.wire))
	}
	f.Add([]byte("\x05\x00\x01\x01\x01\x02\x03\x04\x00\x50"))
	f.Add([]byte("\x00\x5a\x00\x50\x01\x02\x03\x04"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := wantCanonical5(t, b, socks.ParseReply5, specMessage5)
		wantHost5(t, r.Host)
	})
}

func FuzzDatagram5(f *testing.F) {
	for _, seed := range datagrams5() {
		f.Add([]byte(seed.wire + "payload"))
	}
	f.Add([]byte("\x00\x01\x00\x01\x01\x02\x03\x04\x00\x50"))
	f.Add([]byte("\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := wantCanonical5(t, b, socks.ParseDatagram5, func(b []byte) (int, error) {
			if len(b) > 2 && (b[0] != 0 || b[1] != 0) {
				return 0, socks.ErrReserved
			}
			return specHost5(b)
		})
		wantHost5(t, d.Host)
	})
}
