package main_test

// Several nodes on one PostgreSQL, each the real program in a network of its own.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// cluster is a database and nodes, each with a link of its own between them.
type cluster struct {
	net   *paperNet // the database's
	db    *proxytest.Postgres
	name  string // of the database
	nodes []*node
}

// node is a network with the program in it, a source of bytes without an end, and a
// user who pulls from that by way of the program.
type node struct {
	c        *cluster
	net      *paperNet
	at       string // of the database, from here
	link     string // at the database's end
	server   *paperServer
	source   netip.AddrPort
	received atomic.Int64
	refused  chan string // closed when the user is refused, and not before
	insists  bool        // the user asks again as long as it is not the quota that he is refused for
	done     sync.WaitGroup
	stop     chan struct{}
}

const nodeQuota = 256 << 20

// newCluster makes the networks, the database, and starts so many nodes.
func newCluster(t *testing.T, count int, rules string) *cluster {
	t.Helper()
	paperSlow(t)
	t.Setenv("PGPASSWORD", proxytest.PostgresPassword)
	c := &cluster{net: newPaperNet(t)}
	for i := range count {
		n := &node{c: c, net: newPaperNet(t), at: fmt.Sprintf("10.77.%d.1", i), link: fmt.Sprintf("node%d", i), stop: make(chan struct{})}
		n.net.ip(t, fmt.Sprintf("link add db type veth peer name %s netns %d", n.link, c.net.thread))
		c.net.ip(t, fmt.Sprintf("addr add %s/24 dev %s", n.at, n.link))
		c.net.ip(t, "link set "+n.link+" up")
		n.net.ip(t, fmt.Sprintf("addr add 10.77.%d.2/24 dev db", i))
		n.net.ip(t, "link set db up")
		c.nodes = append(c.nodes, n)
	}
	var err error
	c.net.do(func() { c.db, err = proxytest.StartPostgres("*") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.db.Remove(); err != nil {
			t.Error(err)
		}
	})
	c.name = strings.TrimPrefix(c.db.Database(t).Path, "/")
	for i, n := range c.nodes {
		n.serve(t, fmt.Sprintf(rules, c.store(n), i))
	}
	return c
}

// store is the ledger's URL from a node.
func (c *cluster) store(n *node) string {
	return fmt.Sprintf("postgres://%s@%s/%s", proxytest.PostgresUser, n.at, c.name)
}

