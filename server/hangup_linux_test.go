package server

import (
	"bytes"
	"net"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestClientLeavesBehindAFlood: a client that has sent all that is kept, and
// more, is not read any more; that it leaves is noticed all the same.
func TestClientLeavesBehindAFlood(t *testing.T) {
	for _, test := range []struct {
		name   string
		leave  func(*net.TCPConn)
		reason Reason
	}{
		{"FIN", func(c *net.TCPConn) { c.CloseWrite() }, ClientGone},
		{"RST", func(c *net.TCPConn) { proxytest.Reset(c) }, ClientReset},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := onLoopback(t, &Server{Policy: freely}, Listener{})
			c := proxytest.Dial(t, r.address)
			proxytest.Say(t, c, proxytest.Bind4(proxytest.Nowhere(t), "bob"))
			at := proxytest.Granted4(t, c)
			proxytest.Say(t, c, bytes.Repeat([]byte("x"), aheadLimit+1000))
			test.leave(c)
			r.next(test.reason)
			proxytest.Eventually(t, "the waiting port is closed", func() bool {
				peer, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", at.String())
				if err == nil {
					peer.Close()
				}
				return err != nil
			})
		})
	}
}
