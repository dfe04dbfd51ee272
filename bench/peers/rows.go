//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/bench/load"
)

// row is one kind of work.
type row struct {
	name      string
	unit      string
	scale     float64       // of CPU seconds, for printing in unit
	protocol  load.Protocol // of those that speak several; empty: whichever
	datagrams bool          // it is for those that pass on UDP
	fresh     bool          // it wants a proxy that has done nothing yet
	columns   []column      // what is printed; none: the costs
	work      work
}

// work is one turn of a row.
type work func(context.Context, *load.Proxy, *load.Target) (figures, error)

// costs is work of which there is nothing but what it costs.
func costs(turn func(context.Context, *load.Proxy, *load.Target) (load.Cost, error)) work {
	return func(ctx context.Context, p *load.Proxy, t *load.Target) (figures, error) {
		cost, err := turn(ctx, p, t)
		return figures{Cost: cost}, err
	}
}

// suits reports whether rn can do this work. Fixed forwarders do the work of every protocol, without speaking it.
func (r row) suits(rn *runner) bool {
	if r.datagrams && !rn.datagrams {
		return false
	}
	return r.protocol == "" || rn.protocols[0] == load.Fixed || slices.Contains(rn.protocols, r.protocol)
}

// measure is one turn of it with rn.
func (r row) measure(ctx context.Context, y *yard, rn *runner, target *load.Target) (figures, error) {
	if r.fresh {
		if err := y.restart(ctx, rn); err != nil {
			return figures{}, err
		}
	}
	p := &load.Proxy{Address: rn.address, Protocol: rn.protocols[0], Process: rn.process}
	if p.Protocol != load.Fixed {
		p.Protocol = cmp.Or(r.protocol, p.Protocol)
	}
	got, err := r.work(ctx, p, target)
	if err == nil && r.fresh {
		got.collections, err = rn.collections(ctx)
	}
	return got, err
}

// idleRest is how long a proxy is left alone before its memory is read, or others work among relays that have begun: what
// it does about them afterwards (collecting garbage, giving memory back) is done then.
const idleRest = 12 * time.Second

// crowdOver is the time in which a crowd comes: that of Go's keep-alive probes, so that as many are due at any time.
const crowdOver = 15 * time.Second

// rowsOf are the rows that the options ask for.
func rowsOf(o options) []row {
	switch {
	case o.lists > 0:
		return listRows(o)
	case o.maps:
		return mapRows(o)
	case o.virtual:
		return virtualRows(o)
	}
	return proxyRows(o)
}

func proxyRows(o options) (rows []row) {
	for _, way := range []load.Direction{load.Down, load.Up, load.Both} {
		for _, streams := range []int{1, 8, 64} {
			rows = append(rows, bulk(o, way, streams))
		}
	}
	rows = append(rows, crowded(o, 1), crowded(o, 8))
	for _, protocol := range []load.Protocol{load.Socks4, load.Socks5, load.HTTP} {
		for _, workers := range []int{16, 256} {
			rows = append(rows, sessions(o, fmt.Sprintf("sessions %s, %d workers", protocol, workers), protocol, workers))
		}
	}
	rows = append(rows, pingPong(o, 1), pingPong(o, 64))
	rows = append(rows, datagrams(o, "associations", 1), datagrams(o, "associations", 64))
	return append(rows, idle(o))
}

// mapRows are the rows of mappings.
func mapRows(o options) []row {
	return named(
		"map", bulk(o, load.Down, 1), bulk(o, load.Down, 8), bulk(o, load.Up, 1), bulk(o, load.Up, 8),
		sessions(o, "sessions, 16 workers", "", 16), pingPong(o, 64), datagrams(o, "clients", 1), datagrams(o, "clients", 64),
	)
}

// virtualRows are the rows of published services.
func virtualRows(o options) []row {
	return named(
		"virtual port", bulk(o, load.Down, 1), bulk(o, load.Down, 8), bulk(o, load.Up, 1), bulk(o, load.Up, 8),
		sessions(o, "visitors, 16 workers", "", 16), pingPong(o, 1),
	)
}

