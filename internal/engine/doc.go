// Package engine waits for many descriptors with few goroutines. It is for Linux; elsewhere it is empty.
//
// A process has a few loops, one fewer than the runtime has processors, each of them a goroutine that waits by an epoll
// descriptor of its own, and holds a thread while it does. With only one processor all other goroutines wait longer than they need
// to: who wants loops better sets GOMAXPROCS to 2 then. Loops start when they are first wanted and end soon after nobody wants
// them.
//
// What works on a loop is a [Record]: a relay, a client in its handshake, a listening socket. All of it runs on the goroutine of
// its loop, one call at a time, and needs no lock; so it must not block. What comes from outside comes as a task ([Loop.Post]).
package engine
