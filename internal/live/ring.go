package live

// ring keeps the last ones of what it is given.
type ring[T any] struct {
	all  []T
	next int // where the next one goes
	full bool
}

func newRing[T any](most int) ring[T] { return ring[T]{all: make([]T, most)} }

// push keeps one, in the place of the oldest.
func (r *ring[T]) push(one T) {
	r.all[r.next] = one
	r.next = (r.next + 1) % len(r.all)
	r.full = r.full || r.next == 0
}

// len returns how many are kept.
func (r *ring[T]) len() int {
	if r.full {
		return len(r.all)
	}
	return r.next
}

// last returns the last n of them, the oldest first. They are the caller's.
func (r *ring[T]) last(n int) []T {
	some := make([]T, 0, n)
	for i := n; i > 0; i-- {
		some = append(some, r.all[(r.next-i+len(r.all))%len(r.all)])
	}
	return some
}
