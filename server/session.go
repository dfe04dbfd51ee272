package server

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/internal/relay"
	"github.com/sallyport/sallyport/socks"
)

// Session is one client connection, from its first byte to its last, or one
// request of a connection that carries many. A [Recorder] gets it. Its Record
// belongs to the server until Closed is called, and may be nil until then; from then on
// nothing of it changes any more. The other fields never do, and the methods may be called at any time, by any
// goroutine. Make one with [NewSession].
type Session struct {
	ID      uint64    // that of its Record
	Started time.Time // likewise
	*Record

	meter   relay.Meter
	dropped atomic.Int64
	life    life
	rest    rest // in the place of the Record and what life has of it

	pace *paces // of its own goroutines; nil: as fast as it goes
	slow atomic.Pointer[brakes]
}

// paces are how fast a session may go; nil: as fast as it does.
type paces struct{ up, down Pacer }

// NewSession returns a session that a server would tell its [Recorder] of, for a
// recorder's tests.
func NewSession(r Record) *Session { return newSession(&whole{record: r}) }

// newSession is NewSession of a record that lies in w.
func newSession(w *whole) *Session {
	return &Session{ID: w.record.ID, Started: w.record.Started, Record: &w.record, life: life{whole: w}}
}

// Record is what is known of a session.
type Record struct {
	ID       uint64 // counts from 1 in each process
	Started  time.Time
	Listener string
	Client   netip.AddrPort
	Through  netip.AddrPort // the load balancer that named Client in a PROXY header; zero: none
	TLS      bool           // the client's connection is encrypted
	HTTP2    bool           // the session is a stream of an HTTP/2 connection
	Protocol Protocol       // empty until the first byte was read, and for garbage
	Command  socks.Command  // zero until a request was read
	Identity Identity
	Target   socks.Addr     // what was asked for
	Socket   string         // of a mapping, the unix socket that it leads to; empty: none
	Address  netip.AddrPort // what was dialled, the peer that BIND accepted, or the first that datagrams went to; zero: none
	Bound    netip.AddrPort // the address of ours that was told to the client; zero: none
	Offered  bool           // a port that was asked for over SSH is, or was, open: for that there is no Address
	Rule     string         // the rule that decided; empty: none matched, or none was asked
	Via      string         // the granted Way's; empty: none
	Proxy    string         // of that way, which proxy it went through; empty: none
	To       socks.Addr     // of an association, what the first datagrams that were granted were for, or else the first that were not; zero: there were none
	Primary  string         // of BIND: "held", "missing", or "optional" where the rule does not ask
}

// Up returns how many bytes went from the client to the target.
func (s *Session) Up() int64 { return s.meter.Up() }

// Down returns how many bytes went from the target to the client.
func (s *Session) Down() int64 { return s.meter.Down() }

// Dropped returns how many datagrams of an association were not passed on: they
// were a stranger's, malformed, refused, or too many.
func (s *Session) Dropped() int64 { return s.dropped.Load() }

type nobody struct{}

func (nobody) Opened(*Session)        {}
func (nobody) Closed(*Session, error) {}

func (s *Server) recorder() Recorder {
	if s.Recorder == nil {
		return nobody{}
	}
	return s.Recorder
}
