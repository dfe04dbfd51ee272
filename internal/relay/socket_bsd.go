//go:build unix && !linux

package relay

import "golang.org/x/sys/unix"

// receive reads what is there, into what it takes from b.
func receive(fd int, b *buffer) (int, error) { return unix.Read(fd, b.take()) }

// transmit writes what there is room for.
func transmit(fd int, c *cargo) (int, error) { return transmitMemory(fd, c) }
