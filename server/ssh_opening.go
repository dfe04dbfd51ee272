package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// sshOpening is the handshake of SSH: its greeting, which is told from a method of
// HTTP where that is spoken, too.
type sshOpening struct{ *exchange }

func (o sshOpening) feed(arrived []byte) (int, step) {
	n := min(len(arrived), len(sshGreeting))
	switch {
	case string(arrived[:n]) == sshGreeting[:n] && n < len(sshGreeting):
		return 0, step{}
	case n == len(sshGreeting) && string(arrived[:n]) == sshGreeting:
		o.session.Protocol = SSH
		return 0, step{stream: serveSSH}
	case o.greeted || !o.listener.speaks(HTTP):
		return 0, step{refusal: fmt.Errorf("%w: it begins with %q", Garbage, strings.ToValidUTF8(string(arrived[:n]), "?"))}
	}
	return httpOpening{secure: o.session.TLS}.feed(arrived)
}

// mayGreet reports whether a client that says nothing is greeted as one of SSH.
func (d *driver) mayGreet() bool {
	return d.listener.speaks(SSH) && !d.greeted && d.headed && len(d.buf) == 0 && d.handshake == nil &&
		(!d.listener.TLSOnly || d.session.TLS)
}

// greetSilent waits for more bytes. A client that says nothing for a while is
// greeted, once, and has to speak SSH then: some wait for that.
func (d *driver) greetSilent(ctx context.Context) error {
	_ = d.conn.SetReadDeadline(time.Now().Add(sshSilence)) // if this fails, so does the read
	if ctx.Err() != nil {                                  // only now: the end sets a deadline, too
		return context.Cause(ctx)
	}
	n, err := d.conn.Read(d.buf[:cap(d.buf)])
	silent := errors.Is(err, os.ErrDeadlineExceeded)
	if n == 0 && !silent {
		return err
	}
	_ = d.conn.SetReadDeadline(time.Time{})
	if d.buf = d.buf[:n]; ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if n > 0 {
		return nil
	}
	d.greeted = true
	_, err = d.conn.Write([]byte(sshVersion + "\r\n"))
	return err
}
