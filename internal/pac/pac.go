// Package pac writes proxy auto-configuration files: the script that tells a browser
// which targets it reaches by which proxy. Values in, text out. What it is given is
// put into the script as data, never as code.
//
// The script is of the oldest JavaScript that clients have, and asks for no name to be
// resolved: that would hold up every page, and tell the client's resolver what the proxy
// is there to find out.
package pac

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
)

// Type is the media type of the file.
const Type = "application/x-ns-proxy-autoconfig"

// Kind is how a proxy is spoken to, in the words of the files.
type Kind string

// The kinds.
const (
	HTTP   Kind = "PROXY"
	HTTPS  Kind = "HTTPS"
	SOCKS5 Kind = "SOCKS5"
	SOCKS4 Kind = "SOCKS" // what the oldest clients understand by it is SOCKS 4
)

// Proxy is one that a client may use.
type Proxy struct {
	Kind Kind
	Host string // as Host returns it
	Port uint16
}

// Place is a network or, where Name is set, a host name.
type Place struct {
	Prefix netip.Prefix
	Name   string // lower case, without trailing dot
	Below  bool   // not the name itself but every name below it
}

// IsLocal reports whether a place is, or may hold, a local one: see [Script.Private].
func (p Place) IsLocal() bool {
	if p.Name == "" {
		return slices.ContainsFunc(private, p.Prefix.Overlaps)
	}
	return !strings.Contains(p.Name, ".") || slices.ContainsFunc(localNames, func(domain string) bool {
		return p.Name == domain || strings.HasSuffix(p.Name, "."+domain)
	})
}

// private are the networks that are local everywhere (RFC 1918, 3927, 4193, 6598, and
// RFC 4291, section 2.5.6).
var private = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "fc00::/7", "fe80::/10")

// loopback is each machine to itself.
var loopback = prefixes("127.0.0.0/8", "0.0.0.0/32", "::1/128", "::/128")

// localNames are domains whose names mean something else in every network (RFC 6762,
// RFC 8375).
var localNames = []string{"local", "home.arpa"}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// Script is what a file says. A target is looked for in the order of the fields.
type Script struct {
	Direct  []Place // to be reached without a proxy, as this machine itself always is
	Through []Place // to be reached by the proxies
	// Private says that all other local targets are to be reached without a proxy: the
	// addresses of private and link-local networks, names without a dot, and those below
	// local and home.arpa.
	Private bool
	Proxies []Proxy // by which everything else is reached, the first that answers; at least one
}

// Text is the file. The client is told of no way around a proxy that does not answer.
func (s Script) Text() []byte {
	var ways []string
	for _, p := range s.Proxies {
		ways = append(ways, string(p.Kind)+" "+hostPort(p.Host, p.Port))
	}
	local := placesOf(nil)
	if s.Private {
		local = placesOf(private)
		local.Below = append(local.Below, localNames...)
	}
	direct := placesOf(loopback, s.Direct...)
	direct.Names, direct.Below = append(direct.Names, "localhost"), append(direct.Below, "localhost")
	var b strings.Builder
	b.WriteString("// Made by Sallyport of its settings. It is made anew each time that it is asked for.\n")
	for _, one := range []struct {
		name  string
		value any
	}{{"proxies", strings.Join(ways, "; ")}, {"direct", direct}, {"through", placesOf(nil, s.Through...)}, {"local", local}, {"plain", s.Private}} {
		text, err := json.Marshal(one.value) // which escapes what could end a script
		if err != nil {
			panic(err) // there is nothing in it that JSON does not have
		}
		b.WriteString("var " + one.name + " = " + string(text) + ";\n")
	}
	b.WriteString(program)
	return []byte(b.String())
}

// places are some, as the script has them.
type places struct {
	Names []string `json:"names"`
	Below []string `json:"below"`
	Nets  []net    `json:"nets"`
}

// net is a prefix as groups of 16 bits, as many of them as its bits reach into, its
// length, and how many groups an address has.
type net struct {
	Groups []int `json:"groups"`
	Bits   int   `json:"bits"`
	Of     int   `json:"of"`
}

func placesOf(networks []netip.Prefix, more ...Place) places {
	p := places{[]string{}, []string{}, []net{}}
	for _, n := range networks {
		p.Nets = append(p.Nets, netOf(n))
	}
	for _, m := range more {
		switch {
		case m.Name == "":
			p.Nets = append(p.Nets, netOf(m.Prefix))
		case m.Below:
			p.Below = append(p.Below, m.Name)
		default:
			p.Names = append(p.Names, m.Name)
		}
	}
	return p
}

func netOf(p netip.Prefix) net {
	p = p.Masked()
	bytes := p.Addr().AsSlice()
	n := net{Groups: []int{}, Bits: p.Bits(), Of: len(bytes) / 2}
	for i := 0; i*16 < p.Bits(); i++ {
		n.Groups = append(n.Groups, int(bytes[2*i])<<8|int(bytes[2*i+1]))
	}
	return n
}
