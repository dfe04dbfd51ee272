package limits

import "time"

// Known returns how many counters there are of which something is still to be known.
func (t *Table) Known() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.named {
		l.sweep(time.Now())
		n += l.open.length
	}
	return n
}
