// Package engine waits for many descriptors with few goroutines. It is for Linux; elsewhere it is empty.
//
// A process has a few loops, about one a processor, each of them a goroutine that waits by an epoll descriptor of its own. That
// is itself waited for in the runtime's poller, so that a loop holds no thread while nothing happens. Loops start when they are
// first wanted and end soon after nobody wants them.
//
// What works on a loop is a [Record]: a relay, a client in its handshake, a listening socket. All of it runs on the goroutine of
// its loop, one call at a time, and needs no lock; so it must not block. What comes from outside comes as a task ([Loop.Post]).
package engine
