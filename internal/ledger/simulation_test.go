package ledger

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The simulation: nodes that lend from one bank on a clock of its own. Nodes and
// users are numbers here; how much is lent, and when a lease ends, is decided by the
// code that a server runs. As a command:
//
//	go test ./internal/ledger -run TestSimulation -v -sim-nodes 10000 -sim-users 1000000
var (
	simNodes = flag.Int("sim-nodes", 100, "how many nodes TestSimulation has")
	simUsers = flag.Int("sim-users", 5_000, "how many users TestSimulation has")
	simFlush = flag.Duration("sim-flush", 5*time.Second, "how often a node of TestSimulation writes")
	simTime  = flag.Duration("sim-time", 10*time.Minute, "how long TestSimulation runs, on its own clock")
)

// world is a simulation. Time goes by steps, and a node writes in one step out of so
// many; which one is drawn.
type world struct {
	random *rand.Rand
	nodes  []simNode
	users  []simUser
	step   time.Duration
	every  int // steps from one write of a node to the next
	now    int // steps
	load   simLoad
}

// simLoad is what the database has to do.
type simLoad struct{ transactions, settled int64 }

type simNode struct {
	phase   int
	cutFrom int // step from which it cannot reach the database; never: math.MaxInt
	backAt  int // and from when it can again; it is dead if that is never
	local   []simLocal
}

// simLocal is what a node knows of a user's quota.
type simLocal struct {
	user     int
	rate     float64 // bytes a second that he would take there, if he may
	may      float64 // what is left of the lease
	fresh    float64 // used since it was last written
	moved    float64 // in sum
	waited   int     // steps in which he was held up though there was some of the quota
	idle     int     // steps since he used anything
	finished bool    // the quota is used up
}

// simUser is the bank's account of him.
type simUser struct {
	quota  float64
	used   float64 // as the bank knows it
	moved  float64 // what he has really used
	leases []simLease
}

type simLease struct {
	node   int
	amount float64
	at     int // step
}

// lease sets what a node has leased; 0: nothing.
func (u *simUser) lease(node int, amount float64, now int) {
	u.leases = slices.DeleteFunc(u.leases, func(l simLease) bool { return l.node == node })
	if amount > 0 {
		u.leases = append(u.leases, simLease{node, amount, now})
	}
}

func newWorld(nodes, users int, flush time.Duration) *world {
	w := &world{random: rand.New(rand.NewPCG(1, 2)), step: flush / 5}
	w.every = 5
	w.nodes = make([]simNode, nodes)
	for i := range w.nodes {
		w.nodes[i] = simNode{phase: w.random.IntN(w.every), cutFrom: math.MaxInt, backAt: math.MaxInt}
	}
	w.users = make([]simUser, users)
	return w
}

// uses has a user take so many bytes a second on a node.
func (w *world) uses(user, node int, rate float64) {
	n := &w.nodes[node]
	n.local = append(n.local, simLocal{user: user, rate: rate, may: w.users[user].quota * firstShare})
}

func (w *world) run(t time.Duration) {
	for range int(t / w.step) {
		for i := range w.nodes {
			n := &w.nodes[i]
			dead := w.now >= n.cutFrom && n.backAt == math.MaxInt
			if dead {
				continue
			}
			for l := range n.local {
				w.move(&n.local[l])
			}
			if reaches := w.now < n.cutFrom || w.now >= n.backAt; reaches && w.now%w.every == n.phase {
				w.write(i, n)
			}
		}
		w.now++
	}
}

// move has a user take what he may, in a step.
func (w *world) move(l *simLocal) {
	if l.finished {
		return
	}
	want := l.rate * w.step.Seconds()
	n := min(want, l.may)
	l.may -= n
	l.fresh += n
	l.moved += n
	w.users[l.user].moved += n
	l.idle++
	if n > 0 {
		l.idle = 0
	}
	if n < want {
		l.waited++
	}
}

