package daemon

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// BenchmarkRecording is what a short session costs that is decided on, counted towards its
// limits, and told to whoever records it: all but what is the server's own and the
// system's. Each of the settings adds something to nothing, and everything has it all.
func BenchmarkRecording(b *testing.B) {
	const (
		limits = "limits:\n  fast: {rate: 1 Tbit/s, per: source}\n  much: {quota: 1048576 TiB, every: day, per: source, warn: [80%, 95%]}\n" +
			"rules: {allow: everything, from: loopback, to: any, limits: [much, fast]}\n"
		free   = "rules: {allow: everything, from: loopback, to: any}\n"
		noLog  = "level: warn"
		dashed = "admin: {listen: '127.0.0.1:0', file: administrators, socket: off, metrics: open}\n"
	)
	for _, tt := range []struct{ name, rules, ledger, log, admin string }{
		{"nothing", free, "off", noLog, "admin: off\n"},
		{"limits", limits, "off", noLog, "admin: off\n"},
		{"ledger", free, "'sqlite:ledger.db'", noLog, "admin: off\n"},
		{"log", free, "off", "level: info", "admin: off\n"},
		{"access log", free, "off", noLog + ", access: access.log", "admin: off\n"},
		{"dashboard", free, "off", noLog, dashed},
		{"recorded", limits, "'sqlite:ledger.db'", "level: info", "admin: off\n"},
		{"everything", limits, "'sqlite:ledger.db'", "level: info, access: access.log", dashed},
	} {
		b.Run(tt.name, func(b *testing.B) {
			dir := b.TempDir()
			file := filepath.Join(dir, "s.yaml")
			settings := fmt.Sprintf("listeners: {listen: '127.0.0.1:0'}\n%sledger: %s\nlog: {%s}\n%s", tt.rules, tt.ledger, tt.log, tt.admin)
			if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
				b.Fatal(err)
			}
			d, err := Open(b.Context(), Source{File: file}, nowhere{})
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			for id := range uint64(15) { // others are open meanwhile
				_ = enter(b, d.server, id)
			}
			b.ReportAllocs()
			for id := uint64(16); b.Loop(); id++ {
				enter(b, d.server, id)()
			}
		})
	}
}

// enter does what a server does for a session in which a byte goes each way, but for its
// end, which it returns.
func enter(b *testing.B, s *server.Server, id uint64) (leave func()) {
	policy, ok := s.Policy.(server.PromptPolicy)
	if !ok {
		b.Fatal("it has to wait")
	}
	client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(id))
	target := netip.AddrPortFrom(client.Addr(), 4711)
	r := &server.Request{Protocol: server.SOCKS5, Command: socks.Connect, Client: client, Listener: "127.0.0.1:0", Target: socks.Addr{IP: target.Addr(), Port: target.Port()}}
	session := server.NewSession(server.Record{
		ID: id, Started: time.Now(), Listener: r.Listener, Client: client, Protocol: r.Protocol, Command: r.Command, Target: r.Target, Rule: "everything",
		Address: target, Bound: target,
	})
	s.Recorder.Opened(session)
	grant, _, err := policy.DecideNow(r)
	if err != nil {
		b.Fatal(err)
	}
	if grant.Budget == nil {
		return func() { s.Recorder.Closed(session, nil) }
	}
	stay, err := grant.Budget.Enter(nil, session.End)
	if err != nil {
		b.Fatal(err)
	}
	up, down := stay.Pace()
	for _, moved := range []int{0, 1} {
		for _, one := range []server.Pacer{up, down} {
			if one.Chunk() < 1 || one.Took(moved) > 0 { // for a byte before it, and for FIN behind it
				b.Fatal("it is slowed")
			}
		}
	}
	return func() {
		stay.Leave()
		s.Recorder.Closed(session, nil)
	}
}
