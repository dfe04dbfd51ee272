//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/sallyport/sallyport/bench/load"
)

// recording are this proxy with all that counts, limits, records and shows (everything), without what shows and the
// access log (recorded), and without any of it (silent). Their names have the prefix, and build is the command of one that has
// settings of its own.
func recording(prefix string, build command) []contender {
	const limits = `
limits:
  fast: {rate: 1 Tbit/s, per: source}
  much: {quota: 1048576 TiB, every: day, per: source, warn: [80%, 95%]}
rules: {allow: everything, from: loopback, to: any, limits: [much, fast]}
`
	return []contender{
		watched(prefix+"everything", build, func(y *yard, page uint16) string {
			file := func(name string) string { return filepath.Join(y.dir, prefix+"everything."+name) }
			return limits + fmt.Sprintf("ledger: 'sqlite:%s'\nlog: {access: %q}\nadmin: {listen: '127.0.0.1:%d', file: %q, socket: %q, metrics: open}\n",
				file("db"), file("access"), page, file("administrators"), file("socket"))
		}),
		watched(prefix+"recorded", build, func(y *yard, _ uint16) string {
			return limits + fmt.Sprintf("ledger: 'sqlite:%s'\nadmin: off\n", filepath.Join(y.dir, prefix+"recorded.db"))
		}),
		watched(prefix+"silent", build, func(*yard, uint16) string {
			return "\nrules: {allow: everything, from: loopback, to: any}\nledger: off\nlog: {level: warn}\nadmin: off\n"
		}),
	}
}

// watched is this proxy with settings, to which a port is given where there can be a dashboard.
func watched(name string, build command, settings func(y *yard, page uint16) string) contender {
	serve := func(ctx context.Context, y *yard, at, target netip.AddrPort) ([]string, error) {
		args, err := build(ctx, y, at, target)
		if err != nil {
			return nil, err
		}
		page, err := freePort(ctx)
		if err != nil {
			return nil, err
		}
		conf, err := y.file(name+".yaml", fmt.Sprintf("listeners: {listen: '%s'}\n", at)+settings(y, page))
		if err == nil {
			err = os.Chmod(conf, 0o644)
		}
		return []string{args[0], "serve", "--config", conf}, err
	}
	return contender{name: name, protocols: []load.Protocol{load.Socks5}, ours: true, anybody: true, command: serve}
}