// write is one transaction of a node: it settles those who used anything, or wait.
func (w *world) write(node int, n *simNode) {
	settled := int64(0)
	for i := range n.local {
		l := &n.local[i]
		u := &w.users[l.user]
		if l.fresh == 0 && (l.may > 0 || l.finished) {
			if l.may > 0 && time.Duration(l.idle)*w.step >= idleLease && u.has(node) {
				u.lease(node, 0, w.now) // given back
				l.may = u.quota * firstShare
				settled++
			}
			continue
		}
		settled++
		u.used += l.fresh
		var others float64
		for _, lease := range u.leases {
			if lease.node != node && time.Duration(w.now-lease.at)*w.step < deadLease {
				others += lease.amount
			}
		}
		l.may = float64(lend(int64(u.quota), int64(u.quota-u.used-others), int64(l.fresh)))
		l.fresh = 0
		l.finished = u.used >= u.quota
		u.lease(node, l.may, w.now)
	}
	if settled > 0 {
		w.load.transactions++
		w.load.settled += settled
	}
}

func (u *simUser) has(node int) bool {
	return slices.ContainsFunc(u.leases, func(l simLease) bool { return l.node == node })
}

// overrun is the most that a user has used beyond the quota, in parts of it.
func (w *world) overrun() (most float64) {
	for _, u := range w.users {
		if u.quota > 0 {
			most = max(most, (u.moved-u.quota)/u.quota)
		}
	}
	return most
}

// TestSimulation: many nodes, many users of whom each is on a few nodes at once, some
// far too fast for their quota; a hundredth of the nodes dies, as much is cut off for a
// while. It says what the database has to do.
func TestSimulation(t *testing.T) {
	w := newWorld(*simNodes, *simUsers, *simFlush)
	shape := newShape(w)
	for i := range w.nodes {
		switch at := w.random.IntN(int(*simTime / w.step)); w.random.IntN(100) {
		case 0:
			w.nodes[i].cutFrom = at
		case 1:
			w.nodes[i].cutFrom, w.nodes[i].backAt = at, at+int(time.Minute/w.step)
		}
	}
	w.run(*simTime)
	slices := 1.0 / mostSlice
	overrun := w.overrun()
	if bound := float64(shape.most) * slices; overrun > bound {
		t.Errorf("somebody has used %.3f of the quota too much, want at most a slice for each of %d nodes: %.3f", overrun, shape.most, bound)
	}
	seconds := simTime.Seconds()
	t.Logf("%d nodes, %d users on 1 to %d nodes each, a write every %v, %v:", len(w.nodes), len(w.users), shape.most, *simFlush, *simTime)
	t.Logf("transactions/s %.0f, accounts settled/s %.0f, in a transaction %.1f", float64(w.load.transactions)/seconds,
		float64(w.load.settled)/seconds, float64(w.load.settled)/float64(w.load.transactions))
	t.Logf("used beyond the quota, at most: %.2f %% of it (a slice is %.2f %%)", 100*overrun, 100*slices)
	finished, heldUp := w.finished()
	t.Logf("users at their quota: %d, who were held up for %.0f %% of the time that they took for it", finished, 100*heldUp)
}

// shape is who is where.
type shape struct{ most int }

// newShape puts each user on one node, or few, with a quota and a speed: one in a
// hundred takes all of it within the time.
func newShape(w *world) shape {
	s := shape{most: 3}
	for user := range w.users {
		w.users[user].quota = 1 << 30
		on := 1
		if user%10 == 0 {
			on = 1 + w.random.IntN(s.most)
		}
		rate := 20e3 * (0.5 + w.random.Float64())
		if user%100 == 0 {
			rate = 10e6
		}
		for range on {
			w.uses(user, w.random.IntN(len(w.nodes)), rate)
		}
	}
	return s
}

// finished tells how many have used their quota, and for what part of the time until
// then they had to wait for a lease.
func (w *world) finished() (n int, heldUp float64) {
	for _, u := range w.users {
		if u.quota > 0 && u.used >= u.quota {
			n++
		}
	}
	var waited, moving float64
	for _, node := range w.nodes {
		for _, l := range node.local {
			if l.finished {
				waited += float64(l.waited)
				moving += l.moved / l.rate / w.step.Seconds()
			}
		}
	}
	return n, waited / max(waited+moving, 1)
}

