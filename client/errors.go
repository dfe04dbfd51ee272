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

// ErrRejected is matched by every refusal of a proxy, whatever its protocol.
var ErrRejected = errors.New("the proxy refuses")

// The refusals that proxies tell apart, each as well as its protocol can: by
// errors.Is a refusal matches one of these, or none, and always ErrRejected.
var (
	// ErrLogin says that the proxy wants another user name or password than the
	// URL has, or another way to log in than this package knows (SOCKS 5; HTTP 401,
	// 407).
	ErrLogin error = refusal("the proxy refuses the login")
	// ErrNoIdentd says that the proxy wants IDENT to confirm the userid and
	// cannot reach an IDENT server on this machine (SOCKS 4: 92).
	ErrNoIdentd error = refusal("the proxy cannot reach identd here")
	// ErrOtherUser says that IDENT on this machine names another user than the
	// proxy URL does (SOCKS 4: 93).
	ErrOtherUser error = refusal("identd here reports another userid")
	// ErrNotAllowed says that the proxy's rules forbid it (SOCKS 5: 2, HTTP 403).
	ErrNotAllowed error = refusal("not allowed by the proxy's rules")
	// ErrUnreachable says that the proxy cannot reach the target's network or
	// host, or finds no address for its name (SOCKS 5: 3, 4).
	ErrUnreachable error = refusal("the proxy cannot reach the target")
	// ErrRefused says that the target refused the connection (SOCKS 5: 5).
	ErrRefused error = refusal("the target refused the proxy's connection")
	// ErrTimeout says that time ran out at the proxy (SOCKS 5: 6, HTTP 504).
	ErrTimeout error = refusal("time ran out at the proxy")
	// ErrUnsupported says that the proxy does not know the command or the kind
	// of address (SOCKS 5: 7, 8, HTTP 405, 501). What no proxy of its kind could
	// do matches errors.ErrUnsupported instead, and no proxy is asked.
	ErrUnsupported error = refusal("the proxy does not support it")
)

// refusal is a sentinel that matches ErrRejected as well.
type refusal string

func (r refusal) Error() string      { return string(r) }
func (refusal) Is(target error) bool { return target == ErrRejected }

// Code is the result code of a reply: a socks.Code4, a socks.Code5 or a Status,
// to compare with and to print as a number (%d) or in words.
type Code interface{ String() string }

// Status is the status code of an HTTP proxy's response.
type Status int

// String says what the status means where a proxy sends it.
func (s Status) String() string {
	switch s {
	case 400:
		return "bad request"
	case 403:
		return "forbidden"
	case 405, 501:
		return "not supported"
	case 401, 407: // some proxies mix them up
		return "login required"
	case 429:
		return "too many requests"
	case 500:
		return "fault of the proxy"
	case 502:
		return "bad gateway"
	case 503:
		return "unavailable"
	case 504:
		return "time ran out"
	}
	return "HTTP status"
}

// isInterim reports whether another response follows this one.
func (s Status) isInterim() bool { return s/100 == 1 && s != 101 }

// ErrProxy is matched by every failure to reach the proxy itself, or in a chain the
// last of them: whatever the cause, it is no word about the target.
var ErrProxy = errors.New("reaching the proxy")

// ReplyError is a proxy's refusal of a request, in a reply. In a chain, Proxy
// tells which one it was.
type ReplyError struct {
	Proxy  string         // the proxy as a URL, without the user
	Op     string         // "connect", "bind" (the first reply of a BIND), "accept" (the second) or "udp"
	Target string         // host:port as the request named it: with socks4 and socks5, the address that was looked up
	Code   Code           // as the proxy sent it
	Addr   netip.AddrPort // the address in the reply, if it had one; for "accept", the peer that was turned away
	Reason string         // HTTP: why, in Sallyport's one word (Sallyport-Reason), if that is what the proxy is
	Rule   string         // HTTP: the name of Sallyport's rule (Sallyport-Rule), likewise
}

// Error says who refused what, and the code in words.
func (e *ReplyError) Error() string {
	text := fmt.Sprintf("%s: %s %s: reply %d, %v", e.Proxy, e.Op, e.Target, e.Code, e.Code)
	if e.Reason != "" {
		text += fmt.Sprintf(", reason %q", e.Reason)
	}
	if e.Rule != "" {
		text += fmt.Sprintf(", rule %q", e.Rule)
	}
	return text
}

// Unwrap returns the sentinel error that the reply matches.
func (e *ReplyError) Unwrap() error {
	if e.Code == Status(401) || e.Code == Status(407) {
		return ErrLogin // whatever else was said: with a login there might be another answer
	}
	if sentinel, known := reasons()[e.Reason]; known {
		return sentinel
	}
	if sentinel, known := codes()[e.Code]; known {
		return sentinel
	}
	return ErrRejected
}

// reasons returns what Sallyport's words for a refusal mean here.
func reasons() map[string]error {
	return map[string]error{
		"denied":      ErrNotAllowed,
		"schedule":    ErrNotAllowed,
		"revoked":     ErrNotAllowed,
		"ended":       ErrNotAllowed,
		"too-many":    ErrNotAllowed,
		"too-fast":    ErrNotAllowed,
		"quota":       ErrNotAllowed,
		"loop":        ErrNotAllowed,
		"bad-login":   ErrLogin,
		"no-identd":   ErrNoIdentd,
		"other-user":  ErrOtherUser,
		"no-name":     ErrUnreachable,
		"unreachable": ErrUnreachable,
		"upstream":    ErrUnreachable,
		"refused":     ErrRefused,
		"timed-out":   ErrTimeout,
		"unsupported": ErrUnsupported,
	}
}

// codes returns what the replies' codes mean, as far as they mean one thing.
func codes() map[Code]error {
	return map[Code]error{
		socks.NoIdentd4:           ErrNoIdentd,
		socks.OtherUser4:          ErrOtherUser,
		socks.NotAllowed5:         ErrNotAllowed,
		socks.NetworkUnreachable5: ErrUnreachable,
		socks.HostUnreachable5:    ErrUnreachable,
		socks.Refused5:            ErrRefused,
		socks.TTLExpired5:         ErrTimeout,
		socks.CommandUnsupported5: ErrUnsupported,
		socks.TypeUnsupported5:    ErrUnsupported,
		Status(403):               ErrNotAllowed,
		Status(405):               ErrUnsupported,
		Status(501):               ErrUnsupported,
		Status(504):               ErrTimeout,
	}
}

// opError is every other failure of a Dialer, a listener or a packet
// connection. It is a net.Error.
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