// listRows are the rows of deciding: what is in a list, at its end, and what is in none.
func listRows(o options) (rows []row) {
	const workers = 16
	last := min(o.lists, maxLists) - 1
	for _, by := range []load.Protocol{load.Socks5, load.HTTP} {
		address := deniedNetwork(last).Addr().Next().String()
		rows = append(
			rows, refusals(o, fmt.Sprintf("address refused, %s", by), address, by, workers),
			sessions(o, fmt.Sprintf("allowed, %s", by), by, workers),
		)
	}
	return append(rows, refusals(o, fmt.Sprintf("name refused, %s", load.HTTP), deniedName(last), load.HTTP, workers))
}

// named puts what the rows are about before their names.
func named(what string, rows ...row) []row {
	for i := range rows {
		rows[i].name = what + ": " + rows[i].name
	}
	return rows
}

func bulk(o options, way load.Direction, streams int) row {
	return row{
		name: fmt.Sprintf("bulk %s, %d streams", way, streams), unit: "s/GiB", scale: 1,
		work: costs(func(ctx context.Context, p *load.Proxy, t *load.Target) (load.Cost, error) {
			return load.Bulk(ctx, p, t, way, streams, o.turn)
		}),
	}
}

// crowded is bulk without and with idle relays, in turns.
func crowded(o options, streams int) row {
	alone := bulk(o, load.Down, streams)
	return row{
		name: fmt.Sprintf("crowded: %s, among %d idle relays", alone.name, o.crowd), unit: alone.unit, scale: alone.scale, columns: crowdedColumns,
		work: func(ctx context.Context, p *load.Proxy, t *load.Target) (figures, error) {
			among, err := load.BulkAmong(ctx, p, t, o.crowd, crowdOver, idleRest, func() (load.Cost, error) {
				return load.Bulk(ctx, p, t, load.Down, streams, o.turn)
			})
			return figures{Cost: among.Crowded, alone: among.Alone}, err
		},
	}
}

// sessions is done by one protocol, or with "" by whichever the proxy speaks.
func sessions(o options, name string, by load.Protocol, workers int) row {
	return row{
		name: name, unit: "µs", scale: 1e6, protocol: by,
		work: costs(func(ctx context.Context, p *load.Proxy, t *load.Target) (load.Cost, error) {
			return load.Sessions(ctx, p, t, workers, o.turn)
		}),
	}
}

// refusals ask for a host that may not be reached.
func refusals(o options, name, host string, by load.Protocol, workers int) row {
	return row{
		name: name, unit: "µs", scale: 1e6, protocol: by,
		work: costs(func(ctx context.Context, p *load.Proxy, _ *load.Target) (load.Cost, error) {
			return load.Refusals(ctx, p, host+":443", workers, o.turn)
		}),
	}
}

func pingPong(o options, relays int) row {
	return row{
		name: fmt.Sprintf("pingpong, %d relays", relays), unit: "µs", scale: 1e6,
		work: costs(func(ctx context.Context, p *load.Proxy, t *load.Target) (load.Cost, error) {
			return load.PingPong(ctx, p, t, relays, o.turn)
		}),
	}
}

// datagrams is the work of so many clients, or associations.
func datagrams(o options, whose string, count int) row {
	return row{
		name: fmt.Sprintf("udp, %d %s", count, whose), unit: "µs", scale: 1e6, datagrams: true,
		work: costs(func(ctx context.Context, p *load.Proxy, t *load.Target) (load.Cost, error) {
			return load.Datagrams(ctx, p, t, count, o.turn)
		}),
	}
}

func idle(o options) row {
	return row{
		name: fmt.Sprintf("idle, %d relays", o.idle), fresh: true, columns: idleColumns,
		work: func(ctx context.Context, p *load.Proxy, t *load.Target) (figures, error) {
			idle, err := load.HoldIdle(ctx, p, t, o.idle, idleRest)
			if err != nil {
				return figures{}, err
			}
			return figures{held: *idle}, idle.Close()
		},
	}
}
