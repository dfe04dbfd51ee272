//go:build linux

package load

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// aTarget is a target, and a proxy that is none. Its costs are those of this process and of the crowd's, which descends from it.
func aTarget(t *testing.T) (*Target, *Proxy) {
	t.Helper()
	target, err := Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(target.Close)
	return target, &Proxy{Address: target.Address(), Protocol: Fixed, Process: &Process{PID: os.Getpid()}}
}

// TestCrowd: the ends of its relays are in its process, and nobody else's; they are gone when it has dispersed.
func TestCrowd(t *testing.T) {
	target, p := aTarget(t)
	own := func() int {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(open)
	}
	before := own()
	crowd, err := target.Gather(t.Context(), p, 50, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Settle(t.Context()); err != nil { // passed on, and then closed
		t.Error(err)
	}
	if more := own() - before; more > 10 {
		t.Errorf("%d descriptors more here", more)
	}
	held, err := (&Process{PID: crowd.process.Process.Pid}).Memory()
	if err != nil || held.Descriptors < 100 {
		t.Errorf("the crowd holds %d descriptors, %v; want both ends of 50 relays", held.Descriptors, err)
	}
	if err := crowd.Disperse(); err != nil {
		t.Error(err)
	}
}

// TestCrowdFails: what goes wrong in its process is known here, in words.
func TestCrowdFails(t *testing.T) {
	target, _ := aTarget(t)
	at, end := answering(t, "")
	closes := &Proxy{Address: at, Protocol: Socks4}
	if _, err := target.Gather(t.Context(), closes, 1, 0); err == nil || !strings.Contains(err.Error(), "the proxy's answer") {
		t.Errorf("of a proxy that says nothing: %v", err)
	}
	end()
	if _, err := target.Gather(t.Context(), closes, 1, 0); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("of a proxy that is gone: %v", err)
	}
}

// TestAllEnd: a proxy that does not end relays, or says something in them, does not go unnoticed.
func TestAllEnd(t *testing.T) {
	for name, test := range map[string]struct {
		say  string
		end  bool
		want string
	}{
		"it ends":        {"", true, ""},
		"it stays":       {"", false, "has not ended 1 of 1 relays"},
		"it has a voice": {"x", true, "1 bytes that nobody sent"},
	} {
		ours, theirs, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		end, err := unix.Dup(int(theirs.Fd()))
		theirs.Close()
		if err != nil {
			t.Fatal(err)
		}
		if test.say != "" { // nothing would be a message as well
			_, _ = io.WriteString(ours, test.say)
		}
		if test.end {
			ours.Close()
		}
		err = allEnd([]int{end}, time.Now().Add(10*time.Millisecond))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		ours.Close()
	}
}

func TestIdleCountsWhatIsHeld(t *testing.T) {
	target, p := aTarget(t)
	idle, err := HoldIdle(t.Context(), p, target, 50, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if idle.Descriptors < 2 || idle.Descriptors > 2.5 { // both ends are those of the crowd, and it has a few of its own
		t.Errorf("%v descriptors each, want 2", idle.Descriptors)
	}
	if err := idle.Close(); err != nil {
		t.Error(err)
	}
}

// TestBulkAmong: both are measured, and nothing is left.
func TestBulkAmong(t *testing.T) {
	target, p := aTarget(t)
	times := 0
	among, err := BulkAmong(t.Context(), p, target, 20, 0, time.Millisecond, func() (Cost, error) {
		times++
		return []Cost{{CPU: 1, All: 3, Rate: 10}, {CPU: 9, All: 12, Rate: 7}, {CPU: 2, All: 4, Rate: 20}}[times-1], nil
	})
	want := Among{Alone: Cost{CPU: 1.5, All: 3.5, Rate: 15}, Crowded: Cost{CPU: 9, All: 12, Rate: 7}}
	if err != nil || among != want {
		t.Errorf("%+v, %v; want %+v", among, err, want)
	}
	among, err = BulkAmong(t.Context(), p, target, 20, 20*time.Millisecond, time.Millisecond, func() (Cost, error) {
		return Bulk(t.Context(), p, target, Down, 1, 20*time.Millisecond)
	})
	if err != nil || among.Alone.Rate <= 0 || among.Crowded.Rate <= 0 || among.Alone.CPU <= 0 || among.Crowded.CPU <= 0 {
		t.Errorf("%+v, %v", among, err)
	}
}
