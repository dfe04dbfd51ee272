package daemon

import (
	"cmp"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/limits"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// This file alone turns settings into what the other packages take.

// buildRules makes the rules that the settings describe, with what the ledger has of
// people (nil: nothing), whose sessions count in table (nil: nowhere). What is the same in
// those before (nil: there were none) goes on: users file, guesses, answers of
// name servers, and what is known of upstreams.
func buildRules(s *config.Settings, before *inForce, p *people, table *limits.Table, log *slog.Logger) (*rules, error) {
	s = p.fill(s)
	var known waysOut
	var mapped mappings
	if before != nil {
		known, mapped = before.rules.ways, before.rules.maps
	}
	r := &rules{limits: table, people: p}
	var ofWays, ofLists, ofMaps error
	r.ways, ofWays = buildWays(s, known, log)
	if before != nil && reflect.DeepEqual(before.settings.Resolver, s.Resolver) {
		r.resolver = before.rules.resolver
	} else {
		r.resolver = buildResolver(s.Resolver)
	}
	r.lists, ofLists = buildLists(s, log)
	r.maps, ofMaps = buildMappings(s, mapped, r.resolver, log)
	ofUsers := r.openUsers(s, before, log)
	if err := joinFaults(ofWays, ofLists, ofMaps, ofUsers); err != nil {
		return nil, err
	}
	r.policy = buildPolicy(s, r, access.Options{Resolver: r.resolver})
	switch users := r.directory(s); {
	case users == nil:
	case before != nil && before.rules.passwords != nil:
		r.passwords = before.rules.passwords.Renewed(r.policy, users)
	default:
		r.passwords = access.NewPasswords(r.policy, users, log)
	}
	return r, nil
}

// directory is who may sign in; nil: nobody.
func (r *rules) directory(s *config.Settings) access.Directory {
	switch {
	case r.file != nil:
		return r.file
	case s.Users.Ledger:
		return r.people.list
	}
	return nil
}

// openUsers reads the users file, if there is to be one.
func (r *rules) openUsers(s *config.Settings, before *inForce, log *slog.Logger) (err error) {
	switch {
	case s.Users.File == "":
		return nil
	case before != nil && before.rules.file != nil && before.settings.Users == s.Users:
		if err = access.CheckUsersFile(s.Users.File); err == nil {
			r.file = before.rules.file
			r.file.Look()
		}
	default:
		r.file, err = access.OpenUsersFile(s.Users.File, log)
	}
	return placed(s.Users.File, err)
}

func buildTimeouts(t config.Timeouts) server.Timeouts {
	return server.Timeouts{
		Handshake:   t.Handshake,
		Connect:     t.Connect,
		Bind:        t.Bind,
		Association: t.Association,
		Idle:        t.Idle,
		HalfClosed:  t.HalfClosed,
	}
}

// buildPolicy fills in what the settings say of o.
func buildPolicy(s *config.Settings, by *rules, o access.Options) *access.Policy {
	var all []access.Rule
	groups := groupsOf(s.Groups)
	for _, r := range s.Rules {
		rule := buildRule(r, by.lists)
		rule.Way, rule.SendNames = by.ways.of(r)
		if len(r.Limits) > 0 && by.limits != nil {
			rule.Budget = by.limits.Of(r.Name, r.Limits, groups).Budget
		}
		all = append(all, rule)
	}
	o.Ident = access.Ident{Timeout: s.Timeouts.Ident}
	o.ListenerHours = by.lists.hours(s.Listeners)
	o.VirtualPorts = map[string]*access.Users{}
	for _, p := range s.VirtualPorts {
		o.VirtualPorts[p.Name] = users(p.Users, by.lists.groups)
	}
	return access.NewPolicy(all, o)
}

func buildResolver(r config.Resolver) access.Resolver {
	if len(r.Servers) > 0 {
		return access.NewCache(access.NewNameServers(r.Servers), r.Cache)
	}
	return access.NewCache(net.DefaultResolver, r.Cache)
}

func buildRule(r config.Rule, by lists) access.Rule {
	rule := access.Rule{
		Name:      r.Name,
		Deny:      r.Deny,
		Listeners: r.Listeners,
		Protocols: words[server.Protocol](r.Protocols),
		Proofs:    words[server.Proof](r.Proof),
		During:    by.schedules[r.During],
		Limits:    r.Limits,
		Bind: server.BindOptions{
			PrimaryOptional:  r.Bind.PrimaryOptional,
			AnyPeer:          r.Bind.AnyPeer,
			WaitForRightPeer: r.Bind.WaitForRightPeer,
		},
	}
	for _, command := range r.Commands {
		rule.Commands = append(rule.Commands, commands[command])
	}
	for _, n := range r.From {
		if n.Set != "" {
			rule.FromSets = append(rule.FromSets, by.sets[n.Set])
		} else {
			rule.From = append(rule.From, network(n.Word, n.Prefix))
		}
	}
	for _, t := range r.To {
		if t.Set != "" {
			rule.ToSets = append(rule.ToSets, by.sets[t.Set])
		} else {
			rule.To = append(rule.To, destination(t))
		}
	}
	for _, p := range r.Ports {
		rule.Ports = append(rule.Ports, server.PortRange(p))
	}
	if len(r.Users) > 0 {
		rule.Users = users(r.Users, by.groups)
	}
	return rule
}

// commands are the settings' words for them.
var commands = map[string]socks.Command{
	socks.Connect.String():   socks.Connect,
	socks.Bind.String():      socks.Bind,
	socks.Associate.String(): socks.Associate,
}

func words[T ~string](from []string) []T {
	var to []T
	for _, w := range from {
		to = append(to, T(w))
	}
	return to
}

func network(word string, prefix netip.Prefix) access.Network {
	return access.Network{Class: access.Class(word), Prefix: prefix}
}

func destination(t config.Target) access.Destination {
	return access.Destination{Network: network(t.Word, t.Prefix), Name: t.Name, Suffix: t.Suffix}
}

// users puts the members in the place of each group.
func users(written []string, groups map[string][]string) *access.Users {
	var u access.Users
	for _, w := range written {
		group, isGroup := strings.CutPrefix(w, "@")
		switch {
		case w == "any":
			u.Any = true
		case isGroup:
			u.Names = append(u.Names, groups[group]...)
		default:
			u.Names = append(u.Names, w)
		}
	}
	return &u
}

func buildListener(l config.Listener, log *slog.Logger) (server.Listener, error) {
	secure, err := newTLS(l.TLS, slices.Contains(l.Protocols, string(server.HTTP)), log)
	return server.Listener{
		Name:        cmp.Or(l.Name, l.Listen),
		Protocols:   words[server.Protocol](l.Protocols),
		Advertise:   l.Advertise,
		BindPorts:   server.PortRange(l.BindPorts),
		HideAddress: l.HideAddress,
		TLS:         secure,
		TLSOnly:     l.TLS.Only,
		MaxUserID:   l.UserIDMax,
		ProxyFrom:   prefixes(l.ProxyProtocol),
	}, err
}

// prefixes writes out the words that can stand for load balancers.
func prefixes(networks []config.Network) []netip.Prefix {
	var all []netip.Prefix
	for _, n := range networks {
		switch access.Class(n.Word) {
		case access.Loopback:
			all = append(all, parsePrefixes("127.0.0.0/8", "::1/128")...)
		case access.Private:
			all = append(all, parsePrefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")...)
		default:
			all = append(all, n.Prefix)
		}
	}
	return all
}

func parsePrefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}
