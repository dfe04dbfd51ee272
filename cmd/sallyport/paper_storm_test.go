//go:build linux

package main_test

import (
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"
)

// TestPaperStorm: twice 5,000 connections at once, each with its target. When
// they are gone, the program has the descriptors that it had, and the second
// storm finds the memory that the first one took: what was left behind would be
// as much again. (That the heap is what it was is for TestSoak and TestGarbage
// of package server: from outside one sees what the runtime keeps.)
func TestPaperStorm(t *testing.T) {
	paperSlow(t) // and not side by side with others: both sides need 10,000 descriptors
	s := startPaper(t, paperSetup{settings: paperOpen, files: 20_000})
	echo := paperPlainEcho(t)
	before := s.descriptors(t)
	var memory [2]int64
	for i := range memory {
		s.storm(t, echo, 5_000)
		paperEventually(t, "the descriptors are back", func() bool { return s.descriptors(t) <= before+8 })
		memory[i] = s.memory(t)
	}
	t.Logf("the program held %d bytes after each storm", memory)
	if memory[1] > memory[0]+memory[0]/2 {
		t.Error("the second storm took more")
	}
}

// storm makes so many connections at once, and ends them.
func (s *paperServer) storm(t *testing.T, echo netip.AddrPort, size int) {
	t.Helper()
	clients := make([]*paperConn, size)
	for i := range clients {
		clients[i] = s.dial(t, fmt.Sprintf("127.0.%d.1", 10+i%50))
		clients[i].sends(paper5Open(paper5Ask(paperCONNECT, echo)))
	}
	for _, c := range clients {
		if err := c.SetDeadline(time.Now().Add(paperPatience)); err != nil {
			t.Fatal(err)
		}
		c.hears(paper5ChoseNone)
		c.granted5()
	}
	if open := s.descriptors(t); open < 2*size {
		t.Errorf("%d descriptors are open: not all connections at once", open)
	}
	for i, c := range clients {
		if i%10 == 0 {
			c.echoes()
		}
		if i%2 == 0 {
			c.resets()
		} else {
			c.leaves()
		}
	}
}

// paperPlainEcho is paperEcho without the pipes that splicing takes, for which
// this process has not the descriptors.
func paperPlainEcho(t *testing.T) netip.AddrPort {
	t.Helper()
	x := paperListen(t, nil, "127.0.0.1:0")
	go func() {
		for {
			c, err := x.ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) // the client sees how it ended
			}()
		}
	}()
	return x.addr
}
