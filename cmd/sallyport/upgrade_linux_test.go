package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// What TestUpgradeUnderLoad does; docs/service.md has what the full rate gave.
var (
	upgrades  = flag.Int("upgrades", 20, "how often TestUpgradeUnderLoad upgrades")
	transfers = flag.Int("transfers", 1000, "how many sessions it keeps open")
	newRate   = flag.Int("newrate", 100, "how many new sessions a second it has")
)

// upgradable is a server that is a process of its own, run by a link that can be
// put elsewhere, with all those that take its place.
type upgradable struct {
	testing.TB
	dir     string
	address string
	log     string // file
	first   int    // process
}

const upgradableSettings = `
listeners: {name: lan, listen: '127.0.0.1:0', protocols: socks4}
rules: {allow: all, from: loopback, to: any}
admin: {socket: admin.sock}
ledger: sqlite:ledger.db
`

func startUpgradable(t *testing.T) *upgradable {
	t.Helper()
	u := newUpgradable(t)
	u.starts(t, upgradableSettings)
	return u
}

// starts has it serve by these settings.
func (u *upgradable) starts(tb testing.TB, settings string) {
	tb.Helper()
	dir := u.dir
	u.writes("s.yaml", settings)
	log, err := os.Create(u.log)
	if err != nil {
		tb.Fatal(err)
	}
	defer log.Close()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		tb.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(dir, "sallyport"), "--config", filepath.Join(dir, "s.yaml"))
	cmd.Stdout, cmd.Stderr = out, log
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH")) // in a test, the program has its bare name
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	u.first = cmd.Process.Pid
	tb.Cleanup(u.kill)
	listening := regexp.MustCompile(`listening on (\S+) `)
	proxytest.Eventually(tb, "it says where it listens", func() bool {
		text, err := os.ReadFile(out.Name())
		if m := listening.FindSubmatch(text); err == nil && m != nil {
			u.address = string(m[1])
		}
		return u.address != ""
	})
}

// newUpgradable is a server that does not run yet.
func newUpgradable(tb testing.TB) *upgradable {
	tb.Helper()
	if testing.Short() {
		tb.Skip("it takes more than 2 s, or needs systemd's tools")
	}
	dir, err := os.MkdirTemp("", "upgrade") // short: it goes into a socket's address
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	u := &upgradable{TB: tb, dir: dir, log: filepath.Join(dir, "log")}
	u.installs(u.own())
	// Whoever loses its parent becomes a child of this process, which learns how it ended.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		tb.Fatal(err)
	}
	return u
}

// own is the path of the program that is tested.
func (u *upgradable) own() string {
	u.Helper()
	path, err := os.Executable()
	if err != nil {
		u.Fatal(err)
	}
	return path
}

// installs puts another program in the place of the running one.
func (u *upgradable) installs(program string) {
	u.Helper()
	next, link := filepath.Join(u.dir, "next"), filepath.Join(u.dir, "sallyport")
	if err := errors.Join(os.Symlink(program, next), os.Rename(next, link)); err != nil {
		u.Fatal(err)
	}
}

func (u *upgradable) writes(name, text string) string {
	u.Helper()
	path := filepath.Join(u.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		u.Fatal(err)
	}
	return path
}

func (u *upgradable) said() string {
	u.Helper()
	text, err := os.ReadFile(u.log)
	if err != nil {
		u.Fatal(err)
	}
	return string(text)
}

// processes are all that have served, by their order.
func (u *upgradable) processes() []int {
	u.Helper()
	all := []int{u.first}
	for _, m := range regexp.MustCompile(`another process has taken over.* process=(\d+) `).FindAllStringSubmatch(u.said(), -1) {
		pid, err := strconv.Atoi(m[1])
		if err != nil {
			u.Fatal(err)
		}
		all = append(all, pid)
	}
	return all
}

func (u *upgradable) serving() int {
	all := u.processes()
	return all[len(all)-1]
}

// commands runs `sallyport upgrade`.
func (u *upgradable) commands() (code int, said string) {
	var out, errs bytes.Buffer
	code = run([]string{"upgrade", "--socket", filepath.Join(u.dir, "admin.sock")}, nil, &out, &errs)
	return code, out.String() + errs.String()
}

// upgrades has another process take over, by the command or by the signal.
func (u *upgradable) upgrades(bySignal bool) {
	u.Helper()
	before := u.processes()
	if bySignal {
		if err := syscall.Kill(before[len(before)-1], syscall.SIGUSR2); err != nil {
			u.Fatal(err)
		}
	} else if code, said := u.commands(); code != 0 {
		u.Fatalf("upgrade ends with %d: %s", code, said)
	}
	proxytest.Eventually(u, "another process serves", func() bool { return len(u.processes()) > len(before) })
}

