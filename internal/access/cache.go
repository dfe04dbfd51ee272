package access

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Cache's own bounds.
const (
	cacheNames   = 10_000           // answers that are remembered; one more forgets the oldest
	cacheAddrs   = 64               // addresses in an answer; a longer one is not remembered
	cacheMissing = 2 * time.Second  // how long it is remembered that a name has no address
	lookupLimit  = 10 * time.Second // one look-up
)

// Cache is a [Resolver] that remembers what another one has answered, and asks
// it once where many ask for the same name at once. It is safe for concurrent
// use.
//
// It remembers for a time of its own, not for that of the DNS record, which a
// Resolver does not tell. That is no way round the rules: whoever gets an answer
// judges its addresses each time.
type Cache struct {
	resolver Resolver
	life     time.Duration

	mu      sync.Mutex
	answers map[question]*list.Element
	oldest  list.List // of *answer, in the order in which they came
	lookups map[question]*lookup
}

type question struct{ network, host string }

// answer is what is remembered.
type answer struct {
	question question
	addrs    []netip.Addr
	err      error
	until    time.Time
}

// lookup is a question that was put, and those who wait for its answer.
type lookup struct {
	waiting int // guarded by the cache's mu
	cancel  context.CancelFunc
	done    chan struct{} // closed when there is an answer
	addrs   []netip.Addr  // the answer, written before done is closed
	err     error
}

// NewCache returns a cache in front of r. An answer is remembered for life, that
// a name has no address for at most two seconds, and any other failure not at
// all. With a life of 0 only the questions are shared.
func NewCache(r Resolver, life time.Duration) *Cache {
	return &Cache{
		resolver: r,
		life:     life,
		answers:  make(map[question]*list.Element),
		lookups:  make(map[question]*lookup),
	}
}

// LookupNetIP implements [Resolver]. When ctx ends it returns ctx's cause; the
// look-up goes on for whoever else waits, and ends with the last of them, or
// after ten seconds. The slice is the caller's own.
func (c *Cache) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	q := question{network, host}
	known, l := c.join(ctx, q)
	if known != nil {
		return slices.Clone(known.addrs), known.err
	}
	select {
	case <-l.done:
		return slices.Clone(l.addrs), l.err
	case <-ctx.Done():
		c.leave(q, l)
		return nil, context.Cause(ctx)
	}
}

// Recall returns what is remembered; known is false where LookupNetIP would ask or
// wait. The slice is the caller's own.
func (c *Cache) Recall(network, host string) (addrs []netip.Addr, known bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.recall(question{network, host})
	if a == nil {
		return nil, false, nil
	}
	return slices.Clone(a.addrs), true, a.err
}

// join returns what is remembered, or else the look-up to wait for.
func (c *Cache) join(ctx context.Context, q question) (*answer, *lookup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.recall(q); known != nil {
		return known, nil
	}
	l := c.lookups[q]
	if l == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupLimit)
		l = &lookup{cancel: cancel, done: make(chan struct{})}
		c.lookups[q] = l
		go c.ask(ctx, q, l)
	}
	l.waiting++
	return nil, l
}

// leave is for one who does not wait to the end.
func (c *Cache) leave(q question, l *lookup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.waiting--; l.waiting == 0 {
		l.cancel()
		c.forget(q, l) // who comes now must not wait for what was given up
	}
}

// ask puts the question.
func (c *Cache) ask(ctx context.Context, q question, l *lookup) {
	defer l.cancel()
	l.addrs, l.err = c.resolver.LookupNetIP(ctx, q.network, q.host)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(q, l)
	c.remember(q, l)
	close(l.done)
}

// forget is for callers that hold the lock.
func (c *Cache) forget(q question, l *lookup) {
	if c.lookups[q] == l {
		delete(c.lookups, q)
	}
}

// recall is for callers that hold the lock.
func (c *Cache) recall(q question) *answer {
	e := c.answers[q]
	if e == nil {
		return nil
	}
	a, _ := e.Value.(*answer)
	if !time.Now().Before(a.until) {
		c.drop(e)
		return nil
	}
	return a
}

// remember is for callers that hold the lock.
func (c *Cache) remember(q question, l *lookup) {
	life := c.life
	if l.err != nil || len(l.addrs) == 0 {
		life = min(life, cacheMissing)
	}
	if life <= 0 || len(l.addrs) > cacheAddrs || l.err != nil && !isMissing(l.err) {
		return
	}
	if e := c.answers[q]; e != nil {
		c.drop(e)
	}
	if len(c.answers) >= cacheNames {
		c.drop(c.oldest.Front())
	}
	c.answers[q] = c.oldest.PushBack(&answer{q, l.addrs, l.err, time.Now().Add(life)})
}

// drop is for callers that hold the lock.
func (c *Cache) drop(e *list.Element) {
	if a, ok := c.oldest.Remove(e).(*answer); ok {
		delete(c.answers, a.question)
	}
}

// isMissing reports whether a name server has said that there is no address. A
// server that cannot say so yet may know it a moment later.
func isMissing(err error) bool {
	dns, ok := errors.AsType[*net.DNSError](err)
	return ok && dns.IsNotFound && !dns.IsTimeout && !dns.IsTemporary
}
