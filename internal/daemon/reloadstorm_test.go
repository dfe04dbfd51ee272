//go:build linux

package daemon

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// reloadTurns are settings that differ in all that can change without anybody's
// right being gone, but for the listener lan.
func reloadTurns(turn int) string {
	return fmt.Sprintf("listeners:\n"+
		"  - {name: lan, listen: 127.0.0.1:0, bind_ports: %d-%d, userid_max: %d}\n"+
		"  - {name: other-%d, listen: '127.0.0.2:0'}\n"+
		"rules:\n"+
		"  - {deny: nobody, from: 192.0.2.%d}\n"+
		"  - {allow: rule %d, to: any, ports: 1024-65535}\n"+
		"timeouts: {idle: %dh}\n"+
		"resolver: {cache: %ds}\n",
		40000+turn, 41000+turn, 255+turn, turn, turn, turn, 1+turn%24, turn%60)
}

// transfer is a client that sends random blocks through an echo and compares what
// comes back.
type transfer struct {
	conn       net.Conn
	source     *rand.ChaCha8
	sent, back hash.Hash
}

// run moves blocks until stop is closed, each while it holds one of the turns:
// so this machine has time for other clients too. At its end it says FIN, waits
// for FIN, and returns how many bytes came back.
func (tr *transfer) run(stop <-chan struct{}, turns chan struct{}) (moved int64, err error) {
	block := make([]byte, 1024)
	for !isClosed(stop) {
		turns <- struct{}{}
		_, _ = tr.source.Read(block) // never fails
		tr.sent.Write(block)
		_, err := tr.conn.Write(block)
		if err == nil {
			var n int64
			n, err = io.CopyN(tr.back, tr.conn, int64(len(block)))
			moved += n
		}
		<-turns
		if err != nil {
			return moved, err
		}
	}
	if err := closeWrite(tr.conn); err != nil {
		return moved, err
	}
	n, err := io.Copy(tr.back, tr.conn)
	if err == nil && (n > 0 || string(tr.sent.Sum(nil)) != string(tr.back.Sum(nil))) {
		err = fmt.Errorf("%d bytes came back, and not those that were sent", moved+n)
	}
	return moved, err
}

func closeWrite(c net.Conn) error {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("%T cannot say FIN", c)
	}
	return half.CloseWrite()
}

// TestReloadUnderTransfers: with 1,000 transfers running and clients coming all
// the time, 20 reloads cut none, lose no byte and refuse nobody.
func TestReloadUnderTransfers(t *testing.T) {
	transfers := 1000
	if testing.Short() {
		transfers = 100
	}
	s := serveIn(t, reloadTurns(0))
	echo, at := proxytest.Echo(t, "127.0.0.1"), s.at("lan")
	stop, turns := make(chan struct{}), make(chan struct{}, 16)
	var all sync.WaitGroup
	var bytes, came atomic.Int64
	for i := range transfers {
		tr := &transfer{s.connects(at, "bob", echo), rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}), sha256.New(), sha256.New()}
		proxytest.Granted4(t, tr.conn)
		all.Go(func() {
			moved, err := tr.run(stop, turns)
			if err != nil {
				t.Errorf("transfer %d: %v", i, err)
			}
			bytes.Add(moved)
		})
	}
	for range 4 {
		all.Go(func() {
			for !isClosed(stop) {
				if err := comesAndGoes(t.Context(), at, echo); err != nil {
					t.Errorf("a client that came meanwhile: %v", err)
					return
				}
				came.Add(1)
			}
		})
	}
	for turn := range 20 {
		before, moved := came.Load(), s.moved()
		s.reloads(reloadTurns(1 + turn))
		proxytest.Eventually(t, "clients come, and bytes move", func() bool {
			return came.Load() > before && s.moved() > moved || t.Failed()
		})
	}
	if n := s.Status().Sessions; n < transfers {
		t.Errorf("%d sessions are open, want %d transfers", n, transfers)
	}
	close(stop)
	all.Wait()
	t.Logf("%d transfers moved %d MiB, %d clients came meanwhile", transfers, bytes.Load()>>20, came.Load())
}

