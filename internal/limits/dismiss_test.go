package limits

import (
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/server"
)

// TestEndsWhileItLeaves: a session takes the same lock to be ended and to leave, and can
// do both at once.
func TestEndsWhileItLeaves(t *testing.T) {
	tab := table(Limit{Per: Whole, Quota: int64(time.Hour), Counts: Online})
	var life sync.Mutex
	asked := make(chan struct{})
	s, err := tab.Of("rule", []string{"l"}, nil).Budget(&someone, server.Identity{}).Enter(nil, func(error) {
		close(asked)
		life.Lock()
		defer life.Unlock()
	})
	if err != nil {
		t.Fatal(err)
	}
	var ticks sync.WaitGroup
	life.Lock()
	ticks.Go(func() { tab.tick(time.Now().Add(2 * time.Hour)) })
	<-asked
	s.Leave()
	life.Unlock()
	ticks.Wait()
}

// TestEndedByNewcomer: whoever enters, and finds that the time of others is over, ends
// none of them under the locks that it holds. They end with the next tick.
func TestEndedByNewcomer(t *testing.T) {
	tab := table(Limit{Per: Whole, Quota: int64(time.Second), Counts: Online})
	ended := 0
	part := tab.Of("rule", []string{"l"}, nil)
	s, err := part.Budget(&someone, server.Identity{}).Enter(nil, func(error) { ended++ })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Leave()
	c := tab.named["l"].counters[key{}]
	c.used.Add(int64(time.Minute))
	if _, err := part.Budget(&someone, server.Identity{}).Enter(nil, func(error) { t.Error("who did not come in is ended") }); err == nil || ended > 0 {
		t.Errorf("it came in, or ended another: %v, %d", err, ended)
	}
	for range 2 {
		tab.tick(time.Now())
	}
	if ended != 1 {
		t.Errorf("ended %d times", ended)
	}
}
