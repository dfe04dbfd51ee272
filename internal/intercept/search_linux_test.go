//go:build amd64 || arm64

package intercept

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// TestSearch: what a program would ask for next, by what resolv.conf says.
func TestSearch(t *testing.T) {
	const pod = "nameserver 192.0.2.53\nsearch web.svc.cluster.local svc.cluster.local Cluster.Local.\noptions edns0 ndots:5\n"
	for _, c := range []struct{ file, name, want string }{
		{pod, "api.example.com.web.svc.cluster.local", "api.example.com.svc.cluster.local api.example.com.cluster.local api.example.com"},
		{pod, "api.web.svc.cluster.local", "api.svc.cluster.local api.cluster.local api"},
		{pod, "a.b.c.d.e.f.web.svc.cluster.local", ""},
		{pod, "api.example.com", ""},
		{pod, "web.svc.cluster.local", "web.cluster.local web"},
		{"search a.example\ndomain b.example c.example\n", "x.b.example", "x"},
		{"search a.example\ndomain b.example c.example\n", "x.a.example", ""},
		{"search a.example\n", "x.y.a.example", ""},
		{"search a.example\noptions ndots:0\n", "x.a.example", ""},
		{"search a.example\noptions ndots:-1 ndots:x ndots\n", "x.a.example", "x"},
		{"search\noptions\n", "x.example", ""},
		{"search .\n", "x.", ""},
	} {
		file := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		s := readSearch(file)
		if got := strings.Join(s.next(c.name), " "); got != c.want {
			t.Errorf("%q: after %s comes %q, want %q", c.file, c.name, got, c.want)
		}
	}
	if s := readSearch(filepath.Join(t.TempDir(), "none")); s.dots != 1 || len(s.domains) > 1 {
		t.Errorf("without a file: %+v", s)
	}
}

// TestSearchedNames: the proxy is asked for what a program would have asked for next, until
// it knows one, or has something else to say.
func TestSearchedNames(t *testing.T) {
	var asked []string
	dial := func(ctx context.Context, target socks.Addr) (net.Conn, error) {
		asked = append(asked, target.Name)
		switch {
		case strings.HasPrefix(target.Name, "denied") && strings.HasSuffix(target.Name, "b.example"):
			return nil, server.Denied
		case target.Name != "api.example.com":
			return nil, fmt.Errorf("%w: no such host", server.NoName)
		}
		return echo(ctx, target)
	}
	i := &Interceptor{dial: dial, names: newNames(10), search: search{domains: []string{"a.example", "b.example"}, dots: 5}}
	for _, c := range []struct {
		name   string
		reason server.Reason
		asked  []string
	}{
		{"api.example.com.a.example", server.Closed, []string{"api.example.com.a.example", "api.example.com.b.example", "api.example.com"}},
		{"api.example.com", server.Closed, []string{"api.example.com"}},
		{"nobody.a.example", server.NoName, []string{"nobody.a.example", "nobody.b.example", "nobody"}},
		{"denied.a.example", server.Denied, []string{"denied.a.example", "denied.b.example"}},
	} {
		asked = nil
		conn, err := i.dialAny(t.Context(), netip.AddrPortFrom(i.names.standIn(c.name), 80))
		if server.ReasonOf(err) != c.reason || !slices.Equal(asked, c.asked) {
			t.Errorf("%s: %v, asked for %q", c.name, err, asked)
		}
		if conn != nil {
			conn.Close()
		}
	}
}
