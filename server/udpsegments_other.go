//go:build unix && !linux

package server

import "syscall"

// segments is for a system that cuts large datagrams into many, which this one
// does not.
type segments struct{}

func (*segments) ask(syscall.RawConn) {}

func (*segments) join([]message) (joined message, ok bool) { return joined, false }

func (*segments) refused(int, error) bool { return false }