// TestOverrun: who is too fast for the quota on nodes that are cut off, or die, or come
// late, uses no more than a slice too much for each of those.
func TestOverrun(t *testing.T) {
	const nodes, speed = 10, 50e6
	for name, test := range map[string]struct {
		bound   float64 // in quotas
		arrange func(w *world)
		later   func(w *world)
	}{
		"nothing happens": {1e-6, func(*world) {}, func(*world) {}},
		"three are cut off for two minutes": {3.0 / mostSlice, func(w *world) {
			for i := range 3 {
				w.nodes[i].cutFrom, w.nodes[i].backAt = 20*w.every, 140*w.every
			}
		}, func(*world) {}},
		"three die": {3.0 / mostSlice, func(w *world) {
			for i := range 3 {
				w.nodes[i].cutFrom = 20 * w.every
			}
		}, func(*world) {}},
		"all are cut off for ever, but one": {(nodes - 1.0) / mostSlice, func(w *world) {
			for i := range nodes - 1 {
				w.nodes[i].cutFrom, w.nodes[i].backAt = 20*w.every, math.MaxInt-1
			}
		}, func(*world) {}},
		"he goes on to ten more when it is used up": {10 * firstShare, func(*world) {}, func(w *world) {
			for i := range 10 {
				w.nodes = append(w.nodes, simNode{phase: i % w.every, cutFrom: math.MaxInt, backAt: math.MaxInt})
				w.uses(0, nodes+i, speed)
			}
		}},
	} {
		w := newWorld(nodes, 1, time.Second)
		w.users[0].quota = 40 << 30
		for node := range nodes {
			w.uses(0, node, speed)
		}
		test.arrange(w)
		w.run(time.Hour)
		test.later(w)
		w.run(time.Hour)
		switch got := w.users[0].moved/w.users[0].quota - 1; {
		case got > test.bound:
			t.Errorf("%s: %.4f of the quota too much, want at most %.4f", name, got, test.bound)
		case got < -0.001:
			t.Errorf("%s: %.4f of the quota could not be used", name, -got)
		default:
			t.Logf("%s: %.4f of the quota too much, bound %.4f", name, got, test.bound)
		}
	}
}

// TestLeasesAreFair: of one who pulls on several nodes at once, at the same speed, each
// node passes on about as much; all of the quota is used, and no more.
func TestLeasesAreFair(t *testing.T) {
	for _, nodes := range []int{2, 3, 10, 50} {
		w := newWorld(nodes, 1, time.Second)
		w.users[0].quota = 10 << 30
		for node := range nodes {
			w.uses(0, node, 50e6)
		}
		w.run(time.Hour)
		if got := w.users[0].moved / w.users[0].quota; math.Abs(got-1) > 1e-6 {
			t.Errorf("%d nodes: %.6f of the quota was used", nodes, got)
		}
		all := make([]float64, nodes)
		for i := range all {
			all[i] = w.nodes[i].local[0].moved
		}
		slices.SortFunc(all, cmp.Compare)
		if ratio := all[nodes-1] / all[0]; ratio > 1.6 {
			t.Errorf("%d nodes: the first has passed on %.2f times as much as the last", nodes, ratio)
		}
	}
}

// TestLend: what is lent, at the edges.
func TestLend(t *testing.T) {
	const most = 1 << 30
	for _, test := range []struct{ most, left, recent, want int64 }{
		{most, most, 0, most / 64},
		{most, most, most / 100, most / 50},
		{most, most, most, most / 16},
		{most, most / 100, most, most / 200},
		{most, most / 1500, most, most / 1500},
		{most, most / 1024, 0, most / 1024},
		{most, 1, 0, 1},
		{most, 0, 0, 0},
		{most, -5, 0, 0},
		{1, 1, 0, 1},
		{0, 0, 5, 0},
		{math.MaxInt64, math.MaxInt64, 0, math.MaxInt64 / 64},
	} {
		if got := lend(test.most, test.left, test.recent); got != test.want {
			t.Errorf("%s: %d, want %d", fmt.Sprint(test), got, test.want)
		}
	}
}
