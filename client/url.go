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

const defaultPort = "1080"

// proxy is what a proxy URL says.
type proxy struct {
	scheme  string // socks4 or socks4a
	host    string // without brackets
	address string // host:port
	userID  string
}

// sendsNames reports whether host names go to the proxy unresolved.
func (p proxy) sendsNames() bool { return p.scheme == "socks4a" }

// String returns the proxy as errors name it: without the userid.
func (p proxy) String() string { return p.scheme + "://" + p.address }

// parseProxy reads a proxy URL. Its errors repeat nothing of the URL but a
// scheme that is known, and never wrap those of net/url: a misplaced separator
// is enough for a password to stand where a port, a host or a path should.
func parseProxy(raw string) (proxy, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return proxy{}, errors.New("client: the proxy URL cannot be read: want socks4a://[userid@]host[:port]")
	}
	switch u.Scheme {
	case "socks4", "socks4a":
	case "socks5", "socks5h", "http", "https":
		return proxy{}, fmt.Errorf("client: %s proxies are not in this version yet: %w", u.Scheme, errors.ErrUnsupported)
	default:
		return proxy{}, errors.New("client: the proxy URL must begin with socks4:// or socks4a://")
	}
	if u.Opaque != "" || u.Hostname() == "" {
		return proxy{}, errors.New("client: the proxy URL has no host")
	}
	// Other programs write the path "/" where they mean none.
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return proxy{}, errors.New("client: the proxy URL has a path, a query or a fragment; a SOCKS proxy has none of them")
	}
	port, err := parsePort(u.Port())
	if err != nil {
		return proxy{}, err
	}
	userID, err := parseUserID(u.User)
	if err != nil {
		return proxy{}, err
	}
	return proxy{
		scheme:  u.Scheme,
		host:    u.Hostname(),
		address: net.JoinHostPort(u.Hostname(), port),
		userID:  userID,
	}, nil
}

func parsePort(port string) (string, error) {
	if port == "" {
		return defaultPort, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", errors.New("client: the port in the proxy URL is not a number from 1 to 65535")
	}
	return strconv.FormatUint(n, 10), nil
}

// parseUserID returns the userid of a URL's user information, which may be nil.
func parseUserID(user *url.Userinfo) (string, error) {
	if _, ok := user.Password(); ok {
		return "", errors.New("client: the proxy URL has a password, and SOCKS 4 has none to send")
	}
	id := user.Username()
	if strings.ContainsRune(id, 0) {
		return "", errors.New("client: the userid in the proxy URL has a NUL byte, which would end it")
	}
	if len(id) > socks.DefaultUserID {
		return "", fmt.Errorf("client: the userid in the proxy URL is %d bytes long, more than %d", len(id), socks.DefaultUserID)
	}
	return id, nil
}
