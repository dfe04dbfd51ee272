//go:build linux

package main_test

import (
	"context"
	"errors"
	"net"
	"os/user"
	"testing"

	"github.com/sallyport/sallyport/client"
)

// TestOidentd asks Debian's ident daemon who the client is: the name that it
// gives is served (90), another is told so (93), and so is the lack of a daemon (92).
func TestOidentd(t *testing.T) {
	paperSlow(t)
	t.Parallel()
	o := newOffice(t, `
log: {format: json}
rules: {allow: by ident, from: 10.1.0.0/24, users: any, proof: ident, to: any}
`)
	target := net.JoinHostPort(officeOutside, o.mirror(t))
	conf := writeFile(t, "oidentd.conf", []byte("default { default { deny spoof } }\n"))
	stop := background(t, o.inside, officeInside+":113", "oidentd", "--foreground", "--nosyslog", "--config", conf)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}

	c, err := o.dialAs(t, me.Username, target)
	if err != nil {
		t.Fatalf("the daemon knows us as %s: %v", me.Username, err)
	}
	c.Close()
	o.session(t, paperSession{Command: "connect", User: me.Username, Proof: "ident", Reason: "closed"})

	if _, err := o.dialAs(t, "somebody", target); !errors.Is(err, client.ErrOtherUser) {
		t.Errorf("with another name than the daemon's: %v, want 93", err)
	}
	o.session(t, paperSession{Command: "connect", User: "somebody", Reason: "other-user"})

	stop()
	if _, err := o.dialAs(t, me.Username, target); !errors.Is(err, client.ErrNoIdentd) {
		t.Errorf("without the daemon: %v, want 92", err)
	}
	o.session(t, paperSession{Command: "connect", User: me.Username, Reason: "no-identd"})
}

// dialAs connects to the target from inside, under a name.
func (o *office) dialAs(t *testing.T, name, target string) (net.Conn, error) {
	t.Helper()
	d, err := client.New("socks4://"+name+"@"+officeProxy, client.WithForward(insideDialer{o.inside}))
	if err != nil {
		t.Fatal(err)
	}
	return d.DialContext(t.Context(), "tcp", target)
}

// insideDialer dials inside a network.
type insideDialer struct{ net *paperNet }

func (d insideDialer) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	var dialer net.Dialer
	d.net.do(func() { c, err = dialer.DialContext(ctx, network, address) })
	return c, err
}
