package daemon

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/pac"
	"github.com/sallyport/sallyport/server"
)

// pages is server.Server.Pages: the proxy auto-configuration file, for who may use the
// listener. It has neither passwords nor the names of users, and what it says of the
// network is what rules for its reader name of local places.
func (d *Daemon) pages(r server.PageRequest) (server.Page, bool) {
	if r.Path != "/proxy.pac" && r.Path != "/wpad.dat" {
		return server.Page{}, false
	}
	d.mu.Lock()
	now := d.inForce
	d.mu.Unlock()
	if now == nil || now.settings.PAC.Off {
		return server.Page{}, false
	}
	script, ok := pacFor(now, r)
	if !ok {
		return server.Page{}, false
	}
	return server.Page{Type: pac.Type, Body: script.Text()}, true
}

// pacFor makes the file for who asks; ok is false for who may use nothing.
func pacFor(now *inForce, r server.PageRequest) (s pac.Script, ok bool) {
	if !now.rules.policy.Reach(r.Listener, server.HTTP, r.Client.Addr()).MayPass() {
		return s, false
	}
	host, port, known := pac.Host(r.Host)
	if !known {
		host = r.Local.Addr().Unmap().WithZone("").String()
	}
	var to []access.Destination
	everywhere := false
	for _, one := range beside(now.doors, r) {
		at := one.port
		switch {
		case one.asked && port != 0: // what it is outside, where ports are forwarded
			at = port
		case one.asked && known:
			at = usualPort(r.TLS)
		case one.asked:
			at = r.Local.Port()
		}
		for _, way := range one.ways(r.TLS) {
			reach := now.rules.policy.Reach(one.door.listener.Name, way.by, r.Client.Addr())
			if !reach.MayPass() || now.rules.asksForPassword(one.door.listener.Name, way, r.Client.Addr()) {
				continue
			}
			s.Proxies = append(s.Proxies, pac.Proxy{Kind: way.kind, Host: host, Port: at})
			to, everywhere = append(to, reach.To...), everywhere || reach.Sets
		}
	}
	s.Direct, s.Through, s.Private = places(now.settings.PAC, to, everywhere)
	return s, len(s.Proxies) > 0
}

func usualPort(secure bool) uint16 {
	if secure {
		return 443
	}
	return 80
}

// neighbour is a listener that a client reaches at the same address as the one that it
// asked, which is the first of them.
type neighbour struct {
	door  *door
	port  uint16
	asked bool
}

// beside returns those. Behind a load balancer it knows of no other than the one.
func beside(doors []*door, r server.PageRequest) (all []neighbour) {
	found, local := false, r.Local.Addr().Unmap().WithZone("")
	for _, d := range doors {
		at, ok := d.socket.Addr().(*net.TCPAddr)
		if !ok || d.listener.Mapping != nil {
			continue
		}
		ip, port := at.AddrPort().Addr().Unmap().WithZone(""), at.AddrPort().Port()
		isHere := ip.IsUnspecified() || ip == local
		switch {
		case !found && d.listener.Name == r.Listener && (r.Relayed || isHere && port == r.Local.Port()):
			found = true
			all = slices.Insert(all, 0, neighbour{d, port, true})
		case !r.Relayed && isHere && port != r.Local.Port(): // that port is taken there, by the one that was asked
			all = append(all, neighbour{d, port, false})
		}
	}
	return all
}

// way is how a browser speaks to a listener.
type way struct {
	kind pac.Kind
	by   server.Protocol
}

// ways returns those of a listener, the best first. Who has asked over TLS is told of
// nothing that goes in the clear.
func (n neighbour) ways(secure bool) (all []way) {
	l := n.door.listener
	speaks := func(p server.Protocol) bool {
		return len(l.Protocols) == 0 && p != server.SSH || slices.Contains(l.Protocols, p)
	}
	if speaks(server.HTTP) && l.TLS != nil && (l.TLSOnly || secure) {
		all = append(all, way{pac.HTTPS, server.HTTP})
	}
	if l.TLSOnly || secure {
		return all
	}
	if speaks(server.HTTP) {
		all = append(all, way{pac.HTTP, server.HTTP})
	}
	if speaks(server.SOCKS5) {
		all = append(all, way{pac.SOCKS5, server.SOCKS5})
	}
	if speaks(server.SOCKS4) {
		all = append(all, way{pac.SOCKS4, server.SOCKS4})
	}
	return all
}

// asksForPassword reports whether a browser would have to sign in and cannot: by SOCKS
// none does.
func (r *rules) asksForPassword(listener string, w way, client netip.Addr) bool {
	return w.by == server.SOCKS5 && r.passwords != nil && r.passwords.Login(listener, w.by, client) == server.LoginRequired
}

// mostThrough is how many local places of rules the file names. Where there are more,
// everything local goes by the proxy, which is right for all of them.
const mostThrough = 1000

// places tells what a browser reaches directly and what it does not. What a rule denies
// is not among it: it is for the proxy to deny.
func places(p config.PAC, to []access.Destination, sets bool) (direct, through []pac.Place, local bool) {
	local = !p.Written || p.Private
	for _, t := range p.Direct {
		direct = append(direct, pac.Place{Prefix: t.Prefix, Name: t.Name, Below: t.Suffix})
	}
	reached := sets
	for _, t := range to {
		place := pac.Place{Prefix: t.Prefix, Name: t.Name, Below: t.Suffix}
		switch {
		case t.Class == access.Any || t.Class == access.Private:
			reached = true
		case (t.Name != "" || t.Prefix.IsValid()) && place.IsLocal() && !slices.Contains(through, place):
			through = append(through, place)
		}
	}
	slices.SortFunc(through, func(a, b pac.Place) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Prefix.String(), b.Prefix.String())
	})
	if reached && !p.Written || len(through) > mostThrough {
		return direct, nil, false
	}
	return direct, through, local
}
