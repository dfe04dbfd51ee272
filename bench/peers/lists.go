//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/sallyport/sallyport/bench/load"
)

// deniedName and deniedNetwork are the entries of the lists.
func deniedName(i int) string { return fmt.Sprintf("host%d.denied.example", i) }

func deniedNetwork(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
}

// maxLists is as many networks as deniedNetwork knows.
const maxLists = 1 << 16

// listed are all entries, a line each.
func listed[T any](count int, entry func(int) T) string {
	var b strings.Builder
	for i := range count {
		fmt.Fprintln(&b, entry(i))
	}
	return b.String()
}

// deciders are the proxies that can deny by lists, each told to deny so many networks and as many host names.
func deciders(count int) []contender {
	count = min(count, maxLists)
	return []contender{
		{name: "sallyport", protocols: socksAndHTTP, ours: true, command: func(ctx context.Context, y *yard, at, target netip.AddrPort) ([]string, error) {
			return sallyportWithLists(ctx, y, count, at, target)
		}},
		{name: "dante", protocols: []load.Protocol{load.Socks5, load.Socks4}, command: func(ctx context.Context, y *yard, at, target netip.AddrPort) ([]string, error) {
			return danteWithLists(ctx, y, count, at, target)
		}},
		{name: "squid", protocols: []load.Protocol{load.HTTP}, command: func(ctx context.Context, y *yard, at, target netip.AddrPort) ([]string, error) {
			return squidWithLists(ctx, y, count, at, target)
		}},
	}
}

// listFiles writes the two lists where every proxy can read them.
func listFiles(y *yard, count int) (names, networks string, err error) {
	if names, err = y.file("names", listed(count, deniedName)); err != nil {
		return "", "", err
	}
	if networks, err = y.file("networks", listed(count, deniedNetwork)); err != nil {
		return "", "", err
	}
	return names, networks, errors.Join(os.Chmod(names, 0o644), os.Chmod(networks, 0o644))
}

func sallyportWithLists(ctx context.Context, y *yard, count int, at, target netip.AddrPort) ([]string, error) {
	args, err := sallyport(ctx, y, at, target)
	if err != nil {
		return nil, err
	}
	names, networks, err := listFiles(y, count)
	if err != nil {
		return nil, err
	}
	conf, err := y.file("sallyport.yaml", fmt.Sprintf(`
listeners: {listen: "%s"}
sets: {denied: {hosts: "%s", prefixes: "%s"}}
rules: [{deny: lists, to: "@denied"}, {allow: the rest, from: loopback, to: any}]
`, at, names, networks))
	return []string{args[0], "serve", "--config", conf, "--admin", "off"}, err
}

// danteWithLists gives dante, which has no lists, a rule for each network. Rules for as many host names, each of which it
// looks up, it does not begin to serve with.
func danteWithLists(ctx context.Context, y *yard, count int, at, target netip.AddrPort) ([]string, error) {
	args, err := dante(ctx, y, at, target)
	if err != nil {
		return nil, err
	}
	rules := listed(count, func(i int) string { return fmt.Sprintf("socks block { from: 0/0 to: %s }", deniedNetwork(i)) })
	text, err := os.ReadFile(args[2])
	if err != nil {
		return nil, err
	}
	_, err = y.file("danted.conf", strings.Replace(string(text), "socks pass", rules+"socks pass", 1))
	return args, err
}

func squidWithLists(ctx context.Context, y *yard, count int, at, target netip.AddrPort) ([]string, error) {
	args, err := squid(ctx, y, at, target)
	if err != nil {
		return nil, err
	}
	names, networks, err := listFiles(y, count)
	if err != nil {
		return nil, err
	}
	conf := args[len(args)-1]
	text, err := os.ReadFile(conf)
	if err != nil {
		return nil, err
	}
	rules := fmt.Sprintf("acl names dstdomain \"%s\"\nacl networks dst \"%s\"\nhttp_access deny names\nhttp_access deny networks\n", names, networks)
	return args, os.WriteFile(conf, []byte(strings.Replace(string(text), "http_access", rules+"http_access", 1)), 0o644)
}