// ended reports whether a process has, and is gone.
func (u *upgradable) ended(pid int) bool {
	var status syscall.WaitStatus
	if got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil); err == nil && got == pid {
		if status.ExitStatus() != 0 {
			u.Errorf("process %d ended with %d (%x)", pid, status.ExitStatus(), status)
		}
		return true
	}
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// stops asks the one that serves to end, and waits until all have.
func (u *upgradable) stops() {
	u.Helper()
	all := u.processes()
	if err := syscall.Kill(all[len(all)-1], syscall.SIGTERM); err != nil {
		u.Fatal(err)
	}
	for _, pid := range all {
		proxytest.Eventually(u, fmt.Sprintf("process %d ends", pid), func() bool { return u.ended(pid) })
	}
	for _, bad := range []string{"panic:", "DATA RACE", "sessions were cut", "level=ERROR"} {
		if strings.Contains(u.said(), bad) {
			u.Errorf("the log has %q", bad)
		}
	}
}

// kill leaves nothing behind when a test has failed.
func (u *upgradable) kill() {
	for _, pid := range u.processes() {
		if syscall.Kill(pid, syscall.SIGKILL) == nil {
			_, _ = syscall.Wait4(pid, nil, 0, nil) // it may be another's child
		}
	}
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	if u.Failed() {
		lines := strings.Split(u.said(), "\n")
		u.Logf("the log ends with:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
}

// session is a client of the server, relayed to an echo.
type session struct{ net.Conn }

func (u *upgradable) session(target uint16) (session, error) {
	c, err := net.DialTimeout("tcp", u.address, 20*time.Second)
	if err != nil {
		return session{}, err
	}
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute)) // no test waits for ever
	var reply [8]byte
	if _, err = c.Write([]byte{4, 1, byte(target >> 8), byte(target), 127, 0, 0, 1, 'u', 0}); err == nil {
		_, err = io.ReadFull(c, reply[:])
	}
	if err == nil && reply[1] != 90 {
		err = fmt.Errorf("refused: %d", reply[1])
	}
	if err != nil {
		c.Close()
	}
	return session{c}, err
}

// exchange sends a block and hears it.
func (s session) exchange(block []byte) error {
	if _, err := s.Write(block); err != nil {
		return err
	}
	_, err := io.ReadFull(s, make([]byte, len(block)))
	return err
}

// use is what was moved in all, as the clients know it.
type use struct {
	testing.TB
	sessions, bytes, failures atomic.Int64
	all                       sync.WaitGroup
}

func (u *use) failed(what string, err error) {
	if u.failures.Add(1) < 10 {
		u.Errorf("%s: %v", what, err)
	}
}

// transfers has a session move a block each second until end is closed, then one more.
func (u *use) transfers(s session, end <-chan struct{}) {
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(7 * time.Minute))
	turn := time.NewTicker(time.Second)
	defer turn.Stop()
	block := bytes.Repeat([]byte("s"), 512)
	for last := false; ; {
		if err := s.exchange(block); err != nil {
			u.failed("a transfer", err)
			return
		}
		u.bytes.Add(int64(len(block)))
		if last {
			return
		}
		select {
		case <-turn.C:
		case <-end:
			last = true
		}
	}
}

// TestUpgradeUnderLoad: no session is cut, none is refused, and the ledger has
// each byte once, however often the server is replaced.
func TestUpgradeUnderLoad(t *testing.T) {
	u := startUpgradable(t)
	port := proxytest.Echo(t, "127.0.0.1").Port()
	used := use{TB: t}
	end, endNew := make(chan struct{}), make(chan struct{})
	for range *transfers {
		s, err := u.session(port)
		if err != nil {
			t.Fatal(err)
		}
		used.sessions.Add(1)
		used.all.Go(func() { used.transfers(s, end) })
	}
	used.all.Go(func() { u.comers(port, endNew, &used) })
	for i := range *upgrades {
		before := used.sessions.Load()
		u.upgrades(i%2 == 0)
		proxytest.Eventually(t, "new sessions come to it", func() bool { return used.sessions.Load() >= before+int64(*newRate/4) })
	}
	close(endNew)
	close(end)
	used.all.Wait()
	if n := used.failures.Load(); n > 0 {
		t.Errorf("%d sessions were refused or cut", n)
	}
	if got := len(u.processes()); got != *upgrades+1 {
		t.Errorf("%d processes have served, want %d", got, *upgrades+1)
	}
	u.stops()
	sum := u.ledger()
	if n, b := used.sessions.Load(), used.bytes.Load(); sum.Sessions != n || sum.Refused != 0 || sum.Up != b || sum.Down != b {
		t.Errorf("the ledger has %+v; there were %d sessions, and %d bytes each way", sum, n, b)
	}
	t.Logf("%d upgrades, %d sessions, %d bytes each way", *upgrades, used.sessions.Load(), used.bytes.Load())
}

