package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/internal/relay"
)

func TestReasonOf(t *testing.T) {
	op := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	for _, test := range []struct {
		err  error
		want Reason
	}{
		{nil, Closed},
		{Denied, Denied},
		{fmt.Errorf("%w: by the rule %q", Denied, "x"), Denied},
		{fmt.Errorf("%w: %w", OtherUser, syscall.ECONNREFUSED), OtherUser},
		{fmt.Errorf("%w: %w", syscall.ECONNREFUSED, Busy), Busy},
		{errors.Join(errors.New("beside it"), WrongPeer), WrongPeer},
		{relay.ErrIdle, Idle},
		{relay.ErrHalfClosed, HalfClosed},
		{fmt.Errorf("%w: %w", relay.ErrClientReset, syscall.ECONNRESET), ClientReset},
		{fmt.Errorf("%w: %w", relay.ErrTargetReset, syscall.ECONNRESET), TargetReset},
		{fmt.Errorf("%w: %w", relay.ErrTargetReset, syscall.ETIMEDOUT), TargetReset},
		{op(syscall.ECONNREFUSED), Refused},
		{op(syscall.ECONNRESET), Refused},
		{op(syscall.EHOSTUNREACH), Unreachable},
		{op(syscall.ENETUNREACH), Unreachable},
		{op(syscall.EHOSTDOWN), Unreachable},
		{op(syscall.ENETDOWN), Unreachable},
		{op(syscall.EADDRNOTAVAIL), Unreachable},
		{op(syscall.EACCES), Unreachable},
		{op(syscall.EPERM), Unreachable},
		{fs.ErrPermission, Unreachable},
		{op(syscall.ETIMEDOUT), TimedOut},
		{op(context.DeadlineExceeded), TimedOut},
		{os.ErrDeadlineExceeded, TimedOut},
		{op(syscall.EMFILE), Failed},
		{op(syscall.ENOBUFS), Failed},
		{&net.DNSError{IsNotFound: true}, NoName},
		{&net.DNSError{IsTemporary: true}, NoName},
		{fmt.Errorf("look-up: %w", &net.DNSError{IsTimeout: true}), TimedOut},
		{context.Canceled, Shutdown},
		{errors.New("denied"), Failed}, // the words of an error mean nothing
	} {
		if got := ReasonOf(test.err); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}

// TestEndsOfASession: what ended it is what is recorded, once, and how the far
// ends learn of it.
func TestEndsOfASession(t *testing.T) {
	for _, test := range []struct {
		name       string
		end        func(client, far *proxytest.Conn)
		want       Reason
		after      time.Duration
		clientSees error
		targetSees error
	}{
		{"both say FIN", func(c, f *proxytest.Conn) { _ = c.CloseWrite(); _ = f.CloseWrite() }, Closed, 0, nil, nil},
		{"client resets", func(c, _ *proxytest.Conn) { proxytest.Reset(c) }, ClientReset, 0, net.ErrClosed, syscall.ECONNRESET},
		{"target resets", func(_, f *proxytest.Conn) { proxytest.Reset(f) }, TargetReset, 0, syscall.ECONNRESET, net.ErrClosed},
		{"silence", func(_, _ *proxytest.Conn) {}, Idle, 24 * time.Hour, syscall.ECONNRESET, syscall.ECONNRESET},
		{"silence after the client's FIN", func(c, _ *proxytest.Conn) { _ = c.CloseWrite() }, HalfClosed, 10 * time.Minute, syscall.ECONNRESET, syscall.ECONNRESET},
		{"silence after the target's FIN", func(_, f *proxytest.Conn) { _ = f.CloseWrite() }, HalfClosed, 10 * time.Minute, syscall.ECONNRESET, syscall.ECONNRESET},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{})
				client, far := r.relayed(r.network.MustListen(targetAt.String()))
				proxytest.Say(t, client, []byte("four"))
				proxytest.Hear(t, far, "four")
				start := time.Now()
				test.end(client, far)
				e := r.next(test.want)
				if took := time.Since(start); took != test.after || e.Up() != 4 || e.Down() != 0 {
					t.Errorf("after %v, %d up, %d down; want %v, 4, 0", took, e.Up(), e.Down(), test.after)
				}
				if _, err := proxytest.End(client); !errors.Is(err, test.clientSees) {
					t.Errorf("the client sees %v, want %v", err, test.clientSees)
				}
				if _, err := proxytest.End(far); !errors.Is(err, test.targetSees) {
					t.Errorf("the target sees %v, want %v", err, test.targetSees)
				}
			})
		})
	}
}

// TestMetersAreLive: what a session moved can be read while it goes on.
func TestMetersAreLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened := make(chan *Session, 1)
		r := inMemory(t, &Server{Policy: deciding(anything), Recorder: watching(opened)}, Listener{})
		client, far := r.relayed(r.network.MustListen(targetAt.String()))
		s := <-opened
		proxytest.Say(t, client, make([]byte, 1000))
		proxytest.Say(t, far, make([]byte, 10))
		synctest.Wait()
		if s.Up() != 1000 || s.Down() != 10 {
			t.Errorf("%d up, %d down; want 1000 and 10", s.Up(), s.Down())
		}
	})
}

// watching is a Recorder that hands on what is opened.
type watching chan *Session

func (w watching) Opened(s *Session)      { w <- s }
func (w watching) Closed(*Session, error) {}

// TestNobodyIsTold: a Server needs no Recorder and no log.
func TestNobodyIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := proxytest.NewNetwork(clientAt, 100)
		in := network.MustListen(proxyAt.String())
		s := &Server{}
		served := make(chan error)
		go func() { served <- s.Serve(t.Context(), in, Listener{}) }()
		for range 5 {
			in.Fail(acceptError(syscall.EMFILE))
		}
		c, err := in.Dial(targetAt)
		if err != nil {
			t.Fatal(err)
		}
		proxytest.Say(t, c, proxytest.Connect4(targetAt, "bob"))
		proxytest.Refused4(t, c, 91)
		c.Close()
		s.Close()
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			t.Error(err)
		}
	})
}

// lastReason is a Recorder that keeps it.
type lastReason struct{ reason error }

func (*lastReason) Opened(*Session)                   {}
func (l *lastReason) Closed(_ *Session, reason error) { l.reason = reason }

// TestReasonOfTheFirst: of a session that was told to end, the loss of its client's
// connection, which may have been taken away with it, is no reason; all else is.
func TestReasonOfTheFirst(t *testing.T) {
	lost := fmt.Errorf("%w: the SSH connection has ended", relay.ErrClientReset)
	for _, test := range []struct {
		why, reason error
		want        Reason
	}{
		{Revoked, lost, Revoked},
		{Revoked, ClientGone, Revoked},
		{Revoked, nil, Closed},
		{Revoked, relay.ErrTargetReset, TargetReset},
		{nil, lost, ClientReset},
	} {
		recorder := &lastReason{}
		session := NewSession(Record{ID: 1})
		session.life.why = test.why
		(&Server{Recorder: recorder}).over(session, test.reason)
		if got := ReasonOf(recorder.reason); got != test.want {
			t.Errorf("told to end by %v, and ended by %v: %v, want %v", test.why, test.reason, got, test.want)
		}
	}
}
