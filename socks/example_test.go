package socks_test

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/sallyport/sallyport/socks"
)

// What has arrived so far is parsed until it is a whole request. What follows the request is
// left: it is for the target.
func Example() {
	var arrived []byte
	for _, part := range []string{"\x04\x01\x00\x50\x00\x00", "\x00\x01alice\x00example", ".com\x00GET / HTTP/1.1\r\n"} {
		arrived = append(arrived, part...)
		request, n, err := socks.ParseRequest4(arrived, socks.DefaultUserID)
		if errors.Is(err, socks.ErrShort) {
			continue // more is needed
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		target, err := socks.NewAddr(request.Host, request.Port)
		fmt.Println(request.Command, target, err, request.UserID)
		fmt.Printf("%q\n", arrived[n:])
	}
	reply := socks.NewReply4(socks.Granted4, netip.MustParseAddrPort("192.0.2.9:40000"))
	fmt.Printf("% x\n", reply.Append(nil))
	// Output:
	// connect example.com:80 <nil> alice
	// "GET / HTTP/1.1\r\n"
	// 00 5a 9c 40 c0 00 02 09
}

// However a target is spelled, it has one form, which is what a rule is to look at.
func ExampleNewAddr() {
	for _, host := range []string{"WWW.Example.COM.", "127.1", "0x7f.1", "[::ffff:127.0.0.1]", "a b"} {
		target, err := socks.NewAddr(host, 80)
		fmt.Println(target, err)
	}
	// Output:
	// www.example.com:80 <nil>
	// 127.0.0.1:80 <nil>
	// 127.0.0.1:80 <nil>
	// 127.0.0.1:80 <nil>
	// :0 socks: not a host name or address: "a b"
}
