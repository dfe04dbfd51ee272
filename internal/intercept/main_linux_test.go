//go:build amd64 || arm64

package intercept

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain is also the command that the tests watch.
func TestMain(m *testing.M) {
	if play, ok := plays[os.Getenv(playName)]; ok {
		os.Exit(play(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}
