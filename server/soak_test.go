package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// The ways in which a session of the soak ends.
const (
	clientSaysFIN = iota
	clientCloses
	clientResets
	targetCloses
)

// soakWords is what a session says; the last byte is how it ends.
const soakWords = "sixteen bytes .?"

// soakTarget echoes one message and then waits for the end, or makes it.
func soakTarget(tb testing.TB, address string) string {
	tb.Helper()
	socket := listenTCP(tb, address)
	go func() {
		for {
			c, err := socket.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				said := make([]byte, len(soakWords))
				if _, err := io.ReadFull(c, said); err != nil {
					return
				}
				_, _ = c.Write(said) // the client misses what does not arrive
				if said[len(said)-1] != targetCloses {
					_, _ = c.Read(said) // the end, in some way
				}
			}()
		}
	}()
	return socket.Addr().String()
}

// soaker is a client that has one session after the other.
type soaker struct {
	testing.TB
	proxy, target, source string
}

func (s soaker) session(end int) error {
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
	said := append([]byte(soakWords[:len(soakWords)-1]), byte(end))
	if _, err := c.Write(append(proxytest.Connect4(netip.MustParseAddrPort(s.target), "bob"), said...)); err != nil {
		return err
	}
	got := make([]byte, 8+len(said))
	if _, err := io.ReadFull(c, got); err != nil || got[1] != 90 || !slices.Equal(got[8:], said) {
		return fmt.Errorf("heard % x, %w", got, err)
	}
	switch end {
	case clientSaysFIN:
		if err := c.CloseWrite(); err != nil {
			return err
		}
	case clientResets:
		proxytest.Reset(c)
		return nil
	case clientCloses:
		return nil
	}
	if n, err := c.Read(got); n > 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("%d bytes at the end, %w", n, err)
	}
	return nil
}
