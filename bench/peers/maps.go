//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"github.com/sallyport/sallyport/bench/load"
)

// fixed is what those speak that lead to one target.
var fixed = []load.Protocol{load.Fixed}

// mappers are those that map a port to another, of TCP and, where they can, of UDP.
func mappers() []contender {
	return []contender{
		mapping("sallyport", sallyport),
		{name: "haproxy", protocols: fixed, anybody: true, command: haproxy},
		{name: "forward", protocols: fixed, ours: true, anybody: true, command: forward},
		{name: "socat", protocols: fixed, anybody: true, datagrams: true, command: socat},
	}
}

// mapping is this proxy as a mapping. It keeps no record of sessions, as the others do not. build is the command of one that has
// settings of its own.
func mapping(name string, build command) contender {
	serve := func(ctx context.Context, y *yard, at, target netip.AddrPort) ([]string, error) {
		args, err := build(ctx, y, at, target)
		if err != nil {
			return nil, err
		}
		conf, err := mappingConf(y, name, at, target)
		return []string{args[0], "serve", "--config", conf, "--admin", "off"}, err
	}
	return contender{name: name, protocols: fixed, ours: true, anybody: true, datagrams: true, command: serve}
}

func mappingConf(y *yard, name string, at, target netip.AddrPort) (string, error) {
	conf, err := y.file(name+".mapping.yaml", fmt.Sprintf(`
listeners:
  - {name: tcp, listen: "%[1]s", map: "%[2]s"}
  - {name: udp, listen: "udp/%[1]s", map: "%[2]s"}
rules: {allow: the mapping, from: loopback, to: loopback}
ledger: off
log: {level: warn}
`, at, target))
	if err == nil {
		err = os.Chmod(conf, 0o644)
	}
	return conf, err
}

// socat has a process for each client.
func socat(_ context.Context, _ *yard, at, target netip.AddrPort) ([]string, error) {
	const script = `socat UDP4-LISTEN:"$1",bind=127.0.0.1,fork,reuseaddr UDP4:"$2" &
exec socat TCP4-LISTEN:"$1",bind=127.0.0.1,fork,reuseaddr,backlog=1024 TCP4:"$2"`
	return []string{"bash", "-c", script, "socat", port(at), target.String()}, nil
}
