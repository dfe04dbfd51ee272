package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/handover"
	"github.com/sallyport/sallyport/server"
)

// door is a listener with its socket.
type door struct {
	settings config.Listener
	listener server.Listener
	socket   socket
	index    int          // of the interface that it is bound to; 0: it is bound to none
	removes  bool         // a unix socket is removed from the file system when it is closed
	place    *server.Door // the server's side of it
}

// openDoors returns the doors that the settings want, in their order. Of those
// that are open it takes each with the same address; its options may be others.
// New sockets it takes from those that were handed over (nil: none were), or opens
// them. On an error nothing that it opened stays open.
func openDoors(ctx context.Context, s *server.Server, wanted []config.Listener, maps mappings, open []*door, in *handover.Inherited, log *slog.Logger) ([]*door, error) {
	var doors, opened []*door
	var faults []error
	kept := keptDoors(wanted, open)
	for i, l := range wanted {
		d, err := kept[i].changed(ctx, s, l, maps[keyOf(l)].Mapping, open, in, log)
		switch {
		case err != nil:
			faults = append(faults, err)
		case kept[i] == nil:
			opened = append(opened, d)
		}
		doors = append(doors, d)
	}
	if len(faults) > 0 {
		closeDoors(opened)
		return nil, joinFaults(faults...)
	}
	return doors, nil
}

// keptDoors returns for each wanted listener the open door with its address, nil
// where there is none. Where several ask for any free port, names tell them apart.
func keptDoors(wanted []config.Listener, open []*door) []*door {
	kept, free := make([]*door, len(wanted)), slices.Clone(open)
	for _, byName := range []bool{true, false} {
		for i, l := range wanted {
			at := slices.IndexFunc(free, func(d *door) bool {
				return d.settings.Listen == l.Listen && d.index == indexOf(l.Listen) && (!byName || d.settings.Name == l.Name)
			})
			if kept[i] == nil && at >= 0 {
				kept[i] = free[at]
				free = slices.Delete(free, at, at+1)
			}
		}
	}
	return kept
}

// changed returns the door as l wants it, on the same socket; of a nil door on a
// new one. TLS terms that are the same stay, with the tickets that they gave out.
func (d *door) changed(ctx context.Context, s *server.Server, l config.Listener, m *server.Mapping, open []*door, in *handover.Inherited, log *slog.Logger) (*door, error) {
	next := &door{settings: l}
	var err error
	if next.listener, err = buildListener(l, log); err != nil {
		return nil, fmt.Errorf("the listener %q: %w", l.Name, err)
	}
	next.listener.Mapping = m
	if d != nil {
		next.socket, next.index, next.removes, next.place = d.socket, d.index, d.removes, d.place
		if d.settings.TLS == l.TLS {
			next.listener.TLS = d.listener.TLS
		}
		return next, nil
	}
	next.index = indexOf(l.Listen)
	if err = next.open(ctx, in); err != nil {
		return nil, cannotOpen(l, open, err)
	}
	next.place, err = serverDoor(s, next.socket, next.listener)
	return next, err
}

// stillWanted returns those of the listeners that have an open door.
func stillWanted(wanted []config.Listener, open []*door) []config.Listener {
	var still []config.Listener
	for i, d := range keptDoors(wanted, open) {
		if d != nil {
			still = append(still, wanted[i])
		}
	}
	return still
}

func closeDoors(doors []*door) {
	for _, d := range doors {
		_ = d.socket.Close() // nobody is left to tell
	}
}

// newDoors returns those of doors whose sockets others have not.
func newDoors(doors, others []*door) []*door {
	return slices.DeleteFunc(slices.Clone(doors), func(d *door) bool { return has(others, d.socket) })
}

// has reports whether one of the doors has the socket.
func has(doors []*door, at socket) bool {
	return slices.ContainsFunc(doors, func(d *door) bool { return d.socket == at })
}

// protocolNames are what a listener speaks.
func protocolNames(l server.Listener) []string {
	var spoken []string
	for _, p := range l.Protocols {
		spoken = append(spoken, string(p))
	}
	return spoken
}
