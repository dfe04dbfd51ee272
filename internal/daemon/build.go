package daemon

import (
	"cmp"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// buildServer makes the server that the settings describe. This file alone
// turns settings into what the other packages take.
func buildServer(s *config.Settings, log *slog.Logger) *server.Server {
	return &server.Server{
		Policy:   buildPolicy(s),
		Recorder: sessionLog{log},
		Log:      log,
		Timeouts: server.Timeouts{
			Handshake:  s.Timeouts.Handshake,
			Connect:    s.Timeouts.Connect,
			Bind:       s.Timeouts.Bind,
			Idle:       s.Timeouts.Idle,
			HalfClosed: s.Timeouts.HalfClosed,
		},
	}
}

func buildPolicy(s *config.Settings) *access.Policy {
	p := &access.Policy{Ident: access.Ident{Timeout: s.Timeouts.Ident}}
	for _, r := range s.Rules {
		p.Rules = append(p.Rules, buildRule(r, s.Groups))
	}
	return p
}

func buildRule(r config.Rule, groups map[string][]string) access.Rule {
	rule := access.Rule{
		Name:      r.Name,
		Deny:      r.Deny,
		Listeners: r.Listeners,
		Protocols: words[server.Protocol](r.Protocols),
		Proofs:    words[server.Proof](r.Proof),
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
		rule.From = append(rule.From, network(n.Word, n.Prefix))
	}
	for _, t := range r.To {
		rule.To = append(rule.To, access.Destination{Network: network(t.Word, t.Prefix), Name: t.Name, Suffix: t.Suffix})
	}
	for _, p := range r.Ports {
		rule.Ports = append(rule.Ports, server.PortRange(p))
	}
	if len(r.Users) > 0 {
		rule.Users = users(r.Users, groups)
	}
	return rule
}

// commands are the settings' words for them.
var commands = map[string]socks.Command{
	socks.Connect.String(): socks.Connect,
	socks.Bind.String():    socks.Bind,
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

func buildListener(l config.Listener) server.Listener {
	return server.Listener{
		Name:        cmp.Or(l.Name, l.Listen),
		Protocols:   words[server.Protocol](l.Protocols),
		Advertise:   l.Advertise,
		BindPorts:   server.PortRange(l.BindPorts),
		HideAddress: l.HideAddress,
		MaxUserID:   l.UserIDMax,
	}
}
