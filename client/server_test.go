package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/server"
)

// The other end of these tests is this project's own server.

// anywhere grants every target by address, but for 127.6.6.6.
type anywhere struct{}

func (anywhere) Decide(_ context.Context, r *server.Request) (server.Grant, error) {
	grant := server.Grant{Rule: "no mail from here", Identity: r.Identity, Bind: server.BindOptions{PrimaryOptional: true}}
	if r.Target.IP == netip.MustParseAddr("127.6.6.6") {
		return grant, fmt.Errorf("%w: the test's rule", server.Denied)
	}
	grant.Addrs = []netip.Addr{r.Target.IP}
	return grant, nil
}

// aliceAlone lets in alice with the password secret.
type aliceAlone struct{}

func (aliceAlone) Login(string, server.Protocol, netip.Addr) server.Login {
	return server.LoginRequired
}

func (aliceAlone) Authenticate(_ context.Context, c server.Credentials) (server.Identity, error) {
	if c.Name != "alice" || c.Password != "secret" {
		return server.Identity{}, server.BadLogin
	}
	return server.Identity{Name: c.Name, Proof: server.Password}, nil
}

// startSallyport serves on loopback until the test ends.
func startSallyport(t *testing.T, s *server.Server) string {
	t.Helper()
	address, stop := serveSallyport(s)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return address
}

// serveSallyport serves on loopback until stop is called.
func serveSallyport(s *server.Server) (address string, stop func() error) {
	socket := listenLocal()
	s.Policy = anywhere{}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), socket, server.Listener{}) }()
	return socket.Addr().String(), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		err := s.Shutdown(ctx)
		if ended := <-served; !errors.Is(ended, server.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
		return err
	}
}

func TestSallyport(t *testing.T) {
	proxy := startSallyport(t, new(server.Server))
	for _, scheme := range []string{"socks4", "socks4a", "socks5", "socks5h", "http"} {
		t.Run(scheme, func(t *testing.T) {
			d, err := client.New(scheme + "://" + proxy)
			if err != nil {
				t.Fatal(err)
			}
			checkConnects(t, d)
			_, err = d.Dial("tcp", "127.6.6.6:25")
			if !errors.Is(err, client.ErrRejected) || errors.Is(err, client.ErrNotAllowed) == strings.HasPrefix(scheme, "socks4") {
				t.Errorf("denied: %v", err)
			}
			_, err = d.Dial("tcp", freeAddr(t).String())
			if !errors.Is(err, client.ErrRejected) || errors.Is(err, client.ErrRefused) == strings.HasPrefix(scheme, "socks4") {
				t.Errorf("nobody listens: %v", err)
			}
			if scheme != "http" {
				checkBinds(t, d)
			}
		})
	}
}

func TestSallyportSaysTheRule(t *testing.T) {
	d, err := client.New("http://" + startSallyport(t, new(server.Server)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Dial("tcp", "127.6.6.6:25")
	refusal, ok := errors.AsType[*client.ReplyError](err)
	if !ok || refusal.Code != client.Status(403) || refusal.Reason != "denied" || refusal.Rule != "no mail from here" {
		t.Errorf("got %v", err)
	}
}

func TestSallyportLogin(t *testing.T) {
	proxy := startSallyport(t, &server.Server{Authenticator: aliceAlone{}})
	for _, scheme := range []string{"socks5", "socks5h", "http"} {
		for login, granted := range map[string]bool{"alice:secret@": true, "alice:wrong@": false, "mallory:secret@": false, "": false} {
			d, err := client.New(scheme + "://" + login + proxy)
			if err != nil {
				t.Fatal(err)
			}
			if granted {
				checkConnects(t, d)
				continue
			}
			_, err = d.Dial("tcp", "127.0.0.1:9")
			if !errors.Is(err, client.ErrLogin) || login != "" && strings.Contains(err.Error(), strings.Trim(login, "@")) {
				t.Errorf("%s %s: %v", scheme, login, err)
			}
		}
	}
}

// The server as the upstream of itself, three deep, each by another protocol.
func TestSallyportChain(t *testing.T) {
	var chain []string
	for _, scheme := range []string{"http://", "socks4a://alice@", "socks5://"} {
		chain = append(chain, scheme+startSallyport(t, new(server.Server)))
	}
	d, err := client.New(strings.Join(chain, ","))
	if err != nil {
		t.Fatal(err)
	}
	checkConnects(t, d)
	checkBinds(t, d)
}

func TestSallyportPackets(t *testing.T) {
	for _, chain := range []int{1, 3} {
		var urls []string
		for range chain {
			urls = append(urls, "socks5://"+startSallyport(t, new(server.Server)))
		}
		d, err := client.New(strings.Join(urls, ","))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := d.ListenPacket(t.Context(), "udp", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range 2 {
			checkPing(t, conn, startEcho(t))
		}
		if err := conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Error(err)
		}
		if n, from, err := conn.ReadFrom(make([]byte, 10)); err == nil {
			t.Errorf("%d bytes more from %v", n, from)
		}
	}
}
