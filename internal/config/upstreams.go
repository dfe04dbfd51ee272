package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/client"
)

const (
	defaultCheck = 30 * time.Second
	maxProxies   = 100 // of one upstream: each is checked again and again
)

// decodeUpstreams fills in s.Upstreams. Any key is the name of an upstream.
func (d *decoder) decodeUpstreams(n *node) {
	known := fields{}
	for _, p := range n.pairs {
		name := p.key.text
		known[name] = func(v *node) { d.upstream(p.key, name, v) }
	}
	d.mapping(n, known)
}

func (d *decoder) upstream(key *node, name string, n *node) {
	u := Upstream{Name: name, Choose: "first alive", Check: defaultCheck}
	if name == "" {
		d.fail(key, "an upstream without a name", "")
	}
	var login *node
	d.mapping(n, fields{
		"proxies": func(v *node) { u.Proxies = d.proxies(v) },
		"choose": func(v *node) {
			if word, ok := d.word(v, choices()); ok {
				u.Choose = word
			}
		},
		"proxy_protocol": func(v *node) {
			word, _ := d.word(v, proxyVersions())
			u.ProxyProtocol = slices.Index(proxyVersions().known, word) + 1
		},
		"check": func(v *node) {
			if value, ok := d.duration(v, time.Second); ok {
				u.Check = value
			}
		},
		"login": func(v *node) { login = v; u.LoginFile = d.loginFile(v) },
	})
	if n.kind == mapping && !n.has("proxies") {
		d.fail(n, "the upstream has no proxies", `write `+"`proxies: [\"socks5h://gw:1080\"]`")
	}
	if login != nil {
		d.takesLogin(login, u.Proxies)
	}
	d.settings.Upstreams = append(d.settings.Upstreams, u)
}

func choices() words {
	return words{what: "a way to choose", known: []string{"first alive", "round robin", "random", "by client"}}
}

func proxyVersions() words {
	return words{what: "a version of the PROXY protocol", known: []string{"v1", "v2"}}
}

func (d *decoder) loginFile(n *node) (file string) {
	d.mapping(n, fields{
		"file": func(v *node) { file = d.file(v, "it holds one line, user:password") },
	})
	if n.kind == mapping && !n.has("file") {
		d.fail(n, "the login has no file", "write `login: {file: FILE}`; the file holds one line, user:password")
	}
	return file
}

// takesLogin checks that it is plain which proxies a login is for.
func (d *decoder) takesLogin(n *node, urls []string) {
	for _, text := range urls {
		chain, err := client.Proxies(text)
		switch {
		case err != nil: // said already
		case len(chain) > 1:
			d.fail(n, "the login is for one proxy, and an entry of `proxies` is a chain", "write each login of a chain into its URLs")
			return
		case chain[0].HasUser:
			d.fail(n, "an entry of `proxies` has a user in its URL, and this login would be another", "keep one of them")
			return
		case strings.HasPrefix(chain[0].Scheme, "socks4"):
			d.fail(n, "SOCKS 4 has no passwords", "write the userid into the URL")
			return
		}
	}
}

// proxies returns n as the URLs of proxies.
func (d *decoder) proxies(n *node) []string {
	if len(n.items) > maxProxies {
		d.fail(n, fmt.Sprintf("over %d proxies", maxProxies), "")
		return nil
	}
	var list []string
	d.each(n, func(item *node) {
		text, ok := d.text(item)
		if !ok {
			return
		}
		chain, err := client.Proxies(text)
		switch {
		case err != nil:
			problem := err.Error()
			d.fail(item, strings.TrimPrefix(problem, "client: "), "write a URL such as socks5h://gw:1080; several with commas between are a chain")
			return
		case slices.Contains(list, text):
			d.fail(item, "the same proxy stands here twice", "keep one of them")
			return
		}
		if slices.ContainsFunc(chain, func(p client.Proxy) bool { return p.HasSecret }) {
			d.secrets = append(d.secrets, secret{item, "`login: {file: FILE}`"})
		}
		d.firstProxies = append(d.firstProxies, firstProxy{item, chain[0]})
		list = append(list, text)
	})
	return list
}

// firstProxy is a proxy that is reached from here, and where it is written.
type firstProxy struct {
	at *node
	client.Proxy
}

// upstreamReferences checks what upstreams have to do with other sections.
func (d *decoder) upstreamReferences() {
	var names []string
	for _, u := range d.settings.Upstreams {
		names = append(names, u.Name)
	}
	for _, n := range d.upstreamRefs {
		if !slices.Contains(names, n.text) {
			d.dangling(n, "no upstream is called "+quote(n.text), "", n.text, names)
		}
	}
	for _, p := range d.firstProxies {
		if i := slices.IndexFunc(d.listeners, func(l listenerPlace) bool { return l.ok && l.addr.isReachedAt(p.Proxy) }); i >= 0 {
			d.fail(p.at, "this proxy is the listener "+quote(d.settings.Listeners[i].Name)+": what goes there comes back here", "name another proxy")
		}
	}
}

// secret is a URL with a password, and where the password could be instead.
type secret struct {
	at        *node
	elsewhere string
}

// exposedSecrets checks that not everybody can read them.
func (d *decoder) exposedSecrets() {
	for _, s := range d.secrets {
		if d.disk.exposed(s.at.src.file) {
			d.fail(s.at, "there is a password in this URL, and others than the owner and the group can read the settings", "chmod 640, or move it out: "+s.elsewhere)
		}
	}
}

// isReachedAt tells whether a proxy is certainly what listens here.
func (e endpoint) isReachedAt(p client.Proxy) bool {
	port, _ := parsePort(p.Port)
	return !e.udp && e.isReachedBy(strings.ToLower(strings.TrimSuffix(p.Host, ".")), port)
}

// isReachedBy tells whether who connects to a host and a port certainly comes here.
func (e endpoint) isReachedBy(host string, port uint16) bool {
	ip, err := netip.ParseAddr(host)
	local := host == "localhost" || err == nil && ip.Unmap().IsLoopback()
	switch {
	case port != e.port || e.socket != "":
		return false
	case e.everywhere():
		return local
	case err == nil:
		return e.ip == ip.Unmap() || e.name == "localhost" && local
	}
	return host == e.name || host == "localhost" && e.loopback()
}
