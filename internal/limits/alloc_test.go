package limits

import (
	"testing"

	"github.com/sallyport/sallyport/server"
)

// TestShortSessionAllocates one piece of memory where it does little: its budget.
func TestShortSessionAllocates(t *testing.T) {
	tab := &Table{}
	tab.Set(map[string]Limit{
		"rate":  {Per: Source, Rate: 1_000_000_000_000},
		"quota": {Per: User, Quota: 1 << 60, Every: Every{Unit: Day}, Warn: []int{80, 95}},
	})
	part := tab.Of("rule", []string{"rate", "quota"}, nil)
	end := func(error) {}
	session := func() server.Stay {
		s, err := part.Budget(&someone, server.Identity{Name: "alice"}).Enter(nil, end)
		if err != nil {
			t.Fatal(err)
		}
		up, down := s.Pace()
		for _, p := range []server.Pacer{up, down} {
			if p.Took(0) > 0 || p.Chunk() < 1 || p.Took(1) > 0 {
				t.Fatal("it has to wait")
			}
		}
		return s
	}
	defer session().Leave() // so that the counters stay
	if n := testing.AllocsPerRun(200, func() { session().Leave() }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}
