// Package intercept leads the connections of a command, and of whatever it starts,
// through a proxy, without the command knowing of it and whatever it is made of:
// nothing is put into its memory, and a program that is linked statically is led
// like any other.
//
// On Linux the kernel asks this process what to do (seccomp's user notification,
// seccomp_unotify(2)) before it lets one of those processes connect a socket, send a
// datagram to an address, or make a socket for datagrams. That needs no privileges. An
// [Interceptor] has a filter ([filter_linux.go]) that makes the kernel ask, and a
// supervisor that answers:
//
//   - A TCP connection to another machine is made through the proxy first. If that
//     grants it, the very socket of the program is connected to the door, a listening
//     socket on loopback, whose other end is relayed to the proxy. If not, the program
//     gets the error that it would have had from the target.
//   - Datagrams stay on this machine. A socket for them is made by the supervisor,
//     bound to the loopback device, which holds unless a program names another with each
//     datagram.
//   - Host names are looked up by a resolver in here, to which whatever is for port 53
//     is led. It answers with addresses of 198.18.0.0/15 (RFC 2544, appendix C.2.2) that
//     stand for the names, so that the proxy is asked for the name.
//   - What stays on this machine (loopback, unix sockets) is none of its business.
//
// It is a convenience and no jail: a program that wants to get past it can, since the
// kernel reads an address again after the supervisor has said that it may be used.
//
// Elsewhere [Open] says that it is not supported.
package intercept
