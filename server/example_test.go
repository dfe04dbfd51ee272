package server_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/sallyport/sallyport/server"
)

// office is a policy of one's own: the web for those who have signed in, and nothing else.
type office struct{}

func (office) Decide(ctx context.Context, r *server.Request) (server.Grant, error) {
	g := server.Grant{Rule: "the web", Identity: r.Identity}
	if r.Identity.Proof != server.Password { // SOCKS 4 has none: its clients come here without
		return g, server.BadLogin
	}
	if r.Target.Port == 25 {
		return g, fmt.Errorf("%w: no mail from here", server.Denied)
	}
	if r.Target.Name == "" {
		g.Addrs = []netip.Addr{r.Target.IP}
		return g, nil
	}
	// Whoever grants a name grants addresses: look at them here, for a name may lead to
	// any, those of this machine and its network among them.
	var err error
	g.Addrs, err = net.DefaultResolver.LookupNetIP(ctx, "ip4", r.Target.Name)
	return g, err
}

// passwords know one user.
type passwords struct{}

func (passwords) Login(string, server.Protocol, netip.Addr) server.Login { return server.LoginRequired }

func (passwords) Authenticate(_ context.Context, c server.Credentials) (server.Identity, error) {
	if c.Name != "alice" || c.Password != "wonderland" { // those of real users are hashed, and compared in constant time
		return server.Identity{}, server.BadLogin
	}
	return server.Identity{Name: c.Name, Proof: server.Password}, nil
}

// A proxy server within a program: SOCKS 4, 4a and 5 and HTTP on one port.
func Example() {
	proxy := &server.Server{Policy: office{}, Authenticator: passwords{}}
	socket := listen() // net.Listen("tcp", "127.0.0.1:1080")
	served := make(chan error)
	go func() { served <- proxy.Serve(context.Background(), socket, server.Listener{Name: "lan"}) }()

	web := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a page") })}
	site := listen()
	go func() { _ = web.Serve(site) }()
	defer web.Close()
	for _, user := range []*url.Userinfo{url.UserPassword("alice", "wonderland"), url.UserPassword("alice", "guess")} {
		through := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", User: user, Host: socket.Addr().String()})}
		answer, err := (&http.Client{Transport: through}).Get("http://" + site.Addr().String())
		if err != nil {
			fmt.Println(err)
			return
		}
		answer.Body.Close()
		through.CloseIdleConnections()
		fmt.Printf("%s %q\n", answer.Status, answer.Header.Get("Sallyport-Reason"))
	}

	fmt.Println(proxy.Shutdown(context.Background())) // lets open sessions end
	fmt.Println(<-served)
	// Output:
	// 200 OK ""
	// 407 Proxy Authentication Required "bad-login"
	// <nil>
	// server: closed
}
