//go:build linux

// Plain is the plainest SOCKS 5 server that one can write in Go: two goroutines and io.Copy. It checks little, limits
// nothing and logs nothing; the benchmark measures what all else costs by it.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: plain ADDRESS")
		os.Exit(2)
	}
	address, err := net.ResolveTCPAddr("tcp", os.Args[1])
	if err == nil {
		err = listen(address)
	}
	fmt.Fprintln(os.Stderr, "plain:", err)
	os.Exit(1)
}

func listen(address *net.TCPAddr) error {
	ln, err := net.ListenTCP("tcp", address)
	if err != nil {
		return err
	}
	defer ln.Close()
	for {
		conn, err := ln.AcceptTCP()
		if err != nil {
			return err
		}
		go serve(conn)
	}
}

func serve(client *net.TCPConn) {
	defer client.Close()
	to, err := handshake(client)
	if err != nil {
		return
	}
	target, err := net.DialTCP("tcp", nil, to)
	if err != nil {
		return
	}
	defer target.Close()
	if _, err := client.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { copyTo(target, client) })
	copyTo(client, target)
	wg.Wait()
}

func copyTo(to, from *net.TCPConn) {
	_, _ = io.Copy(to, from)
	_ = to.CloseWrite()
}

// handshake takes no login, and IPv4 addresses only.
func handshake(client *net.TCPConn) (*net.TCPAddr, error) {
	b := make([]byte, 255)
	if _, err := io.ReadFull(client, b[:2]); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(client, b[:b[1]]); err != nil {
		return nil, err
	}
	if _, err := client.Write([]byte{5, 0}); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(client, b[:10]); err != nil {
		return nil, err
	}
	return &net.TCPAddr{IP: net.IP(b[4:8]), Port: int(binary.BigEndian.Uint16(b[8:10]))}, nil
}