// comers has new sessions come at the rate until end is closed.
func (u *upgradable) comers(port uint16, end <-chan struct{}, used *use) {
	turn := time.NewTicker(time.Second / time.Duration(*newRate))
	defer turn.Stop()
	for {
		select {
		case <-turn.C:
		case <-end:
			return
		}
		used.all.Go(func() {
			s, err := u.session(port)
			if err == nil {
				err = s.exchange([]byte("sixteen octets.."))
				s.Close()
			}
			if err != nil {
				used.failed("a new session", err)
				return
			}
			used.bytes.Add(16)
			used.sessions.Add(1)
		})
	}
}

func (u *upgradable) ledger() usageLine {
	u.Helper()
	var out, errs bytes.Buffer
	if code := run([]string{"usage", "--config", filepath.Join(u.dir, "s.yaml"), "--json"}, nil, &out, &errs); code != 0 {
		u.Fatalf("usage ends with %d: %s", code, errs.String())
	}
	var answer struct{ Sum usageLine }
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		u.Fatal(err)
	}
	return answer.Sum
}

// goes on: a session that is open, and a new one.
func (u *upgradable) goes(open session, target uint16) {
	u.Helper()
	if err := open.exchange([]byte("hello")); err != nil {
		u.Errorf("an open session: %v", err)
	}
	s, err := u.session(target)
	if err == nil {
		err = s.exchange([]byte("hello"))
		s.Close()
	}
	if err != nil {
		u.Errorf("a new session: %v", err)
	}
}

// fails upgrades, which must not happen, and be said in these words.
func (u *upgradable) fails(words ...string) {
	u.Helper()
	code, said := u.commands()
	if code != exitFailed {
		u.Errorf("exit code %d, want %d", code, exitFailed)
	}
	for _, want := range append(words, "nothing has changed") {
		if !strings.Contains(said, want) {
			u.Errorf("it does not say %q: %s", want, said)
		}
	}
	if got := u.processes(); len(got) != 1 {
		u.Errorf("another process has taken over: %v", got)
	}
}

