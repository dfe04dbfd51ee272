package daemon

import (
	"errors"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/server"
)

// Measures implements [admin.Meters].
func (m manager) Measures() admin.Measures {
	var watched server.Observer = m.server
	now := watched.Gauges()
	all := admin.Measures{
		Accepting: now.Accepting && !m.isReplaced() && m.Ready() == nil, Paused: now.Paused,
		Connections: now.Connections, MaxConnections: now.MaxConnections,
		Handshakes: now.Handshakes, MaxHandshakes: now.MaxHandshakes,
		Rules: make(map[string]uint64), Users: make(map[string]admin.Use),
		LogLinesLost: map[string]int64{"log": m.logging.queue.inAll.Load(), "access": m.access.lost()},
	}
	for at, p := range m.live.Doors() {
		all.Doors = append(all.Doors, admin.DoorMeasures{
			Listener: at.Listener, Protocol: string(at.Protocol), Opened: p.Opened, Open: p.Open, Up: p.Up, Down: p.Down,
			Refused: byWord(p.Refused), Ended: byWord(p.Ended),
		})
	}
	hits := m.live.Rules()
	for _, r := range m.current().settings.Rules { // those that have not decided anything, too
		all.Rules[r.Name] = hits[r.Name].Hits
	}
	for name, u := range m.live.Users() {
		legible := access.Escape(name)
		sum := all.Users[legible]
		sum.Up += u.Up
		sum.Down += u.Down
		all.Users[legible] = sum
	}
	for _, t := range m.limits.Tallies() {
		all.Quotas = append(all.Quotas, admin.QuotaCounts{Limit: t.Limit, Warned: t.Warned, Refused: t.Refused, Ended: t.Ended})
	}
	return all
}

var errDraining = errors.New("draining: no new clients are served, and open sessions may end")

// Ready implements [admin.Meters]. Where another process has taken over, new clients are
// served, though not by this one.
func (m manager) Ready() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run == nil && m.life.after == nil {
		return errDraining
	}
	return nil
}
