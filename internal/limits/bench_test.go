package limits

import "testing"

// BenchmarkPiece is what a piece that a relay moves costs under limits that never
// bite: a rate, a quota, or both.
func BenchmarkPiece(b *testing.B) {
	all := map[string]Limit{
		"rate":  {Per: User, Rate: 1_000_000_000_000},
		"quota": {Per: User, Quota: 1 << 60, Every: Every{Unit: Day}, Warn: []int{80, 95}},
	}
	for _, names := range [][]string{{"rate"}, {"quota"}, {"rate", "quota"}} {
		name := names[0]
		if len(names) > 1 {
			name = "both"
		}
		b.Run(name, func(b *testing.B) {
			tab := &Table{}
			tab.Set(all)
			s := enter(b, tab, names...)
			defer s.Leave()
			up, _ := s.Pace()
			for b.Loop() {
				if up.Chunk() < 1 || up.Took(1) < 0 {
					b.Fatal("a piece of nothing")
				}
			}
		})
	}
}
