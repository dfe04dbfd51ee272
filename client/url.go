package client

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/socks"
)

// proxy is what a proxy URL says.
type proxy struct {
	scheme             string
	host               string // without brackets
	address            string // host:port
	overTLS            bool
	hasUser, hasSecret bool
	protocol
}

// String returns the proxy as errors name it: without the user.
func (p proxy) String() string { return p.scheme + "://" + p.address }

// Proxy is what a proxy URL says of a proxy, without its login.
type Proxy struct {
	Scheme     string // socks4, socks4a, socks5, socks5h, http or https
	Host, Port string // without brackets; the port is a number
	SendsNames bool   // names of targets are sent to it unresolved
	HasUser    bool   // the URL has a user
	HasSecret  bool   // the URL has a password
}

// String returns the proxy as a URL.
func (p Proxy) String() string { return p.Scheme + "://" + net.JoinHostPort(p.Host, p.Port) }

// Proxies reads a proxy URL, or a chain of them, as New does, and returns the
// proxies in the order in which they are reached. Its error is New's.
func Proxies(proxyURL string) ([]Proxy, error) {
	var list []Proxy
	for _, text := range splitChain(proxyURL) {
		p, err := parseProxy(text)
		if err != nil {
			return nil, err
		}
		_, port, _ := net.SplitHostPort(p.address) // which was put together so
		list = append(list, Proxy{
			Scheme: p.scheme, Host: p.host, Port: port,
			SendsNames: p.names(), HasUser: p.hasUser, HasSecret: p.hasSecret,
		})
	}
	return list, nil
}

// scheme is what there is to know of a kind of proxy before one is named.
type scheme struct {
	port     string // where the URL has none
	overTLS  bool
	protocol func(*url.Userinfo) (protocol, error) // for what stands before the @, which may be nil
}

// schemes returns the kinds of proxies, by the beginnings of their URLs.
func schemes() map[string]scheme {
	return map[string]scheme{
		"socks":   {"1080", false, newSOCKS4(false)}, // as curl has it
		"socks4":  {"1080", false, newSOCKS4(false)},
		"socks4a": {"1080", false, newSOCKS4(true)},
		"socks5":  {"1080", false, newSOCKS5(false)},
		"socks5h": {"1080", false, newSOCKS5(true)},
		"http":    {"1080", false, newHTTP}, // as curl has it
		"https":   {"443", true, newHTTP},
	}
}

// splitChain returns the URLs of a chain. A comma alone does not part two of
// them: it may stand in a password.
func splitChain(chain string) []string {
	var urls []string
	start := 0
	for at := range len(chain) {
		if chain[at] == ',' && beginsURL(chain[at+1:]) {
			urls = append(urls, chain[start:at])
			start = at + 1
		}
	}
	return append(urls, chain[start:])
}

// beginsURL reports whether a URL of some scheme begins at s, behind blanks.
func beginsURL(s string) bool {
	before, _, found := strings.Cut(s, "://")
	return found && strings.Trim(strings.ToLower(before), " abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// parseProxy reads a proxy URL. Its errors repeat nothing of the URL but a
// scheme that is known, and never wrap those of net/url: a misplaced separator
// is enough for a password to stand where a port, a host or a path should.
func parseProxy(raw string) (proxy, error) {
	u, err := url.Parse(strings.TrimLeft(raw, " "))
	if err != nil {
		return proxy{}, errors.New("client: the proxy URL cannot be read: want scheme://[user[:password]@]host[:port]")
	}
	kind, known := schemes()[u.Scheme]
	if !known {
		return proxy{}, errors.New("client: the proxy URL must begin with socks4://, socks4a://, socks5://, socks5h://, http:// or https://")
	}
	if u.Opaque != "" || u.Hostname() == "" {
		return proxy{}, errors.New("client: the proxy URL has no host")
	}
	if _, err := socks.NewAddr(u.Hostname(), 0); err != nil { // the error would quote it
		return proxy{}, errors.New("client: the host in the proxy URL is neither a name nor an address")
	}
	// Other programs write the path "/" where they mean none.
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return proxy{}, errors.New("client: the proxy URL has a path, a query or a fragment; a proxy has none of them")
	}
	port, err := parsePort(u.Port(), kind.port)
	if err != nil {
		return proxy{}, err
	}
	speaks, err := kind.protocol(u.User)
	if err != nil {
		return proxy{}, err
	}
	secret, hasSecret := u.User.Password()
	return proxy{
		hasUser:   u.User.String() != "",
		hasSecret: hasSecret && secret != "",
		scheme:    u.Scheme,
		host:      u.Hostname(),
		address:   net.JoinHostPort(u.Hostname(), port),
		overTLS:   kind.overTLS,
		protocol:  speaks,
	}, nil
}

func parsePort(port, otherwise string) (string, error) {
	if port == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", errors.New("client: the port in the proxy URL is not a number from 1 to 65535")
	}
	return strconv.FormatUint(n, 10), nil
}

// checkField returns an error if a field of a protocol cannot carry what stands
// in the URL for it.
func checkField(field, value string) error {
	if strings.ContainsRune(value, 0) {
		return fmt.Errorf("client: the %s in the proxy URL has a NUL byte", field)
	}
	if len(value) > 255 {
		return fmt.Errorf("client: the %s in the proxy URL is %d bytes long, more than 255", field, len(value))
	}
	return nil
}
