package server

import (
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/internal/relay"
	"github.com/sallyport/sallyport/socks"
)

// Session is what is known of one client connection, from its first byte to
// its last. A [Recorder] gets it. The fields belong to the server until Closed
// is called; Up and Down may be called at any time.
type Session struct {
	ID       uint64 // counts from 1 in each process
	Started  time.Time
	Listener string
	Client   netip.AddrPort
	Protocol Protocol      // empty until a request was read
	Command  socks.Command // zero until a request was read
	Identity Identity
	Target   socks.Addr     // what was asked for
	Address  netip.AddrPort // what was dialled, or the peer that BIND accepted; zero: none
	Bound    netip.AddrPort // the address of ours that was told to the client; zero: none
	Rule     string         // the rule that decided; empty: none matched, or none was asked
	Primary  string         // of BIND: "held", "missing", or "optional" where the rule does not ask

	meter relay.Meter
}

// Up returns how many bytes went from the client to the target.
func (s *Session) Up() int64 { return s.meter.Up() }

// Down returns how many bytes went from the target to the client.
func (s *Session) Down() int64 { return s.meter.Down() }

type nobody struct{}

func (nobody) Opened(*Session)        {}
func (nobody) Closed(*Session, error) {}

func (s *Server) recorder() Recorder {
	if s.Recorder == nil {
		return nobody{}
	}
	return s.Recorder
}
