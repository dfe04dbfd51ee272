// Package client reaches targets through a SOCKS 4 or 4a proxy.
//
// A [Dialer] is made from the proxy's URL and then used like a [net.Dialer]:
//
//	d, err := client.New("socks4a://alice@gateway:1080")
//	...
//	conn, err := d.DialContext(ctx, "tcp", "www.example.com:80")
//
// # Proxy URLs
//
//	socks4://[userid@]host[:port]     names are looked up here, the proxy gets IPv4 addresses
//	socks4a://[userid@]host[:port]    names are sent to the proxy, which looks them up
//
// The port is 1080 where none is given. The userid is percent-decoded, any
// bytes but NUL, at most 255. It is a claim and no secret: SOCKS 4 has no
// passwords, so a URL with one is an error, and so are a path, a query and a
// fragment. New never repeats in an error what stood in the URL.
//
// What a plain SOCKS 4 request cannot carry (IPv6 addresses, and 0.0.0.x, which
// marks a 4a request) is an error with socks4, and is sent as the text of the
// host name with socks4a: some proxies take it.
//
// With socks4 a name may have several addresses. They are asked for one after
// the other, each on a connection of its own and each with its share of the
// time that is left, until the proxy grants one. A refusal because of who asks
// (92, 93) ends the search, since no other address would change it.
//
// # Connections
//
// What [Dialer.DialContext] and Accept return behaves like a connection to the
// target itself. Its RemoteAddr is the target as it was asked for: a
// [*net.TCPAddr], or, where the proxy was sent a name, an address whose String
// is "name:port" (the proxy does not say which address it took). An accepted
// connection's RemoteAddr is the peer as the proxy reports it. LocalAddr is the
// address here, of the connection to the proxy. If the proxy is reached over
// TCP, all methods of [*net.TCPConn] are there as well (CloseWrite,
// SyscallConn, ReadFrom, WriteTo, ...).
//
// # Waiting for a connection: BIND
//
// Some protocols, active FTP among them, have the application server call back.
// [Dialer.Listen] asks the proxy to wait for that call. The address to tell the
// application server is the listener's Addr; Accept returns the one connection
// that a BIND allows:
//
//	control, err := d.DialContext(ctx, "tcp", "ftp.example.com:21")
//	...
//	ln, err := d.Listen(ctx, "tcp", control.RemoteAddr().String())
//	...
//	fmt.Fprintf(control, "PORT %s\r\n", ln.Addr()) // in FTP's own spelling
//	data, err := ln.Accept()
//
// The control connection has to stay open until then: proxies grant a BIND only
// beside a CONNECT to the same application server.
//
// # Errors
//
// A proxy that refuses is a [*ReplyError]. [ErrRejected], [ErrNoIdentd] and
// [ErrOtherUser] tell its codes apart:
//
//	if errors.Is(err, client.ErrOtherUser) { ... }
//
// Every other error of Dial, DialContext, Listen and Accept is a [net.Error]
// whose text names the proxy, the operation, the target and the step that
// failed. When time runs out its Timeout method is true, and it matches
// [os.ErrDeadlineExceeded]; when ctx ends it also matches ctx.Err() and
// context.Cause(ctx).
package client
