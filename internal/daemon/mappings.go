package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"reflect"
	"sync"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/upstream"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// mappings are the port mappings of listeners.
type mappings map[mappingKey]mapping

// mappingKey tells listeners apart, of which several may ask for any free port.
type mappingKey struct{ name, listen string }

func keyOf(l config.Listener) mappingKey { return mappingKey{nameOf(l), l.Listen} }

// mapping is a port mapping, and the settings that made it.
type mapping struct {
	*server.Mapping
	targets  *upstream.Targets // nil: there is only one
	settings config.Map
}

// buildMappings connects to nothing. What is as it was before is kept, with all
// that is known of its targets.
func buildMappings(s *config.Settings, before mappings, resolver access.Resolver, log *slog.Logger) (mappings, error) {
	all := make(mappings)
	var faults []error
	for _, l := range s.Listeners {
		if l.Map == nil {
			continue
		}
		known, kept := before[keyOf(l)]
		if kept && l.Map.TLS.CA == "" && reflect.DeepEqual(known.settings, *l.Map) {
			all[keyOf(l)] = known
			continue
		}
		m, err := buildMapping(l, resolver, log)
		if err != nil {
			faults = append(faults, fmt.Errorf("the listener %q: %w", nameOf(l), err))
		}
		all[keyOf(l)] = m
	}
	return all, joinFaults(faults...)
}

func buildMapping(l config.Listener, resolver access.Resolver, log *slog.Logger) (mapping, error) {
	m := &server.Mapping{ProxyVersion: l.Map.ProxyProtocol, Idle: l.Map.Idle}
	roots, err := readRoots(l.Map.TLS.CA)
	if err != nil {
		return mapping{}, err
	}
	for _, t := range l.Map.Targets {
		target := server.MapTarget{Socket: t.Socket}
		if t.Socket == "" {
			if target.Addr, err = socks.NewAddr(t.Host, t.Port); err != nil {
				return mapping{}, err
			}
		}
		if l.Map.TLS.On {
			target.TLS = targetTLS(l.Map.TLS, t, roots)
		}
		m.Targets = append(m.Targets, target)
	}
	built := mapping{Mapping: m, settings: *l.Map}
	if len(m.Targets) > 1 {
		built.targets = upstream.NewTargets(upstream.TargetSettings{
			Listener: nameOf(l), Targets: m.Targets, Choose: upstream.Choose(l.Map.Choose), Check: l.Map.Check,
			ProxyVersion: m.ProxyVersion, Resolver: resolver, Log: log,
		})
		m.Balance = built.targets
	}
	return built, nil
}

// targetTLS are the terms on which a target is spoken to. A unix socket has no
// name of its own.
func targetTLS(t config.MapTLS, target config.MapTarget, roots *x509.CertPool) *tls.Config {
	name := t.Name
	if name == "" {
		name = target.Host
	}
	if name == "" {
		name = "localhost"
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: name, RootCAs: roots,
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
}

// readRoots reads the certificates of who signs others; nil: the system's.
func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pool, err := readAuthorities(file)
	if err != nil {
		return nil, fmt.Errorf("ca %s: %w", file, err)
	}
	return pool, nil
}

// watch checks all targets until ctx ends.
func (m mappings) watch(ctx context.Context) {
	var checks sync.WaitGroup
	for _, one := range m {
		if one.targets != nil {
			checks.Go(func() { one.targets.Run(ctx) })
		}
	}
	checks.Wait()
}
