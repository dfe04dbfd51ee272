package client_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/server"
)

// A service of this machine, which nobody could connect to, is offered as the virtual port
// "intranet" of a server; a client of that server asks for it by that name.
func ExamplePublisher() {
	service := startServer(func(c net.Conn) { io.WriteString(c, "hello from behind the firewall") })
	defer service.Close()
	gateway, key, end := startGateway()
	defer end()

	offered := make(firstLine, 1)
	p := &client.Publisher{
		Server:   gateway,
		User:     "bob",
		HostKey:  ssh.FixedHostKey(key), // or what golang.org/x/crypto/ssh/knownhosts says
		Services: []client.Service{{Name: "intranet", Port: 80, Target: service.Addr()}},
		Log:      slog.New(slog.NewTextHandler(offered, nil)),
	}
	ctx, stop := context.WithCancelCause(context.Background())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	fmt.Println(strings.Contains(<-offered, "msg=offered"))

	d, err := client.New("socks5h://" + gateway)
	if err != nil {
		log.Panic(err)
	}
	conn, err := d.DialContext(context.Background(), "tcp", "intranet:80")
	if err != nil {
		log.Panic(err)
	}
	defer conn.Close()
	said, err := io.ReadAll(conn)
	fmt.Printf("%s, %v\n", said, err)

	stop(errors.New("that was all"))
	fmt.Println(<-ended)
	// Output:
	// true
	// hello from behind the firewall, <nil>
	// that was all
}

// firstLine is a log of which the first line is wanted.
type firstLine chan string

func (l firstLine) Write(b []byte) (int, error) {
	select {
	case l <- string(b):
	default:
	}
	return len(b), nil
}

// virtualPorts is a policy that knows one virtual port, which anybody may offer and visit.
type virtualPorts struct{}

func (virtualPorts) Decide(_ context.Context, r *server.Request) (server.Grant, error) {
	if r.Target.Name != "intranet" {
		return server.Grant{}, server.Denied
	}
	return server.Grant{Virtual: true}, nil
}

// startGateway is a server that speaks SSH as well; key is what it is known by.
func startGateway() (address string, key ssh.PublicKey, end func()) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		log.Panic(err)
	}
	host, err := ssh.NewSignerFromKey(private)
	if err != nil {
		log.Panic(err)
	}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Panic(err)
	}
	s := &server.Server{Policy: virtualPorts{}}
	served := make(chan error)
	go func() {
		served <- s.Serve(context.Background(), socket, server.Listener{Protocols: []server.Protocol{server.SOCKS5, server.SSH}, HostKey: host})
	}()
	return socket.Addr().String(), host.PublicKey(), func() {
		s.Close()
		<-served
	}
}
