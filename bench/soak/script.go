//go:build linux

package soak

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"
)

// ending is how a relay ends.
type ending byte

const (
	together     ending = iota // both sides speak at once, and end by FIN when they have said all
	clientFirst                // the target speaks only after the client's FIN
	targetFirst                // the client speaks only after the target's FIN
	clientResets               // the target speaks when it has heard all, and the client resets when it has heard that
	targetResets               // the same the other way round
	endings
)

func (e ending) String() string {
	return [...]string{"together", "client first", "target first", "client resets", "target resets"}[e]
}

// manner is how fast a side speaks and listens.
type manner byte

const (
	bulk      manner = iota // as fast as it can
	haltingly               // small pieces, with pauses
	slowly                  // the listener rests between reads: whoever speaks is held up
	manners
)

// scriptSize is the length of a script on the wire.
const scriptSize = 4*8 + 2

// script is what will happen on a relay. The client sends it first, so that both sides know it.
type script struct {
	seed     uint64
	up, down int64 // bytes
	trips    int64 // round trips of 64 bytes each before all else
	ending   ending
	manner   manner
}

func (s script) String() string {
	return fmt.Sprintf("relay %x: %d trips, %d bytes up, %d down, %v, manner %d", s.seed, s.trips, s.up, s.down, s.ending, s.manner)
}

func (s script) append(b []byte) []byte {
	for _, v := range []uint64{s.seed, uint64(s.up), uint64(s.down), uint64(s.trips)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return append(b, byte(s.ending), byte(s.manner))
}

func parse(b []byte) script {
	u := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return script{u(0), int64(u(1)), int64(u(2)), int64(u(3)), ending(b[32]), manner(b[33])}
}

// random returns a script of one of the three kinds of stream.
func random(r *rand.Rand, k kind) script {
	s := script{seed: r.Uint64(), ending: ending(r.IntN(int(endings)))}
	switch k {
	case bulkStream:
		s.up, s.down = r.Int64N(64<<20), r.Int64N(64<<20)
		if r.IntN(8) == 0 {
			s.manner = slowly
			s.up, s.down = s.up/8, s.down/8
		}
	case pingPong:
		s.trips = 20 + r.Int64N(200)
	case churn:
		s.up, s.down = r.Int64N(1<<r.IntN(19)), r.Int64N(1<<r.IntN(19))
		s.manner = manner(r.IntN(int(manners)))
	}
	s.up, s.down = s.up+1, s.down+1 // so that whoever resets knows by the other's byte that all was heard
	return s
}

// pause is how long a side rests before its next piece.
func pause(r *rand.Rand) time.Duration {
	if r.IntN(4) > 0 {
		return 0
	}
	return 80*time.Millisecond + time.Duration(r.IntN(60))*time.Millisecond
}
