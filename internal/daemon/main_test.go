package daemon

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Servers of tests keep no ledger where this machine's own is; tests of it name theirs.
	os.Setenv("STATE_DIRECTORY", os.DevNull)
	goleak.VerifyTestMain(m)
}
