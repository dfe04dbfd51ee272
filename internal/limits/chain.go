package limits

import "iter"

// chain is a list of things that have their links in themselves: to be in one costs no
// memory. The zero value is empty.
type chain[T any] struct {
	first, last *link[T]
	length      int
}

// link is a thing's place in a chain. The zero value is in none.
type link[T any] struct {
	before, behind *link[T]
	of             *T // nil: it is in no chain
}

// add puts a thing at the end by its link, which is in no chain.
func (c *chain[T]) add(l *link[T], of *T) {
	l.before, l.behind, l.of = c.last, nil, of
	if c.last == nil {
		c.first = l
	} else {
		c.last.behind = l
	}
	c.last = l
	c.length++
}

// remove takes a thing out, if it is there. It is in no other chain by this link.
func (c *chain[T]) remove(l *link[T]) {
	if l.of == nil {
		return
	}
	if l.before == nil {
		c.first = l.behind
	} else {
		l.before.behind = l.behind
	}
	if l.behind == nil {
		c.last = l.before
	} else {
		l.behind.before = l.before
	}
	*l = link[T]{}
	c.length--
}

// head returns the first thing; nil: there is none.
func (c *chain[T]) head() *T {
	if c.first == nil {
		return nil
	}
	return c.first.of
}

// all goes through what is there. What it has come to may be taken out.
func (c *chain[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for l := c.first; l != nil; {
			next := l.behind
			if !yield(l.of) {
				return
			}
			l = next
		}
	}
}
