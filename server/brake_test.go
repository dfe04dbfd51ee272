package server

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// metered is a pacer of 1000 bytes a second.
type metered struct{ moved int }

func (m *metered) Chunk() int { return 100 }

func (m *metered) Took(n int) time.Duration {
	m.moved += n
	return time.Duration(n) * time.Millisecond
}

func (m *metered) Passes(n int) bool { return n <= 100 }

// TestSlow: a relay goes as fast as the brake says while there is one, each way by
// its own.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{})
		client, far := r.relayed(r.network.MustListen(targetAt.String()))
		session := r.server.Sessions()[0]
		takes := func(from, to *proxytest.Conn, want time.Duration) {
			t.Helper()
			begun := time.Now()
			proxytest.Say(t, from, bytes.Repeat([]byte("x"), 2000))
			if _, err := io.ReadFull(to, make([]byte, 2000)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if took := time.Since(begun); took < want-200*time.Millisecond || took > want {
				t.Errorf("2000 bytes took %v, want %v", took, want)
			}
		}
		takes(far, client, 0)
		session.Slow(nil, &metered{})
		takes(far, client, 0)             // what was being read
		takes(far, client, 4*time.Second) // behind the pause that it brought
		takes(client, far, 0)
		session.Slow(&metered{}, &metered{})
		takes(client, far, 0)
		takes(client, far, 4*time.Second)
		session.Slow(nil, nil)
		time.Sleep(time.Second) // the last pause is over
		takes(client, far, 0)
		takes(far, client, 0)
		client.Close()
		far.Close()
	})
}

// TestBothPass: a datagram passes where the brake and the budget let it.
func TestBothPass(t *testing.T) {
	s := &Session{}
	up, down := (*upward)(s), (*downward)(s)
	if !up.inRate(nil, 5000) || !down.Passes(5000) || up.Chunk() < 1<<20 || down.Took(5) != 0 {
		t.Error("without a brake or a budget something is held up")
	}
	brake, own := &metered{}, &metered{}
	s.Slow(brake, nil)
	if up.inRate(own, 500) || !up.inRate(own, 50) || !down.inRate(nil, 500) || up.Passes(500) {
		t.Error("the brake of one direction does not hold for it alone")
	}
	s.pace = &paces{own, own}
	if up.Chunk() != 100 || down.Chunk() != 100 || down.Took(10) != 10*time.Millisecond || up.Took(20) != 20*time.Millisecond || own.moved != 30 || brake.moved != 20 {
		t.Errorf("own %d, brake %d", own.moved, brake.moved)
	}
}
