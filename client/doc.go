// Package client reaches targets through proxies: SOCKS 4, 4a and 5, HTTP and
// HTTPS, one of them or several in a row.
//
// A [Dialer] is made from the proxy's URL and then used like a [net.Dialer]:
//
//	d, err := client.New("socks5h://alice:secret@gateway:1080")
//	...
//	conn, err := d.DialContext(ctx, "tcp", "www.example.com:80")
//
// [FromEnvironment] takes the URL from ALL_PROXY and its like instead.
//
// # Proxy URLs
//
//	socks4://[userid@]host[:port]            names are looked up here, the proxy gets IPv4 addresses;
//	                                         socks:// is the same, as for curl
//	socks4a://[userid@]host[:port]           names are sent to the proxy, which looks them up
//	socks5://[user[:password]@]host[:port]   names are looked up here
//	socks5h://[user[:password]@]host[:port]  names are sent to the proxy
//	http://[user[:password]@]host[:port]     CONNECT; names are sent to the proxy
//	https://[user[:password]@]host[:port]    the same over TLS to the proxy
//	URL,URL,...                              a chain: the first is reached from here, the next
//	                                         through it, and so on; the last reaches the target
//
// Where no port is given it is 1080, for http too, and 443 for https: as curl has
// it. User and password are percent-decoded and at most 255 bytes long in SOCKS.
// SOCKS 4 has no passwords, and its userid is a claim and no secret. A SOCKS 5
// proxy is offered a login only if the URL has a user, and may do without. A
// password, and all that goes to an http proxy, crosses the network unprotected.
// A path, a query and a fragment are errors. New never repeats in an error what
// stood in the URL, and no error ever has the user or the password in it.
//
// What a plain SOCKS 4 request cannot carry (IPv6 addresses, and 0.0.0.x, which
// marks a 4a request) is an error with socks4, and is sent as the text of the
// host name with socks4a: some proxies take it.
//
// With socks4 and socks5 a name may have several addresses. They are asked for
// one after the other, in the resolver's order, each on a connection of its own
// and each with its share of the time that is left, until the proxy grants one. A
// refusal because of who asks (a login, IDENT) ends the search, since no other
// address would change it.
//
// # Connections
//
// What [Dialer.DialContext] and Accept return behaves like a connection to the
// target itself. Its RemoteAddr is the target as it was asked for: a
// [*net.TCPAddr], or, where the proxy was sent a name, an [Addr] (the proxy does
// not say which address it took). An accepted connection's RemoteAddr is the peer
// as the proxy reports it. LocalAddr is the address here, of the connection to the
// first proxy. If all proxies are reached over TCP without TLS, all methods of
// [*net.TCPConn] are there as well (CloseWrite, SyscallConn, ReadFrom, WriteTo,
// ...); over TLS there is CloseWrite.
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
// That is for SOCKS proxies; the others cannot, and Listen returns an error that
// matches [errors.ErrUnsupported].
//
// # Datagrams: UDP ASSOCIATE
//
// [Dialer.ListenPacket] is for SOCKS 5 proxies. One association sends to any
// number of targets:
//
//	pc, err := d.ListenPacket(ctx, "udp", "")
//	...
//	_, err = pc.WriteTo(query, client.Addr{Transport: "udp", HostPort: "dns.example:53"})
//	n, from, err := pc.ReadFrom(buf)
//
// # Errors
//
// A proxy that refuses a request is a [*ReplyError], which has the code that it
// sent; in a chain its Proxy says which one refused. All refusals match
// [ErrRejected], and those that the protocol tells apart one of [ErrLogin],
// [ErrNotAllowed], [ErrUnreachable], [ErrRefused], [ErrTimeout],
// [ErrUnsupported], [ErrNoIdentd] and [ErrOtherUser]:
//
//	if errors.Is(err, client.ErrNotAllowed) { ... }
//
// Where the proxy itself, or in a chain the last of them, could not be reached, the
// error matches [ErrProxy], whatever else it matches.
//
// Every other error is a [net.Error] whose text names the proxy, the operation,
// the target and the step that failed; a login that is refused before there is a
// request (SOCKS 5) is one of them. When time runs out its Timeout method is
// true, and it matches [os.ErrDeadlineExceeded]; when ctx ends it also matches
// ctx.Err() and context.Cause(ctx).
package client
