package client_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/client"
)

// setProxies sets the variables for proxies, and no others of them. Each is
// "NAME=value".
func setProxies(t *testing.T, variables ...string) {
	t.Helper()
	for _, name := range []string{"http", "https", "all", "no"} {
		t.Setenv(name+"_proxy", "")
		t.Setenv(strings.ToUpper(name)+"_PROXY", "")
	}
	for _, variable := range variables {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
}

// dialled returns what an Environment connects to first to reach an address.
func dialled(t *testing.T, target string) string {
	t.Helper()
	var got string
	e, err := client.FromEnvironment(client.WithForward(forwardFunc(func(address string) { got = address })))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Dial("tcp", target); err == nil {
		t.Fatal("a connection out of nothing")
	}
	return got
}

// forwardFunc is a forward dialer that is told where to, and goes nowhere.
type forwardFunc func(address string)

func (f forwardFunc) DialContext(_ context.Context, _, address string) (net.Conn, error) {
	f(address)
	return nil, errGaveUp
}

func TestEnvironmentChoosesTheProxy(t *testing.T) {
	const direct = ""
	for _, c := range []struct{ environment, target, want string }{
		{"", "example.com:80", direct},
		{"ALL_PROXY=socks5h://all", "example.com:22", "all:1080"},
		{"all_proxy=socks5h://lower ALL_PROXY=socks5h://upper", "example.com:22", "lower:1080"},
		{"ALL_PROXY=gw:3128", "example.com:22", "gw:3128"},
		{"ALL_PROXY=gw", "example.com:22", "gw:1080"},
		{"ALL_PROXY=socks4a://a,socks5h://b", "example.com:22", "a:1080"},
		{"https_proxy=lower HTTPS_PROXY=upper ALL_PROXY=all", "example.com:443", "lower:1080"},
		{"HTTPS_PROXY=upper ALL_PROXY=all", "example.com:https", "upper:1080"},
		{"HTTPS_PROXY=upper ALL_PROXY=all", "example.com:80", "all:1080"},
		{"HTTPS_PROXY=upper", "example.com:80", direct},
		{"http_proxy=web ALL_PROXY=all", "example.com:http", "web:1080"},
		{"http_proxy=web ALL_PROXY=all", "example.com:443", "all:1080"},
		{"http_proxy=web", "example.com:8080", direct},
		{"ALL_PROXY=socks://all/", "192.0.2.1:22", "all:1080"}, // what GNOME sets
		{"HTTP_PROXY=web", "example.com:80", direct},           // a "Proxy" header for CGI
		{"ALL_PROXY=all NO_PROXY=example.com", "example.com:22", direct},
		{"ALL_PROXY=all no_proxy=example.com NO_PROXY=example.org", "example.org:22", "all:1080"},
		{"https_proxy=web no_proxy=example.com", "example.com:443", direct},
	} {
		t.Run(c.environment+" "+c.target, func(t *testing.T) {
			setProxies(t, strings.Fields(c.environment)...)
			if c.want == direct {
				c.want = c.target
			}
			if got := dialled(t, c.target); got != c.want {
				t.Errorf("dialled %s, want %s", got, c.want)
			}
		})
	}
}

func TestNoProxy(t *testing.T) {
	for _, c := range []struct {
		list, host string
		direct     bool
	}{
		{"*", "example.com", true},
		{"*", "192.0.2.1", true},
		{"*,example.org", "example.com", false}, // only alone
		{"*.example.com", "www.example.com", false},
		{"example.com", "example.com", true},
		{"example.com", "EXAMPLE.com.", true},
		{"Example.COM.", "example.com", true},
		{"example.com", "www.example.com", true},
		{".example.com", "www.example.com", true},
		{".example.com", "example.com", true},
		{"example.com", "nonexample.com", false},
		{"www.example.com", "example.com", false},
		{"example.com:80", "example.com", false}, // ports do not go
		{"a.test, b.test,,c.test\td.test", "b.test", true},
		{"a.test, b.test,,c.test\td.test", "c.test", true},
		{"a.test, b.test,,c.test\td.test", "d.test", true},
		{",", "example.com", false},
		{".", "example.com", false},
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.10", false},
		{"2.1", "192.0.2.1", false}, // an address has no domains above it
		{"192.0.2.0/24", "192.0.2.77", true},
		{"192.0.2.77/24", "192.0.2.1", true},
		{"192.0.2.0/24", "192.0.3.1", false},
		{"192.0.2.0/33", "192.0.2.0", false},
		{"192.0.2.0/24", "::ffff:192.0.2.7", true},
		{"192.0.2.0/24", "www.example.com", false},
		{"::1", "::1", true},
		{"[::1]", "0:0::1", true},
		{"2001:db8::/32", "2001:db8:1::1", true},
		{"2001:db8::/32", "2001:db9::1", false},
		{"fe80::/10", "fe80::1%eth0", true},
		{"0.0.0.0/0", "192.0.2.1", false}, // of no bits, it is the address alone
		{"192.0.2.1/0", "192.0.2.1", true},
		{"::/0", "2001:db8::1", false},
		{"127.0.0.0/8", "127.1", true}, // as it is asked for in the end
		{"127.0.0.1", "0x7f000001", true},
		{"127.1", "127.0.0.1", false},
	} {
		setProxies(t, "ALL_PROXY=socks5h://gw", "no_proxy="+c.list)
		target := net.JoinHostPort(c.host, "22")
		if got := dialled(t, target); (got == target) != c.direct {
			t.Errorf("%q, %s: dialled %s", c.list, c.host, got)
		}
	}
}

func TestEnvironmentRefusesURLs(t *testing.T) {
	for _, variable := range []string{
		"ALL_PROXY=socks5://alice:hunter2@gw/x", "https_proxy=alice:hunter2@", "http_proxy=ftp://hunter2",
	} {
		setProxies(t, variable)
		e, err := client.FromEnvironment()
		name, _, _ := strings.Cut(variable, "=")
		if e != nil || err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The target's own faults are found by whoever would dial it.
func TestEnvironmentBadAddress(t *testing.T) {
	setProxies(t, "ALL_PROXY=socks5h://gw")
	e, err := client.FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Dial("tcp", "no port"); err == nil || !strings.Contains(err.Error(), "missing port") {
		t.Errorf("got %v", err)
	}
}
