package limits

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestChain: things are where they were put, in their order, whatever is taken out.
func TestChain(t *testing.T) {
	type thing struct{ place link[thing] }
	things := make([]thing, 8)
	random := rand.New(rand.NewPCG(1, 2))
	var c chain[thing]
	var want []*thing
	for range 2000 {
		one := &things[random.IntN(len(things))]
		if i := slices.Index(want, one); i < 0 {
			c.add(&one.place, one)
			want = append(want, one)
		} else {
			c.remove(&one.place)
			want = slices.Delete(want, i, i+1)
		}
		if got := slices.Collect(c.all()); !slices.Equal(got, want) || c.length != len(want) || len(want) > 0 && c.head() != want[0] {
			t.Fatalf("%d things, want %d, or in another order", len(got), len(want))
		}
	}
	for one := range c.all() {
		c.remove(&one.place) // while it is gone through
		c.remove(&one.place)
	}
	if c.length != 0 || c.head() != nil {
		t.Errorf("%d are left", c.length)
	}
}
