package server

import "net"

// Aside returns a listener of the socket, for [Server.Serve], which belongs to the
// new one from then on. While its clients are accepted on event loops Go's runtime
// is not told of each of them, as it is of those of any other listener: for nothing,
// and on another thread. They are asked, after 15 s of silence, whether they are still
// there, as Go has it by default: that is set on the socket, so a [net.ListenConfig] may
// leave it out, which saves calls for each. What is no [net.TCPListener], and everything on systems but
// Linux, is returned as it is.
func Aside(socket net.Listener) net.Listener {
	if s, ok := socket.(*net.TCPListener); ok {
		return newAside(s)
	}
	return socket
}
