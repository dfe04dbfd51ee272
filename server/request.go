package server

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// Proof is how an identity was shown. The words are those of the settings.
type Proof string

// The proofs, weakest first.
const (
	NoProof     Proof = ""            // the client said nothing about itself
	Claimed     Proof = "claimed"     // a bare SOCKS 4 userid: anybody can send any
	Ident       Proof = "ident"       // a userid that the client's identd confirmed (RFC 1413)
	Password    Proof = "password"    // a name and the password that goes with it
	Certificate Proof = "certificate" // a TLS client certificate, verified
	Key         Proof = "key"         // a public key, by a signature with it
)

// Identity is who asks, and how well that is known.
type Identity struct {
	Name  string // any bytes but NUL; never printed unescaped
	Proof Proof

	// Mark tells what the proof rests on from what takes its place: where it is a
	// password, another mark means that the user has another one by now. It is
	// the [Authenticator]'s own; 0 where there is nothing to tell apart.
	Mark uint64
}

// Protocol is how a client speaks to a listener.
type Protocol string

// The protocols, by the words of the settings.
const (
	SOCKS4  Protocol = "socks4"
	SOCKS4a Protocol = "socks4a"
	SOCKS5  Protocol = "socks5"
	HTTP    Protocol = "http"
	Mapped  Protocol = "map" // none: the listener is a port mapping
	SSH     Protocol = "ssh" // is spoken only where a listener names it
)

// Request is what a handshake ends in: a question that awaits its answer.
type Request struct {
	Protocol Protocol
	Command  socks.Command
	Identity Identity
	Target   socks.Addr     // of CONNECT; for BIND the application server that is expected; of UDP, what a datagram is for
	Client   netip.AddrPort // where the request came from, unmapped
	Local    netip.AddrPort // the address that the client connected to, unmapped
	Relayed  bool           // a load balancer said so of Client and Local; the connection is its own
	Listener string         // the listener's name
	Replier  Replier
}

// Replier writes a protocol's answers. It does no I/O: the bytes are appended
// to b. A BIND is granted twice.
type Replier interface {
	// AppendGrant appends the success reply that carries bound.
	AppendGrant(b []byte, bound netip.AddrPort) []byte
	// AppendDeny appends the failure reply that says reason as far as the
	// protocol can; about is the address to carry, if any.
	AppendDeny(b []byte, reason error, about netip.AddrPort) []byte
}

// Policy decides on requests. It may block (a name to resolve, identd to ask),
// must honour ctx, and is called from many goroutines at once. A nil Policy
// denies everything.
type Policy interface {
	// Decide returns the grant, or an error that wraps a [Reason]. The grant's
	// Rule and Identity are valid either way and name what decided.
	Decide(ctx context.Context, r *Request) (Grant, error)
}

// PromptPolicy is a [Policy] that can decide on some requests without waiting for
// anything. A server asks it so first, where that lets it serve a session without
// a goroutine.
type PromptPolicy interface {
	Policy
	// DecideNow returns what Decide would; or known is false where somebody would
	// have to be asked for it, and nobody was. It must not block, and is called from
	// many goroutines at once.
	DecideNow(r *Request) (g Grant, known bool, err error)
}

// Grant is a policy's answer.
type Grant struct {
	Rule     string       // the rule that decided; empty where none matched
	Identity Identity     // who the client turned out to be
	Addrs    []netip.Addr // the addresses that were judged: only these are dialled, or accepted as peers
	Bind     BindOptions
	Until    time.Time // when the session has to end, with the reason [Schedule]; zero: it need not
	Way      *Way      // how the session leaves; nil: by the Server's Outbound
	Budget   Budget    // what the session counts towards; nil: nothing

	// ByName grants the target's name, whatever its addresses: the Way's Upstream
	// is sent it, and nobody looks it up here. Without an Upstream, or a name, it
	// means nothing. A destination of datagrams needs addresses.
	ByName bool

	// Virtual says that the target's name is a virtual port: one that clients of SSH
	// offer. Of CONNECT, the session leads to one of those who do, and Addrs and Way
	// mean nothing; of BIND over SSH, the client may offer it.
	Virtual bool
}

// BindOptions are a rule's terms for BIND.
type BindOptions struct {
	// PrimaryOptional grants a BIND also to a client that holds no relay to
	// the application server. The paper: "this should only happen after a
	// primary connection to the application server has been established".
	PrimaryOptional bool
	// AnyPeer grants a BIND for DSTIP 0.0.0.0: whoever connects is the peer.
	AnyPeer bool
	// WaitForRightPeer closes a stranger's connection and waits on, where the
	// paper ends the BIND with 91.
	WaitForRightPeer bool
}

// Recorder is told of every session, granted or not, from many goroutines.
// Neither call may block for long.
type Recorder interface {
	// Opened is called once the request is known, before it is decided on.
	// A connection that ends before that is only Closed.
	Opened(s *Session)
	// Closed is called once for every accepted connection, when it is over.
	// [ReasonOf] gives the one word for reason; nil means a normal end.
	Closed(s *Session, reason error)
}

// Outbound reaches targets. The signatures are the standard library's:
// a struct that embeds a net.Dialer and a net.ListenConfig is an Outbound.
type Outbound interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	Listen(ctx context.Context, network, address string) (net.Listener, error)
}
