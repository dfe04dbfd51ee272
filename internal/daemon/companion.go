package daemon

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"

	"github.com/sallyport/sallyport/internal/upstream"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// Companion is a proxy on loopback for one command: it speaks HTTP and SOCKS 5 to
// whoever has its password, and sends everything on to another proxy. So a command
// needs to know neither that one's protocol nor its password, and no other user of the
// machine gets there by it. It implements [server.Policy] and [server.Authenticator].
type Companion struct {
	socket net.Listener
	way    *server.Way
	pool   *upstream.Pool
	secret string
	server server.Server
}

// companionUser is the name that goes with its password.
const companionUser = "run"

// OpenCompanion opens the proxy's socket. The proxy to send everything on to is a URL, or
// several with commas between, as [github.com/sallyport/sallyport/client.New] takes them.
// Whoever opens it calls Serve, which closes it.
func OpenCompanion(ctx context.Context, proxy string) (*Companion, error) {
	pool, err := upstream.New(upstream.Settings{Name: "proxy", Proxies: []string{proxy}})
	if err != nil {
		return nil, err
	}
	c := &Companion{pool: pool, way: &server.Way{Via: "proxy", Upstream: pool}, secret: rand.Text()}
	c.server.Policy, c.server.Authenticator = c, c
	c.socket, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	return c, err
}

// Serve serves until ctx ends, and then cuts what is left.
func (c *Companion) Serve(ctx context.Context) {
	_ = c.server.Serve(ctx, c.socket, server.Listener{Protocols: []server.Protocol{server.SOCKS5, server.HTTP}}) // which says that ctx has ended
	_ = c.server.Shutdown(ctx)                                                                                   // likewise
}

// URL is what the command is told, for a scheme such as http.
func (c *Companion) URL(scheme string) string {
	return (&url.URL{Scheme: scheme, User: url.UserPassword(companionUser, c.secret), Host: c.socket.Addr().String()}).String()
}

// Login implements [server.Authenticator].
func (c *Companion) Login(string, server.Protocol, netip.Addr) server.Login {
	return server.LoginRequired
}

// Authenticate implements [server.Authenticator].
func (c *Companion) Authenticate(_ context.Context, shown server.Credentials) (server.Identity, error) {
	if shown.Name != companionUser || subtle.ConstantTimeCompare([]byte(shown.Password), []byte(c.secret)) != 1 {
		return server.Identity{}, fmt.Errorf("%w: it is for one command only", server.BadLogin)
	}
	return server.Identity{Name: companionUser, Proof: server.Password}, nil
}

// Decide implements [server.Policy]: what the proxy lets through is its own affair.
func (c *Companion) Decide(ctx context.Context, r *server.Request) (server.Grant, error) {
	g := server.Grant{Identity: r.Identity, Way: c.way}
	if r.Identity.Proof != server.Password {
		return g, server.BadLogin
	}
	if r.Command == socks.Connect && c.sendsName(r.Target) {
		g.ByName = true
		return g, nil
	}
	var err error
	g.Addrs, err = addressesOf(ctx, r.Target)
	return g, err
}

// Connect connects to a target through the proxy, as it does for those who have the
// password. Its error wraps a [server.Reason]. The caller closes the connection.
func (c *Companion) Connect(ctx context.Context, target socks.Addr) (net.Conn, error) {
	here := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	d := server.Departure{Client: here, Local: here, Target: target}
	if !c.sendsName(target) {
		addrs, err := addressesOf(ctx, target)
		if err != nil {
			return nil, err
		}
		for _, ip := range addrs {
			d.Addrs = append(d.Addrs, netip.AddrPortFrom(ip, target.Port))
		}
	}
	conn, _, err := c.pool.Connect(ctx, d)
	return conn, err
}

// sendsName reports whether the proxy looks up the target's name.
func (c *Companion) sendsName(target socks.Addr) bool {
	return target.Name != "" && c.pool.SendsNames()
}

// addressesOf returns the target's addresses, which are looked up here if it is a name.
func addressesOf(ctx context.Context, target socks.Addr) ([]netip.Addr, error) {
	if target.Name == "" {
		return []netip.Addr{target.IP}, nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", target.Name)
	if err != nil && ctx.Err() == nil {
		err = errors.Join(server.NoName, err)
	}
	return addrs, err
}
