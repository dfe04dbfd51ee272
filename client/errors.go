package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/sallyport/sallyport/socks"
)

// The refusals of SOCKS 4. A *ReplyError matches one of them by errors.Is,
// or none if the proxy sent a code that the protocol does not have.
var (
	// ErrRejected is code 91: the rules forbid it, or the target cannot be reached.
	ErrRejected = errors.New("client: request rejected or failed (91)")
	// ErrNoIdentd is code 92: the proxy wants IDENT to confirm the userid and
	// cannot reach an IDENT server on this machine.
	ErrNoIdentd = errors.New("client: the proxy cannot reach identd here (92)")
	// ErrOtherUser is code 93: IDENT on this machine names another user than
	// the proxy URL does.
	ErrOtherUser = errors.New("client: identd here reports another userid (93)")
)

// ReplyError is a proxy's refusal: a reply with another code than 90.
type ReplyError struct {
	Proxy  string         // the proxy as a URL, without the userid
	Op     string         // "connect", "bind" (the first reply of a BIND) or "accept" (the second)
	Target string         // host:port as the request named it: with socks4, the address that was looked up
	Code   socks.Code4    // as the proxy sent it
	Addr   netip.AddrPort // the address in the reply; for "accept", the peer that was turned away
}

// Error says who refused what, and the code in words.
func (e *ReplyError) Error() string {
	return fmt.Sprintf("%s: %s %s: reply %d, %v", e.Proxy, e.Op, e.Target, byte(e.Code), e.Code)
}

// Is reports whether target is the sentinel error of the reply's code.
func (e *ReplyError) Is(target error) bool {
	switch e.Code {
	case socks.Rejected4:
		return target == ErrRejected
	case socks.NoIdentd4:
		return target == ErrNoIdentd
	case socks.OtherUser4:
		return target == ErrOtherUser
	}
	return false
}

// opError is every other failure of a Dialer or a listener. It is a net.Error.
type opError struct {
	proxy, op, target string
	err               error // says the step
}

func (e *opError) Error() string {
	return fmt.Sprintf("%s: %s %s: %v", e.proxy, e.op, e.target, e.err)
}

func (e *opError) Unwrap() error { return e.err }

// Is makes every timeout match os.ErrDeadlineExceeded, whichever clock ran out.
func (e *opError) Is(target error) bool {
	return target == os.ErrDeadlineExceeded && e.Timeout()
}

// Timeout reports whether time ran out: that of a context, of a deadline, or of
// the operating system.
func (e *opError) Timeout() bool {
	if errors.Is(e.err, context.DeadlineExceeded) {
		return true
	}
	inner, ok := errors.AsType[net.Error](e.err)
	return ok && inner.Timeout()
}

// Temporary is there for net.Error alone, which deprecates it.
func (e *opError) Temporary() bool { return e.Timeout() }

// ended returns why ctx ended: its cause, and in any case also ctx.Err().
func ended(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, ctx.Err()) {
		return cause
	}
	return fmt.Errorf("%w (%w)", cause, ctx.Err())
}

// because returns err, behind the reason why ctx ended if it has: then err is
// most likely only what that led to.
func because(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("%w: %w", ended(ctx), err)
}
