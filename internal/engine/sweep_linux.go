package engine

import "time"

// Swept is a Record that is looked at now and then, for what need not be exact. A timer would cost it memory for as long as it is
// set.
type Swept interface {
	Record

	// Swept is called for each descriptor of the record, once in SweepRound or a little more.
	Swept()
}

// SweepRound is from one time that a record is looked at to the next.
const SweepRound = 64 * sweepStep

// sweepStep is from one part of a round to the next: what a loop does at once must not keep others waiting.
const sweepStep = time.Second

// broom goes through the table of a loop, again and again.
type broom struct {
	loop  *Loop
	timer Timer
	place int // in the table: who is next
}

func (b *broom) start(l *Loop) {
	b.loop = l
	l.Set(&b.timer, b, l.now+sweepStep)
}

// Expired does the next part of a round.
func (b *broom) Expired() {
	b.loop.Set(&b.timer, b, b.loop.now+sweepStep)
	slots := len(b.loop.table.slots) // none, as long as nobody has added a descriptor
	for range min(slots, slots/int(SweepRound/sweepStep)+1) {
		if b.place >= len(b.loop.table.slots) {
			b.place = 0
		}
		b.sweep(b.place)
		b.place++
	}
}

func (b *broom) sweep(place int) {
	if r, ok := b.loop.table.slots[place].record.(Swept); ok {
		defer contain(r)
		r.Swept()
	}
}

// Ready is never called: it has no descriptor.
func (b *broom) Ready(Handle, Events) {}

// Broken is never called: whoever is swept is told itself.
func (b *broom) Broken(fault any, _ []byte) { panic(fault) }