func (n *node) serve(t *testing.T, settings string) {
	t.Helper()
	n.server = launchPaper(t, paperSetup{settings: settings, net: n.net})
	t.Cleanup(func() {
		close(n.stop)
		_ = n.server.cmd.Process.Kill() // it may have been killed before
		<-n.server.done
		n.done.Wait()
		if t.Failed() {
			t.Logf("the log of the node at %s:\n%s", n.at, strings.Join(n.server.stderr.all(), "\n"))
		}
	})
	line := n.server.stdout.until(t, n.server.done, "where it listens", paperListening.MatchString)
	n.server.addrs = []netip.AddrPort{netip.MustParseAddrPort(paperListening.FindStringSubmatch(line)[1])}
	source := n.net.listen(t, "127.0.0.1:0")
	n.source = source.Addr().(*net.TCPAddr).AddrPort()
	go func() {
		for {
			c, err := source.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				block := make([]byte, 64<<10)
				for {
					if _, err := c.Write(block); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// pulls has the user take what he gets, again and again, until he is refused.
func (n *node) pulls() {
	n.refused = make(chan string, 1)
	n.done.Go(func() {
		for {
			select {
			case <-n.stop:
				return
			default:
			}
			c, err := n.net.tryDial("", n.server.addr())
			if err != nil {
				return // it was killed
			}
			if !n.asks(c) {
				c.Close()
				if n.insists && lastReason(n.server) != "quota" {
					n.pause()
					continue
				}
				close(n.refused)
				return
			}
			n.takes(c)
		}
	})
}

// takes reads from c until that has ended, or the test.
func (n *node) takes(c net.Conn) {
	defer c.Close()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-n.stop:
			c.Close()
		case <-ended:
		}
	}()
	buffer := make([]byte, 256<<10)
	for {
		got, err := c.Read(buffer)
		n.received.Add(int64(got))
		if err != nil {
			return
		}
	}
}

// pause is a moment, or ends with the test.
func (n *node) pause() {
	select {
	case <-n.stop:
	case <-time.After(50 * time.Millisecond):
	}
}

// asks is a request by SOCKS 4, and whether it is granted.
func (n *node) asks(c net.Conn) bool {
	port := n.source.Port()
	var reply [8]byte
	if _, err := c.Write(append([]byte{4, 1, byte(port >> 8), byte(port), 127, 0, 0, 1}, "alice\x00"...)); err != nil {
		return false
	}
	_, err := io.ReadFull(c, reply[:])
	return err == nil && reply[1] == 90
}

// number asks the database for one.
func (c *cluster) number(t *testing.T, query string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(c.db.SQL(t, c.name, query), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (c *cluster) used(t *testing.T) int64 {
	return c.number(t, `SELECT coalesce(sum(up + down), 0) FROM quotas`)
}

// soon waits longer than the longest wait of a node for the database.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(3 * paperPatience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("never came true: %s", what)
		}
	}
}

func (n *node) isRefused() bool {
	select {
	case <-n.refused:
		return true
	default:
		return false
	}
}

// usage asks the program, on a node's network, for the sum of both directions.
func (c *cluster) usage(t *testing.T, n *node, args ...string) int64 {
	t.Helper()
	out := c.command(t, n, "", append([]string{"usage", "--json", "--store", c.store(n)}, args...)...)
	var answer struct{ Sum struct{ Up, Down int64 } }
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Sum.Up + answer.Sum.Down
}

// agrees checks that all sums are the same: what the quota has, and what the ledger
// has by each way of summing up; and that clients have received no more than that, nor
// far less.
func (c *cluster) agrees(t *testing.T, reads *node) {
	t.Helper()
	used := c.used(t)
	for _, by := range []string{"user", "source", "rule", "host", "listener", "day"} {
		if sum := c.usage(t, reads, "--by", by); sum != used {
			t.Errorf("by %s %d bytes were used, and of the quota %d", by, sum, used)
		}
	}
	var received int64
	for _, n := range c.nodes {
		received += n.received.Load()
		t.Logf("the node at %s has passed on %d MiB", n.at, n.received.Load()>>20)
	}
	slice := int64(nodeQuota / 16)
	if received > used+slice+1000 || received < used-3*slice { // who was killed had not written all that he had leased
		t.Errorf("clients have received %d bytes, and %d were counted", received, used)
	}
	if most := nodeQuota + 3*slice; used > int64(most) || received > int64(most) {
		t.Errorf("%d bytes were counted and %d received, of %d; want at most three slices of %d more", used, received, nodeQuota, slice)
	}
	t.Logf("%d bytes counted, %d received, %d more than the quota", used, received, used-nodeQuota)
}

const nodeRules = `
listeners: {listen: '127.0.0.1:0', protocols: socks4}
limits: {monthly: {quota: 256 MiB, every: month, per: user}}
rules: {allow: all, users: any, proof: claimed, to: any, limits: monthly}
ledger: {store: '%s', node: node%d, flush: 100ms, when_lost: deny}
`

// TestNodesShareAQuota: one user pulls at full speed on three nodes, and has used up his
// quota on all of them; the overrun is bounded, and all sums agree.
func TestNodesShareAQuota(t *testing.T) {
	c := newCluster(t, 3, nodeRules)
	for _, n := range c.nodes {
		n.pulls()
	}
	soon(t, "all are refused", func() bool { return c.nodes[0].isRefused() && c.nodes[1].isRefused() && c.nodes[2].isRefused() })
	soon(t, "all is written", func() bool { return c.usage(t, c.nodes[0]) == c.used(t) })
	for _, n := range c.nodes {
		if n.received.Load() < nodeQuota/10 {
			t.Errorf("the node at %s has passed on %d bytes only", n.at, n.received.Load())
		}
	}
	c.agrees(t, c.nodes[1])
}

// TestNodesInTrouble: the same, and one node is killed in the middle of it, one is cut
// off from the database, and the database crashes and starts again.
func TestNodesInTrouble(t *testing.T) {
	c := newCluster(t, 3, nodeRules)
	killed, cut, here := c.nodes[0], c.nodes[1], c.nodes[2]
	here.insists = true // what it has leased may be used up before the database is back
	for _, n := range c.nodes {
		n.pulls()
	}
	soon(t, "some of it is used", func() bool { return c.used(t) > nodeQuota/8 })
	if err := killed.server.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.net.ip(t, "link set "+cut.link+" down")
	soon(t, "some more is used", func() bool { return c.used(t) > nodeQuota/3 })
	if err := c.db.Stop(true); err != nil {
		t.Fatal(err)
	}
	here.server.stderr.until(t, here.server.done, "the ledger is away", func(line string) bool { return strings.Contains(line, "the ledger cannot be written") })
	c.restart(t)
	here.server.stderr.until(t, here.server.done, "it is back", func(line string) bool { return strings.Contains(line, "the ledger is written again") })
	soon(t, "who is cut off has used what he leased", cut.isRefused)
	if !here.isRefused() {
		c.db.SQL(t, c.name, `UPDATE leases SET at = at - 60 WHERE node NOT IN (SELECT id FROM nodes WHERE name = 'node2')`) // time goes by
	}
	soon(t, "who is here is refused", here.isRefused)
	if reason := lastReason(here.server); reason != "quota" {
		t.Errorf("who is here is refused for the reason %q", reason)
	}
	if reason := lastReason(cut.server); reason != "no-ledger" && reason != "quota" {
		t.Errorf("who is cut off is refused for the reason %q", reason)
	}
	c.net.ip(t, "link set "+cut.link+" up")
	cut.server.stderr.until(t, cut.server.done, "the ledger is back for who was cut off", func(line string) bool { return strings.Contains(line, "the ledger is written again") })
	soon(t, "all is written", func() bool { return c.usage(t, here) == c.used(t) })
	c.agrees(t, cut)
	for _, n := range []*node{cut, here} {
		said := strings.Join(n.server.stderr.all(), "\n")
		if lost, back := strings.Count(said, "the ledger cannot be written"), strings.Count(said, "the ledger is written again"); lost != back || lost > 2 {
			t.Errorf("the log of the node at %s says %d times that the ledger is lost, and %d times that it is back", n.at, lost, back)
		}
		if strings.Contains(said, proxytest.PostgresPassword) {
			t.Error("the log has the password")
		}
	}
}

const userRules = `
listeners: {listen: '127.0.0.1:0', protocols: socks5}
users: {ledger: true}
groups: {staff: {ledger: true}}
rules: {allow: staff, users: '@staff', proof: password, to: any}
ledger: {store: '%s', node: node%d}
`

// TestUsersOnAllNodes: who is made a user on one node, and put into a group, signs in
// on each, and a session ends on each when he is taken out on another.
func TestUsersOnAllNodes(t *testing.T) {
	c := newCluster(t, 2, userRules)
	here, there := c.nodes[0], c.nodes[1]
	c.command(t, here, "wonderland\n", "user", "add", "alice", "--store", c.store(here))
	c.command(t, there, "", "user", "join", "alice", "staff", "--store", c.store(there))
	if groups := c.command(t, there, "", "user", "groups", "--store", c.store(there)); groups != "staff: alice\n" {
		t.Errorf("the groups are %q", groups)
	}
	var sessions []net.Conn
	for _, n := range c.nodes {
		soon(t, "alice may come to the node at "+n.at, func() bool {
			conn, err := n.net.tryDial("", n.server.addr())
			if err != nil {
				t.Fatal(err)
			}
			if !n.signsIn(conn) {
				conn.Close()
				return false
			}
			sessions = append(sessions, conn)
			return true
		})
	}
	c.command(t, here, "", "user", "remove", "alice", "--store", c.store(here))
	for i, conn := range sessions {
		if err := conn.SetReadDeadline(time.Now().Add(paperPatience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the session on the node at %s ends with %v", c.nodes[i].at, err)
		}
		conn.Close()
		soon(t, "the log says why", func() bool { return lastReason(c.nodes[i].server) == "revoked" })
	}
}

// signsIn asks for the source by SOCKS 5 with a password, and tells whether it is granted.
func (n *node) signsIn(c net.Conn) bool {
	port := n.source.Port()
	for _, step := range []struct{ say, hear string }{
		{"\x05\x01\x02", "\x05\x02"},
		{"\x01\x05alice\x0awonderland", "\x01\x00"},
		{"\x05\x01\x00\x01\x7f\x00\x00\x01" + string([]byte{byte(port >> 8), byte(port)}), "\x05\x00"},
	} {
		answer := make([]byte, len(step.hear))
		if _, err := io.WriteString(c, step.say); err != nil {
			return false
		}
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != step.hear {
			return false
		}
	}
	return true
}

// command runs the program on a node's network, and returns what it prints.
func (c *cluster) command(t *testing.T, n *node, input string, args ...string) string {
	t.Helper()
	program, err := paperProgram()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), program.Fd()), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	n.net.do(func() { err = cmd.Run() })
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, errs.String())
	}
	return out.String()
}

func (c *cluster) restart(t *testing.T) {
	t.Helper()
	var err error
	c.net.do(func() { err = c.db.Start() })
	if err != nil {
		t.Fatal(err)
	}
}

// lastReason is why the last session that is in the log has ended.
func lastReason(s *paperServer) (reason string) {
	for _, line := range s.stderr.all() {
		if _, rest, ok := strings.Cut(line, " reason="); ok {
			reason, _, _ = strings.Cut(rest, " ")
		}
	}
	return reason
}
