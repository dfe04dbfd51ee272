package client

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
)

func TestParseService(t *testing.T) {
	for text, want := range map[string]Service{
		"intranet=localhost:80":    {"intranet", 80, "localhost:80", false},
		"Intranet.=10.0.0.1:8080":  {"intranet", 8080, "10.0.0.1:8080", false},
		"intranet:443=[::1]:8443":  {"intranet", 443, "[::1]:8443", false},
		"a.b.example=db.corp:5432": {"a.b.example", 5432, "db.corp:5432", false},
		"dns=udp/127.0.0.1:53":     {"dns", 53, "127.0.0.1:53", true},
		"dns:5353=udp/[::1]:53":    {"dns", 5353, "[::1]:53", true},
		"":                         {}, "dns=udp/": {}, "dns=udp/53": {}, "dns=udp://127.0.0.1:53": {}, "udp/dns=127.0.0.1:53": {}, "intranet": {}, "intranet=": {}, "intranet=80": {}, "intranet=host:0": {}, "intranet=host:99999": {},
		"=host:80": {}, "a b=host:80": {}, "10.0.0.1=host:80": {}, "intranet:0=host:80": {}, "intranet:x=host:80": {}, "intranet=a b:80": {},
	} {
		if got, err := ParseService(text); got != want || (err == nil) != (want != Service{}) {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
}

// FuzzService: what is read is what is offered, in one form.
func FuzzService(f *testing.F) {
	for _, seed := range []string{"intranet=localhost:80", "intranet:443=[::1]:8443", "=", "a=b:1=c:2", "a:b:c=d:1", "dns=udp/[::1]:53"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseService(text)
		if err != nil {
			return
		}
		target := s.Target
		if s.UDP {
			target = "udp/" + target
		}
		again, err := ParseService(net.JoinHostPort(s.Name, "1") + "=" + target)
		if again.Name != s.Name || again.Target != s.Target || again.UDP != s.UDP || err != nil {
			t.Fatalf("%q is %+v, and that %+v, %v", text, s, again, err)
		}
	})
}

// virtual grants the virtual port intranet, to offer and to visit.
type virtual struct{}

func (virtual) Decide(_ context.Context, r *server.Request) (server.Grant, error) {
	if r.Target.Name != "intranet" {
		return server.Grant{}, server.Denied
	}
	return server.Grant{Virtual: true}, nil
}

// serveVirtual serves at an address, and returns how to end it.
func serveVirtual(t *testing.T, at string, key ssh.Signer) (address string, end func()) {
	t.Helper()
	socket, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	s := &server.Server{Policy: virtual{}}
	served := make(chan error, 1)
	go func() {
		served <- s.Serve(context.WithoutCancel(t.Context()), socket, server.Listener{
			Protocols: []server.Protocol{server.SOCKS5, server.SSH}, HostKey: key,
		})
	}()
	return socket.Addr().String(), func() {
		s.Close()
		<-served
	}
}

func visitIntranet(t *testing.T, proxy string) (net.Conn, error) {
	t.Helper()
	d, err := New("socks5h://" + proxy)
	if err != nil {
		t.Fatal(err)
	}
	return d.DialContext(t.Context(), "tcp", "intranet:80")
}

// TestPublisher: a service is reached, and again after the server was away; at the
// end nothing is left.
func TestPublisher(t *testing.T) {
	key := newHostKey(t)
	at, end := serveVirtual(t, "127.0.0.1:0", key)
	p := &Publisher{Server: at, User: "bob", HostKey: ssh.FixedHostKey(key.PublicKey()), Services: []Service{{"intranet", 80, proxytest.Echo(t, "127.0.0.1").String(), false}}}
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	reach := func() {
		t.Helper()
		proxytest.Eventually(t, "the service is reached", func() bool {
			c, err := visitIntranet(t, at)
			if err != nil {
				return false
			}
			defer c.Close()
			proxytest.Say(t, c, []byte("hello"))
			proxytest.Hear(t, c, "hello")
			return true
		})
	}
	reach()
	end()
	_, end = serveVirtual(t, at, key)
	reach()
	stop := errors.New("enough")
	cancel(stop)
	if err := <-ended; !errors.Is(err, stop) {
		t.Error(err)
	}
	end()
}

// TestPublisherSaysWhatIsWrong with the very first connection.
func TestPublisherSaysWhatIsWrong(t *testing.T) {
	key := newHostKey(t)
	at, end := serveVirtual(t, "127.0.0.1:0", key)
	defer end()
	nowhere := proxytest.Nowhere(t)
	right := ssh.FixedHostKey(key.PublicKey())
	wrong := func(string, net.Addr, ssh.PublicKey) error { return errors.New("another server") }
	for _, c := range []struct {
		name, server, port, want string
		key                      ssh.HostKeyCallback
	}{
		{"nobody there", nowhere.String(), "intranet", "refused", right},
		{"another server", at, "intranet", "another server", wrong},
		{"another's port", at, "extranet", `does not let bob offer the virtual port "extranet"`, right},
	} {
		p := &Publisher{Server: c.server, User: "bob", HostKey: c.key, Services: []Service{{c.port, 80, netip.AddrPortFrom(nowhere.Addr(), 1).String(), false}}}
		if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
