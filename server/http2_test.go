//go:build unix

package server

import (
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
)

func TestInboundHTTP2(t *testing.T) {
	ca := newAuthority(t)
	terms := ca.server(t)
	proxytest.Inbound(t, proxytest.HTTP2(), func(tb testing.TB, allow func(netip.AddrPort) bool) func() proxytest.Stream {
		tb.Helper()
		r := onLoopback(tb, &Server{Policy: allowing(allow)}, Listener{TLS: terms})
		return func() proxytest.Stream { return proxytest.OverHTTP2(dialTLS(tb, r.address, ca.client())) }
	})
}
