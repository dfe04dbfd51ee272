package server_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// A port mapping: whoever connects is relayed to the target, as far as the policy lets them.
func ExampleMapping() {
	site := listen()
	defer site.Close()
	go func() {
		if c, err := site.Accept(); err == nil {
			fmt.Fprint(c, "hello")
			c.Close()
		}
	}()
	target, err := socks.ParseAddr(site.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}

	s := &server.Server{Policy: everywhere{}}
	socket := listen()
	mapping := &server.Mapping{Targets: []server.MapTarget{{Addr: target}}}
	go func() { _ = s.Serve(context.Background(), socket, server.Listener{Name: "site", Mapping: mapping}) }()
	defer s.Close()

	c, err := net.Dial("tcp", socket.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	said, err := io.ReadAll(c)
	fmt.Printf("%s, %v\n", said, err)
	// Output: hello, <nil>
}
