//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"github.com/sallyport/sallyport/bench/load"
)

// limited are this proxy without limits, and with some that never bite.
func limited() []contender {
	one := func(name, limits string) contender {
		command := func(ctx context.Context, y *yard, at, target netip.AddrPort) ([]string, error) {
			args, err := sallyport(ctx, y, at, target)
			if err != nil {
				return nil, err
			}
			conf, err := y.file(name+".yaml", fmt.Sprintf(`
listeners: {listen: "%s"}
limits:
  fast: {rate: 1 Tbit/s, per: source}
  much: {quota: 1048576 TiB, every: day, per: source, warn: [80%%, 95%%]}
rules: {allow: everything, from: loopback, to: any%s}
ledger: off
`, at, limits))
			if err == nil {
				err = os.Chmod(conf, 0o644)
			}
			return []string{args[0], "serve", "--config", conf, "--admin", "off"}, err
		}
		return contender{name: name, protocols: []load.Protocol{load.Socks5}, ours: true, anybody: true, datagrams: true, command: command}
	}
	return []contender{one("sallyport", ""), one("quota", ", limits: much"), one("rate", ", limits: fast"), one("both", ", limits: [much, fast]")}
}
