package server

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/internal/relay"
)

// Reason is why a session was refused or came to its end: one short word that
// the log, the metrics and the documentation all use. It is an error, so that
// it can be wrapped with what a person should know beside it and found again
// with [ReasonOf] or errors.Is. Each protocol puts it into its own codes.
type Reason string

// Error returns the word.
func (r Reason) Error() string { return string(r) }

// Refusals, decided before anything was relayed.
const (
	Garbage       Reason = "garbage"        // the first bytes are of no protocol spoken here
	BadRequest    Reason = "bad-request"    // a request that breaks its protocol's bounds
	Unsupported   Reason = "unsupported"    // a command or protocol that is not served here
	HandshakeSlow Reason = "handshake-slow" // the handshake's time limit passed
	Busy          Reason = "busy"           // a limit on what may wait at once is reached
	TooMany       Reason = "too-many"       // a limit on sessions at once is reached
	TooFast       Reason = "too-fast"       // a limit on new sessions in a time is reached
	Quota         Reason = "quota"          // a quota is used up; of an open session: it has used the last of it
	BadLogin      Reason = "bad-login"      // no such user, another password, or none where one is needed
	Denied        Reason = "denied"         // no rule allows it, or one denies it
	Schedule      Reason = "schedule"       // not at this hour; of an open session: its hour has ended
	Revoked       Reason = "revoked"        // the user, the rule or the right of an open session is gone
	Ended         Reason = "ended"          // an administrator ended it
	NoLedger      Reason = "no-ledger"      // a quota is shared with other nodes, and the ledger, which knows what they have used, is away
	NoIdentd      Reason = "no-identd"      // a rule needs IDENT, and identd did not answer (92)
	OtherUser     Reason = "other-user"     // identd names somebody else, or nobody (93)
	Loop          Reason = "loop"           // the target is this proxy itself
	NoPrimary     Reason = "no-primary"     // BIND without a CONNECT to the same host
	NoName        Reason = "no-name"        // the host name has no address
	Refused       Reason = "refused"        // the target refused the connection
	Unreachable   Reason = "unreachable"    // no way to the target
	TimedOut      Reason = "timed-out"      // the limit for connecting, or for BIND's peer, passed
	WrongPeer     Reason = "wrong-peer"     // somebody else connected to the BIND port
	NoPort        Reason = "no-port"        // no port is free for BIND
	BadReply      Reason = "bad-reply"      // the target's answer breaks its protocol

	// UpstreamFailed: no upstream proxy is alive, or it refused this proxy or gave no reason.
	UpstreamFailed Reason = "upstream"
)

// Ends of a session that was relayed, or whose client did not wait.
const (
	Closed      Reason = "closed"       // both sides said all they had to say
	ClientGone  Reason = "client-gone"  // the client left before there was an answer
	ClientReset Reason = "client-reset" // the client reset its connection
	TargetReset Reason = "target-reset" // the target reset its connection
	Idle        Reason = "idle"         // neither side said anything for too long
	HalfClosed  Reason = "half-closed"  // one side had ended, the other said nothing for too long
	Shutdown    Reason = "shutdown"     // the server stopped before the session ended
	Failed      Reason = "failed"       // a fault of the proxy's own machine; the log says which
)

// LaterError is a refusal that will be over: who comes again after that time may be let
// in. Protocols that can say so do.
type LaterError struct {
	Err   error // wraps a [Reason]
	After time.Duration
}

// Error says why it is refused.
func (e *LaterError) Error() string { return e.Err.Error() }

// Unwrap returns the refusal.
func (e *LaterError) Unwrap() error { return e.Err }

// ReasonOf returns the word for an error: the [Reason] it wraps, or the one that
// stands for what the operating system or the resolver said. A nil error is Closed.
func ReasonOf(err error) Reason {
	if err == nil {
		return Closed
	}
	if r, ok := errors.AsType[Reason](err); ok {
		return r
	}
	for _, known := range reasons {
		if errors.Is(err, known.err) {
			return known.reason
		}
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsTimeout {
			return TimedOut
		}
		return NoName
	}
	return Failed
}

// reasons translates foreign errors. The order matters where one error wraps two.
var reasons = []struct {
	err    error
	reason Reason
}{
	{relay.ErrIdle, Idle},
	{relay.ErrHalfClosed, HalfClosed},
	{relay.ErrClientReset, ClientReset},
	{relay.ErrTargetReset, TargetReset},
	{context.DeadlineExceeded, TimedOut},
	{os.ErrDeadlineExceeded, TimedOut},
	{syscall.ETIMEDOUT, TimedOut},
	{syscall.ECONNREFUSED, Refused},
	{syscall.ECONNRESET, Refused},
	{syscall.EHOSTUNREACH, Unreachable},
	{syscall.ENETUNREACH, Unreachable},
	{syscall.EHOSTDOWN, Unreachable},
	{syscall.ENETDOWN, Unreachable},
	{syscall.EADDRNOTAVAIL, Unreachable},
	{syscall.EACCES, Unreachable},
	{fs.ErrPermission, Unreachable},
	{context.Canceled, Shutdown}, // of the context that was given to Serve: all others end with a Reason
}
