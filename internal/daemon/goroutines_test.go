//go:build unix

package daemon

import (
	"bytes"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// withoutTimes takes the times out of a log.
func withoutTimes(log string) string {
	return regexp.MustCompile(`time=\S+ |"time":"[^"]*",`).ReplaceAllString(log, "")
}

// parked waits at one place, with something that nobody may see.
func parked(secret string, arrived chan<- string, until <-chan struct{}) {
	arrived <- secret
	<-until
}

// TestLogGoroutines: where they are, how many, and not with what.
func TestLogGoroutines(t *testing.T) {
	arrived, until := make(chan string), make(chan struct{})
	const many = 7
	for range many {
		go parked("hunter2", arrived, until)
	}
	for range many {
		<-arrived
	}
	defer close(until)
	var said bytes.Buffer
	d := &Daemon{log: slog.New(slog.NewTextHandler(&said, nil))}
	find := regexp.MustCompile(`count=7 at="[^"]*daemon\.parked goroutines_test\.go:\d+ < runtime\.goexit`)
	proxytest.Eventually(t, "the last of them has come to its wait", func() bool {
		d.LogGoroutines()
		return find.MatchString(said.String())
	})
	text := said.String()
	for _, secret := range []string{"hunter2", "0x", "(...)"} {
		if strings.Contains(text, secret) {
			t.Errorf("the log has %q", secret)
		}
	}
	if !strings.Contains(text, "LogGoroutines goroutines.go:") || !strings.Contains(text, "total=") {
		t.Errorf("the log says\n%s", text)
	}
}
