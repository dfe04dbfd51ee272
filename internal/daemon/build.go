package daemon

import (
	"cmp"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// buildServer makes the server that the settings describe. This file alone
// turns settings into what the other packages take.
func buildServer(s *config.Settings, log *slog.Logger) (*server.Server, error) {
	policy := buildPolicy(s)
	passwords, err := buildPasswords(s, policy, log)
	if err != nil {
		return nil, err
	}
	return &server.Server{
		Policy:        policy,
		Authenticator: passwords,
		Recorder:      sessionLog{log},
		Log:           log,
		Timeouts: server.Timeouts{
			Handshake:   s.Timeouts.Handshake,
			Connect:     s.Timeouts.Connect,
			Bind:        s.Timeouts.Bind,
			Association: s.Timeouts.Association,
			Idle:        s.Timeouts.Idle,
			HalfClosed:  s.Timeouts.HalfClosed,
		},
	}, nil
}

// buildPasswords returns nil where the settings name no users.
func buildPasswords(s *config.Settings, policy *access.Policy, log *slog.Logger) (server.Authenticator, error) {
	if s.Users.File == "" {
		return nil, nil
	}
	file, err := access.OpenUsersFile(s.Users.File, log)
	if err != nil {
		return nil, &SettingsError{placed(s.Users.File, err)}
	}
	return access.NewPasswords(policy, file, log), nil
}

func buildPolicy(s *config.Settings) *access.Policy {
	p := &access.Policy{Resolver: buildResolver(s.Resolver), Ident: access.Ident{Timeout: s.Timeouts.Ident}}
	for _, r := range s.Rules {
		p.Rules = append(p.Rules, buildRule(r, s.Groups))
	}
	return p
}

func buildResolver(r config.Resolver) access.Resolver {
	if len(r.Servers) > 0 {
		return access.NewCache(access.NewNameServers(r.Servers), r.Cache)
	}
	return access.NewCache(net.DefaultResolver, r.Cache)
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
	secure, err := newTLS(l.TLS, log)
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
