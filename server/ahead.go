package server

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// aheadLimit is how much a client may send before there is somebody to send it
// to. Past it, it is not read: TCP holds the client back.
const aheadLimit = 64 << 10

// ahead reads what a client sends while its target is being reached, and
// notices when the client leaves. It does not own the connection.
type ahead struct {
	conn  net.Conn
	head  []byte      // starts with what the handshake had read
	start *time.Timer // begins the reading, in a goroutine of its own
	quit  chan struct{}
	done  chan struct{} // closed when a reading that was begun has ended
}

// aheadDelay is how long a client of CONNECT is left alone before it is read:
// most targets have answered by then, and no goroutine was started for nothing.
const aheadDelay = 10 * time.Millisecond

// readAhead starts reading. gone is called, at most once, when the client
// leaves: with ClientReset, or, where endIsGone, with ClientGone at its FIN. A
// client of CONNECT may have said all it has to say and still wait for the
// answer; one of BIND has nothing to wait for once it has closed, and waits long.
func readAhead(c net.Conn, head []byte, endIsGone bool, gone context.CancelCauseFunc) *ahead {
	delay := aheadDelay
	if endIsGone {
		delay = 0
	}
	a := &ahead{conn: c, head: head, quit: make(chan struct{}), done: make(chan struct{})}
	a.start = time.AfterFunc(delay, func() {
		defer close(a.done)
		err := a.read()
		if err == nil {
			err = a.watch()
		}
		switch {
		case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
		case !errors.Is(err, io.EOF):
			gone(ClientReset)
		case endIsGone:
			gone(ClientGone)
		}
	})
	return a
}

// read returns nil at the limit, else the error that ended it.
func (a *ahead) read() error {
	buf := make([]byte, 512)
	for len(a.head) < aheadLimit {
		n, err := a.conn.Read(buf[:min(len(buf), aheadLimit-len(a.head))])
		a.head = append(a.head, buf[:n]...)
		if err != nil {
			return err
		}
		if n == len(buf) && n < aheadLimit/4 {
			buf = make([]byte, 4*n)
		}
	}
	return nil
}

// watchEvery is how often a client is looked after that is no longer read.
const watchEvery = time.Second

// watch waits for the end of a client that has sent all it may for now, and
// returns it as read would: io.EOF, an error, or nil when stop was called.
func (a *ahead) watch() error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-a.quit:
			return nil
		case <-tick.C:
			if err := a.hangUp(); err != nil {
				return err
			}
		}
	}
}

func (a *ahead) hangUp() error {
	if c, ok := a.conn.(interface{ PendingError() error }); ok {
		return c.PendingError()
	}
	return hangUp(a.conn)
}

// stop ends the reading and returns all that the client has sent. The
// connection can be read again afterwards.
func (a *ahead) stop() []byte {
	if a.start.Stop() {
		return a.head // nobody has begun
	}
	close(a.quit)
	_ = a.conn.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection: nothing waits then
	<-a.done
	_ = a.conn.SetReadDeadline(time.Time{})
	return a.head
}
