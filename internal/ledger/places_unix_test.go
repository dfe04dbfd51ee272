//go:build unix

package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// tests are those of this package, and the end of what they have used together.
type tests struct{ *testing.M }

func (t tests) Run() int {
	code := t.M.Run()
	if err := proxytest.RemovePostgres(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(tests{m}) }

// postgres returns an empty database, into which the password of the environment lets.
func postgres(tb testing.TB) Place {
	tb.Helper()
	if testing.Short() {
		tb.Skip("it needs Debian's PostgreSQL")
	}
	tb.Setenv("PGPASSWORD", proxytest.PostgresPassword)
	return Place(proxytest.SharedPostgres(tb).Database(tb).String())
}

// everywhere runs a test for each kind of place.
func everywhere(t *testing.T, test func(*testing.T, Place)) {
	t.Run("SQLite", func(t *testing.T) { test(t, Place(filepath.Join(t.TempDir(), "ledger.db"))) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, postgres(t)) })
}
