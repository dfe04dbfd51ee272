package limits

import (
	"fmt"

	"github.com/sallyport/sallyport/server"
)

// whenAway is what becomes of those who have used up what the bank has lent, while it
// cannot be asked.
type whenAway int

const (
	isThere whenAway = iota // it can be: they wait for it
	allows                  // they go on, as if nobody else counted towards the quota
	denies                  // they are ended, and refused
)

// Away says that the bank cannot be asked now. What it has lent may be used up; who
// has done that goes on up to the whole quota, as far as this node knows what was
// used of it, or else is ended and refused, with [server.NoLedger], within a second.
// [Table.Settled] says that the bank is there again.
func (t *Table) Away(allow bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.away = denies
	if allow {
		t.away = allows
	}
}

// isCut reports whether who has used up what the bank has lent is to go, and why. The
// table's mutex is held.
func (c *counter) isCut() error {
	if c.of.table.away != denies {
		return nil
	}
	return fmt.Errorf("%w: it is not known what others have used of the limit %q", server.NoLedger, c.of.name)
}
