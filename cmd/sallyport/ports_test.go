//go:build linux

package main_test

import (
	"fmt"
	"os"
	"testing"
)

// TestPortsByTarget: an address has each of its ports for each target, and not for one of them all, be it that of a rule's
// outgoing or the one by which identd is asked.
func TestPortsByTarget(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	n := newPaperNet(t)
	s := startPaper(t, paperSetup{net: n, listen: "127.0.0.1:1080", settings: `
log: {format: json}
rules: {allow: by ident, from: loopback, users: any, proof: ident, to: any, outgoing: 127.0.0.5}
`})
	var err error
	n.do(func() { err = os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40003"), 0) })
	if err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		echo := paperEcho(t, n, fmt.Sprintf("127.0.0.1:%d", 5000+i))
		from := fmt.Sprintf("127.0.7.%d", 1+i)
		paperIdent(t, n, from, paperNames("alice"))
		client := s.dial(t, from)
		client.sends(paperAsk(paperCONNECT, echo, "alice"))
		client.granted()
		client.echoes()
		defer client.leaves()
	}
}
