//go:build linux

package main_test

// An office behind a firewall, for real programs: those inside reach those
// outside through the proxy on the wall or not at all, since no packet is
// forwarded. What arrives has therefore gone through the proxy.

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

const (
	officeInside  = "10.1.0.2"     // the client's address
	officeWall    = "10.1.0.1"     // the firewall's, towards the inside
	officeWallOut = "198.51.100.1" // the firewall's, towards the outside
	officeOutside = "198.51.100.2" // the target's

	officeProxy = officeWall + ":1080"
	officeName  = "target.example" // the target's name, which only the firewall knows
)

// officeRules let the office go anywhere. A BIND needs its CONNECT, as always.
const officeRules = `
log: {format: json}
rules: {allow: the office, from: 10.1.0.0/24, to: any, commands: [connect, bind]}
`

// office is the network and the proxy.
type office struct {
	inside, wall, outside *paperNet
	proxy                 *paperServer
}

// newOffice builds the office and starts the proxy with the settings.
func newOffice(t *testing.T, settings string) *office {
	t.Helper()
	paperSlow(t)
	o := &office{inside: newPaperNet(t), wall: newPaperNet(t), outside: newPaperNet(t)}
	officeCable(t, "inside", o.inside, officeInside, o.wall, officeWall)
	officeCable(t, "outside", o.outside, officeOutside, o.wall, officeWallOut)
	o.proxy = startPaper(t, paperSetup{
		settings: settings,
		net:      o.wall,
		listen:   officeProxy,
		hosts:    "127.0.0.1 localhost\n" + officeOutside + " " + officeName + "\n",
	})
	return o
}

// officeCable lays a cable, which each end knows by the name of the other.
func officeCable(t *testing.T, name string, n *paperNet, addr string, wall *paperNet, wallAddr string) {
	t.Helper()
	n.ip(t, fmt.Sprintf("link add wall type veth peer name %s netns %d", name, wall.thread))
	n.ip(t, "addr add "+addr+"/24 dev wall")
	n.ip(t, "link set wall up")
	wall.ip(t, "addr add "+wallAddr+"/24 dev "+name)
	wall.ip(t, "link set "+name+" up")
}

// run runs a client inside and returns what it wrote on its standard output.
// The test fails when the client does, or is not there at all.
func (o *office) run(t *testing.T, in []byte, env []string, command ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*paperPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = bytes.NewReader(in)
	cmd.WaitDelay = paperPatience / 4 // for what its own children hold open
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	var err error
	o.inside.do(func() { err = cmd.Start() })
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(command, " "), err, paperCut(out.Bytes()), said.Bytes())
	}
	return out.Bytes()
}

// background runs a server in the network until the test ends, and returns when
// it answers at addr. Called before that, stop ends it.
func background(t *testing.T, n *paperNet, addr string, command ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	var said paperLines
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var err error
	n.do(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed; how it ends tells nothing
	}()
	stop = sync.OnceFunc(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its children too; it may have ended by itself
		<-ended
	})
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", command[0], strings.Join(said.all(), "\n"))
		}
	})
	paperEventually(t, command[0]+" answers at "+addr, func() bool {
		c, err := n.tryDial("", netip.MustParseAddrPort(addr))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return stop
}

// session waits for the record of a session that is like want, as far as want
// says something, and returns it.
func (o *office) session(t *testing.T, want paperSession) paperSession {
	t.Helper()
	line := o.proxy.stderr.until(t, o.proxy.done, fmt.Sprintf("a session such as %+v", want), func(line string) bool {
		got, ok := paperRecord(line)
		return ok && like(got.Listener, want.Listener) && like(got.Command, want.Command) && like(got.Protocol, want.Protocol) &&
			like(got.Target, want.Target) && like(got.Address, want.Address) && like(got.User, want.User) &&
			like(got.Reason, want.Reason) && like(got.HTTP, want.HTTP) && like(got.Up, want.Up) && like(got.Down, want.Down)
	})
	got, _ := paperRecord(line)
	return got
}

// like reports whether got is what is wanted, if anything is.
func like[T comparable](got, want T) bool {
	var unsaid T
	return want == unsaid || got == want
}

// mirror is a target outside that reads until its client is done, and then
// sends everything back inside out, so that no echo on the way passes for it.
// It returns its port.
func (o *office) mirror(t *testing.T) string {
	t.Helper()
	ln := o.outside.listen(t, officeOutside+":0")
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if b, err := io.ReadAll(c); err == nil {
					_, _ = c.Write(insideOut(b)) // the client's side tells
				}
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

func insideOut(b []byte) []byte {
	turned := make([]byte, len(b))
	for i := range b {
		turned[i] = ^b[i]
	}
	return turned
}

// writeFile writes a file of the test's own and returns its path.
func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sameBytes fails the test when a transfer changed something.
func sameBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes arrived, %d were sent, and they are not the same", what, len(got), len(want))
	}
}
