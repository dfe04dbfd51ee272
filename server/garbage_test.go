//go:build unix

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// openings are whole and good, one for each protocol, and all want the target.
func openings(target netip.AddrPort) [][]byte {
	record := append([]byte{22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3}, make([]byte, 194)...) // as a ClientHello begins
	get := fmt.Appendf(nil, "POST http://%s/ HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n0\r\n\r\n", target, target)
	all := [][]byte{record, get}
	for _, p := range []proxytest.Protocol{
		proxytest.SOCKS4("bob"), proxytest.SOCKS4a("bob"), proxytest.SOCKS5("", ""), proxytest.SOCKS5("fred", "secret"), proxytest.HTTP(""),
	} {
		all = append(all, p.Opening(target))
	}
	return all
}

// litter makes garbage: by turns noise with every first byte, an opening that
// breaks off, one with a wrong byte, and one with noise behind a part of it.
func litter(i int, rnd *rand.Rand, openings [][]byte) []byte {
	noise := make([]byte, 1+rnd.IntN(400))
	for j := range noise {
		noise[j] = byte(rnd.Uint32())
	}
	opening := slices.Clone(openings[i/4%len(openings)])
	cut := 1 + rnd.IntN(len(opening)-1)
	switch i % 4 {
	case 0:
		noise[0] = byte(i / 4)
		return noise
	case 1:
		return opening[:cut]
	case 2:
		opening[cut] ^= byte(1 + rnd.IntN(255))
		return opening
	default:
		return append(opening[:cut], noise...)
	}
}

// throw is a client that says b, and then ends in one of three ways.
func (s soaker) throw(b []byte, way int) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(s.source)}}
	conn, err := d.DialContext(s.Context(), "tcp", s.proxy)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := conn.(*net.TCPConn)
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	switch way {
	case 0:
		_ = c.CloseWrite() // the server may have ended it; what is read tells
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("no end comes: %w", err)
		}
	case 1:
		proxytest.Reset(c)
	}
	return nil
}

// litters throws so many pieces of garbage, from the kind first on, with a good
// session behind each twentieth.
func (s soaker) litters(first, pieces int, rnd *rand.Rand, openings [][]byte) error {
	for i := range pieces {
		if err := s.throw(litter(first+i, rnd, openings), i/7%3); err != nil {
			return fmt.Errorf("garbage %d: %w", i, err)
		}
		if i%20 > 0 {
			continue
		}
		if err := s.session(i / 20 % 4); err != nil {
			return fmt.Errorf("a good client behind garbage %d: %w", i, err)
		}
	}
	return nil
}

// TestGarbage: 10,000 clients that talk nonsense leave as many goroutines,
// descriptors and bytes as there were, and good clients are served among them.
func TestGarbage(t *testing.T) {
	needs(t, 1000)
	const workers, clients, warmUp = 16, 10_000, 800
	target := soakTarget(t, "127.0.0.2:0")
	r := onLoopback(t, &Server{
		Authenticator: door{login: LoginOptional},
		Recorder:      &counting{},
		Policy: deciding(func(ctx context.Context, r *Request) (Grant, error) {
			if r.Command != socks.Connect || netip.AddrPortFrom(r.Target.IP, r.Target.Port).String() != target {
				return Grant{}, Denied
			}
			return anything(ctx, r)
		}),
	}, Listener{TLS: newAuthority(t).server(t)})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	all := openings(netip.MustParseAddrPort(target))
	run := func(total int) {
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				s := soaker{t, r.address, target, fmt.Sprintf("127.0.1.%d", 1+w)}
				if err := s.litters(w*4*256/workers, total/workers, rand.New(rand.NewPCG(seed, uint64(w))), all); err != nil {
					t.Errorf("worker %d: %v", w, err)
				}
			})
		}
		wg.Wait()
	}
	run(warmUp)
	proxytest.Eventually(t, "the first clients are gone", func() bool { return r.server.state.open.Load() == 0 })
	before := takeVitals(t)
	run(clients)
	var after vitals
	proxytest.Eventually(t, "goroutines, descriptors and memory are what they were", func() bool {
		after = takeVitals(t)
		return after.goroutines <= before.goroutines && after.descriptors <= before.descriptors && after.heap <= before.heap+2<<20
	})
	t.Logf("before %+v, after %+v", before, after)
}
