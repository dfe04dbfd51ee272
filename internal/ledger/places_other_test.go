//go:build !unix

package ledger

import (
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func everywhere(t *testing.T, test func(*testing.T, Place)) {
	test(t, Place(filepath.Join(t.TempDir(), "ledger.db")))
}
