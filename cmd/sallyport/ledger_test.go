package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

var kills = flag.Int("kills", 15, "how often TestLedgerOutlivesKills kills the server")

// TestLedgerOutlivesKills: SIGKILL under load costs what was counted since the last
// write. Nothing of before it is lost, and the ledger opens again each time.
func TestLedgerOutlivesKills(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes more than 2 s")
	}
	dir := t.TempDir()
	settings := filepath.Join(dir, "sallyport.yaml")
	const text = "listeners: {listen: '127.0.0.1:0', protocols: socks4}\nrules: {allow: all, to: any}\nadmin: off\nledger: {store: 'sqlite:ledger.db', flush: 100ms}\n"
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	target := proxytest.Echo(t, "127.0.0.1")
	var known int64 // bytes that were in the ledger once
	for range *kills {
		before := usedBytes(t, settings, known > 0)
		if before < known {
			t.Fatalf("the ledger had %d bytes, and has %d", known, before)
		}
		server, address := startKillable(t, settings)
		load := startLoad(t, address, target.Port())
		written := func() bool {
			last := known
			known = usedBytes(t, settings, true)
			return known > last
		}
		known = before
		proxytest.Eventually(t, "the load is in the ledger", written)
		moved := load.moved.Load()
		written()
		// What is written next may have been read off before; what is written after that was not.
		proxytest.Eventually(t, "it is written once more", written)
		proxytest.Eventually(t, "and again", written)
		if err := server.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = server.Wait() // it was killed
		load.end()
		after := usedBytes(t, settings, true)
		if after < known {
			t.Errorf("the ledger had %d bytes, and after the kill %d", known, after)
		}
		if after-before < moved {
			t.Errorf("%d bytes had moved two writes before the kill, and %d are in the ledger", moved, after-before)
		}
	}
}

// usedBytes asks the command for the sum of both directions.
func usedBytes(t *testing.T, settings string, exists bool) int64 {
	t.Helper()
	var out, errs bytes.Buffer
	code := run([]string{"usage", "--config", settings, "--json"}, nil, &out, &errs)
	if !exists && code == exitFailed && strings.Contains(errs.String(), "no ledger yet") {
		return 0
	}
	if code != 0 {
		t.Fatalf("usage ends with %d: %s", code, errs.String())
	}
	var answer struct{ Sum usageLine }
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Sum.Up + answer.Sum.Down
}

// startKillable starts the program as a process of its own.
func startKillable(t *testing.T, settings string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sallyport", "serve", "--config", settings)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_, rest, ok := strings.Cut(line, "listening on ")
	if err != nil || !ok {
		t.Fatalf("it does not say where it listens: %q, %v", line, err)
	}
	address, _, _ := strings.Cut(rest, " ")
	return cmd, address
}

// load is sessions that send and receive until their server is gone.
type load struct {
	moved atomic.Int64
	all   sync.WaitGroup
	conns []net.Conn
}

func startLoad(t *testing.T, address string, port uint16) *load {
	t.Helper()
	l := &load{}
	for range 4 {
		c := proxytest.Dial(t, address)
		request := []byte{4, 1, byte(port >> 8), byte(port), 127, 0, 0, 1, 'u', 0}
		var reply [8]byte
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, reply[:]); err != nil || reply[1] != 90 {
			t.Fatalf("%v, %v", reply, err)
		}
		l.conns = append(l.conns, c)
		l.all.Go(func() {
			block := make([]byte, 16<<10)
			for {
				if _, err := c.Write(block); err != nil {
					return
				}
				if _, err := io.ReadFull(c, block); err != nil {
					return
				}
				l.moved.Add(int64(2 * len(block)))
			}
		})
	}
	return l
}

func (l *load) end() {
	for _, c := range l.conns {
		c.Close()
	}
	l.all.Wait()
}

// TestUsage: the answer in its three forms, of a server that has ended.
func TestUsage(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "ledger.db")
	p, address := startServe(t, "listeners: {name: lan, listen: '127.0.0.1:0'}\nrules: {allow: all, to: any}\nledger: 'sqlite:"+store+"'\n")
	target := proxytest.Echo(t, "127.0.0.1")
	c := proxytest.Dial(t, address)
	port := target.Port()
	if _, err := c.Write(append([]byte{4, 1, byte(port >> 8), byte(port), 127, 0, 0, 1, 'u', 0}, "hello"...)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 8+5)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	stopServe(t, p)
	month := time.Now().UTC().Format("2006-01") // a test that runs over a month's end asks again
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--by", "host"}, "  sessions  refused   up  down  both  host\n         1        0  5 B   5 B  10 B  127.0.0.1\n         1        0  5 B   5 B  10 B  (sum)\n"},
		{[]string{"--by", "listener", "--csv", "--since", "1d"}, "listener,sessions,refused,up,down\nlan,1,0,5,5\n"},
		{[]string{"--by", "rule", "--csv", "--until", "2001-01-01"}, "rule,sessions,refused,up,down\n"},
		{[]string{"--by", "source", "--csv", "--source", "127.0.0.1", "--rule", "all"}, "source,sessions,refused,up,down\n127.0.0.1,1,0,5,5\n"},
		{[]string{"--by", "month", "--csv"}, "month,sessions,refused,up,down\n" + month + ",1,0,5,5\n"},
	} {
		var out, errs bytes.Buffer
		code := run(append([]string{"usage", "--store", "sqlite:" + store}, test.args...), nil, &out, &errs)
		if code != 0 || out.String() != test.want {
			t.Errorf("%v: %d, %q %s, want %q", test.args, code, out.String(), errs.String(), test.want)
		}
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 5 << 30: "5.0 GiB", 1 << 62: "4.0 EiB"} {
		if got := size(bytes); got != want {
			t.Errorf("%d bytes are %s, want %s", bytes, got, want)
		}
	}
}