// moved is how many bytes the open sessions have moved.
func (s *served) moved() (sum int64) {
	for _, session := range s.server.Sessions() {
		sum += session.Up() + session.Down()
	}
	return sum
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// comesAndGoes is a client that says a word to an echo.
func comesAndGoes(ctx context.Context, at string, echo netip.AddrPort) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", at)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(append(proxytest.Connect4(echo, "bob"), "word"...)); err != nil {
		return err
	}
	if err := closeWrite(c); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err == nil && (len(answer) != 12 || answer[1] != byte(socks.Granted4) || string(answer[8:]) != "word") {
		err = fmt.Errorf("the answer is % x", answer)
	}
	return err
}

// openFiles counts the descriptors of this process.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestReloadsLeaveNothing: 100 reloads, with a session open, end with as many
// goroutines, descriptors and bytes as they began with.
func TestReloadsLeaveNothing(t *testing.T) {
	turn := func(i int) string {
		users := []string{"users", "users2"}[i%2]
		return reloadTurns(i) + "users: {file: " + users + "}\n" +
			"sets: {a: {prefixes: users.nets}, b: {hosts: users.nets, entries: [a.example]}}\n" +
			fmt.Sprintf("upstreams: {next: {proxies: 'socks4a://127.0.0.1:9', check: %ds}}\n", 600+i) +
			"include: more.yaml\n"
	}
	s := serveIn(t, reloadTurns(0), "alice:a")
	s.puts("users.nets", "192.0.2.0/24\n")
	s.puts("more.yaml", "rules: [{deny: a set, to: ['@a', '@b'], ports: 25}, {allow: far, to: far.example, ports: 25, via: next}]\n")
	text, err := os.ReadFile(s.dir + "/users")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.dir+"/users2", text, 0o600); err != nil {
		t.Fatal(err)
	}
	bob := s.connects(s.at("lan"), "bob", proxytest.Echo(t, "127.0.0.1"))
	proxytest.Granted4(t, bob)
	memory := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for i := range 10 { // what is made once
		s.reloads(turn(i))
	}
	// One descriptor more: that of the loop which bob's relay may not have come to yet.
	bytes, goroutines, files := memory(), runtime.NumGoroutine(), openFiles(t)+1
	for i := range 100 {
		s.reloads(turn(i))
	}
	proxytest.Eventually(t, "goroutines and descriptors are what they were", func() bool {
		return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files
	})
	proxytest.Eventually(t, "memory is what it was, give or take 512 KiB", func() bool { return memory() < bytes+512<<10 })
	lives(t, "bob", bob)
}

// TestReloadNeverAllows: 100 reloads between settings that all deny, in a storm of
// requests: none is granted, and none comes to its target.
func TestReloadNeverAllows(t *testing.T) {
	deny := []string{
		oneListener + "rules: {deny: all}",
		oneListener + "rules: []",
		oneListener + "rules: [{deny: to this, to: 127.0.0.0/8}, {allow: the rest, to: any}]",
		oneListener + "rules: {allow: others, from: 192.0.2.1, to: any}",
		oneListener + "users: {file: users}\nrules: {allow: users, users: any, proof: password, to: any}",
	}
	s := serveIn(t, deny[0], "alice:a")
	target, at := proxytest.NewTarget(t, "127.0.0.1"), s.at("lan")
	stop := make(chan struct{})
	var all sync.WaitGroup
	var denied atomic.Int64
	for range 8 {
		all.Go(func() {
			for !isClosed(stop) {
				code, err := asks4(t.Context(), at, target.Addr())
				if err != nil || code == byte(socks.Granted4) {
					t.Errorf("a request that nothing allows: reply %d, %v", code, err)
					return
				}
				denied.Add(1)
			}
		})
	}
	for i := range 100 {
		before := denied.Load()
		s.reloads(deny[i%len(deny)])
		proxytest.Eventually(t, "requests are denied", func() bool { return denied.Load() > before || t.Failed() })
	}
	close(stop)
	all.Wait()
	target.Untouched(t)
	t.Logf("%d requests were denied", denied.Load())
}

// asks4 returns the code of a reply.
func asks4(ctx context.Context, at string, target netip.AddrPort) (byte, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", at)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := c.Write(proxytest.Connect4(target, "bob")); err != nil {
		return 0, err
	}
	var reply [8]byte
	_, err = io.ReadFull(c, reply[:])
	return reply[1], err
}