// TestUpgradeFails: whatever is wrong with the new program or the settings, nothing
// happens but that it is said, in its own words.
func TestUpgradeFails(t *testing.T) {
	u := startUpgradable(t)
	port := proxytest.Echo(t, "127.0.0.1").Port()
	open, err := u.session(port)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	u.installs(u.writes("crashes", "#!/bin/sh\necho no such instruction >&2\nkill -SEGV $$\n"))
	u.fails("segmentation fault", "no such instruction")
	u.installs(u.writes("ends", "#!/bin/sh\nexit 0\n"))
	u.fails("ended at once", "it said nothing")
	u.installs(u.writes("no-program", "\x00\x01\x02"))
	u.fails("cannot be started")
	u.installs(filepath.Join(u.dir, "none"))
	u.fails("cannot be started", "no such file")
	u.installs(u.own())
	u.writes("s.yaml", upgradableSettings+"rulez: {}\n")
	u.fails("exit status 78", "s.yaml:6:1:", "rulez: {}\n", "^")
	u.writes("s.yaml", strings.Replace(upgradableSettings, "ledger.db", "none/ledger.db", 1))
	u.fails("exit status 1", "the ledger cannot be opened")
	u.goes(open, port)
	if !strings.Contains(u.said(), "the upgrade failed: this process goes on") {
		t.Error("the log does not say that an upgrade failed")
	}
	u.writes("s.yaml", upgradableSettings)
	if code, said := u.commands(); code != 0 {
		t.Errorf("after all that, an upgrade that is well ends with %d: %s", code, said)
	}
	proxytest.Eventually(t, "it serves", func() bool { return len(u.processes()) == 2 })
	u.goes(open, port)
	open.Close()
	proxytest.Eventually(t, "the first process ends with its last session", func() bool { return u.ended(u.first) })
	if err := syscall.Kill(u.serving(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	proxytest.Eventually(t, "the second ends", func() bool { return u.ended(u.serving()) })
	if _, err := os.Lstat(filepath.Join(u.dir, "admin.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the admin socket is left: %v", err)
	}
}

// TestUpgradeKeepsRules: what the new process reads anew holds for the sessions of
// the one before, and of the one before that.
func TestUpgradeKeepsRules(t *testing.T) {
	u := startUpgradable(t)
	port := proxytest.Echo(t, "127.0.0.1").Port()
	s, err := u.session(port)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	u.upgrades(false)
	u.upgrades(false)
	if err := s.exchange([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	u.writes("s.yaml", strings.Replace(upgradableSettings, "allow: all", "deny: all", 1))
	if err := syscall.Kill(u.serving(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(s); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the session of the first process ends with %v, want a reset", err)
	}
	u.stops()
	if !strings.Contains(u.said(), "reason=revoked") {
		t.Error("no session was revoked")
	}
}

// TestHangupAfterAnUpgrade: whoever sends HUP to the process of before, as one that was asked
// for while it handed over, has the new one read the settings, and so both.
func TestHangupAfterAnUpgrade(t *testing.T) {
	u := startUpgradable(t)
	port := proxytest.Echo(t, "127.0.0.1").Port()
	old, err := u.session(port)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	u.upgrades(true)
	fresh, err := u.session(port)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	u.goes(fresh, port)
	u.writes("s.yaml", strings.Replace(upgradableSettings, "allow: all", "deny: all", 1))
	if err := syscall.Kill(u.first, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]session{"old": old, "new": fresh} {
		if _, err := io.ReadAll(s); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the session of the %s process ends with %v, want a reset", name, err)
		}
	}
	u.stops()
	if !strings.Contains(u.said(), "HUP: the process that has taken over is told") {
		t.Error("the log does not say who is told")
	}
}

// TestUpgradeThenStop: who has handed over drains as any other when it is asked to
// end, and at once when it is asked twice.
func TestUpgradeThenStop(t *testing.T) {
	u := startUpgradable(t)
	s, err := u.session(proxytest.Echo(t, "127.0.0.1").Port())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	u.upgrades(true)
	for _, words := range []string{"stopping: no new clients", "sessions were cut"} {
		if err := syscall.Kill(u.first, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		proxytest.Eventually(t, words, func() bool { return strings.Contains(u.said(), words) })
	}
	proxytest.Eventually(t, "it ends", func() bool { return u.ended(u.first) })
	if err := syscall.Kill(u.serving(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	proxytest.Eventually(t, "the other ends", func() bool { return u.ended(u.serving()) })
}

// echoDatagrams sends datagrams back until the test ends, and returns where.
func echoDatagrams(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		for b := make([]byte, 100); ; {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from) // a datagram may be lost
		}
	}()
	return c.LocalAddr().String()
}

// isAnswered reports whether what listens there leads to an echo.
func isAnswered(network, address string) error {
	c, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return session{c}.exchange([]byte("hello"))
}

// TestUpgradeKeepsSockets of every kind: of TCP, of datagrams, of the file system. The
// last is removed by whoever serves when the server is stopped, and by nobody else.
func TestUpgradeKeepsSockets(t *testing.T) {
	u := startUpgradable(t)
	port := proxytest.Echo(t, "127.0.0.1").Port()
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at, path := free.LocalAddr().String(), filepath.Join(u.dir, "echo.sock")
	free.Close()
	u.writes("s.yaml", strings.Replace(upgradableSettings, "listeners: {name: lan, listen: '127.0.0.1:0', protocols: socks4}", fmt.Sprintf(`listeners:
  - {name: lan, listen: '127.0.0.1:0', protocols: socks4}
  - {name: file, listen: 'unix:%s', map: '127.0.0.1:%d'}
  - {name: names, listen: 'udp/%s', map: '%s'}
`, path, port, at, echoDatagrams(t)), 1))
	if err := syscall.Kill(u.first, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	proxytest.Eventually(t, "it listens on three", func() bool { return strings.Contains(u.said(), "listeners=3") })
	for range 4 {
		s, err := u.session(port)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.exchange([]byte("hello")), isAnswered("unix", path), isAnswered("udp", at)); err != nil {
			t.Error(err)
		}
		s.Close()
		last := u.serving()
		u.upgrades(false)
		proxytest.Eventually(t, "the one before ends", func() bool { return u.ended(last) })
	}
	u.stops()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left in the file system: %v", err)
	}
}
