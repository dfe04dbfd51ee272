package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/config"
)

// TestJournal: lines have priorities where the log goes to the journal, and nowhere
// else.
func TestJournal(t *testing.T) {
	writes := func(named func(*syscall.Stat_t) string, format string) string {
		t.Helper()
		f, err := os.Create(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var about syscall.Stat_t
		if err := syscall.Fstat(int(f.Fd()), &about); err != nil {
			t.Fatal(err)
		}
		t.Setenv("JOURNAL_STREAM", named(&about))
		log := newLogger(journal(f, nil), config.Log{Level: "debug", Format: format})
		log.Logger = log.With("a", 1)
		for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
			log.WithGroup("g").Log(t.Context(), l, "x", "b", 2)
		}
		log.queue.close()
		text, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return withoutTimes(string(text))
	}
	here := func(s *syscall.Stat_t) string { return fmt.Sprintf("%d:%d", s.Dev, s.Ino) }
	elsewhere := func(s *syscall.Stat_t) string { return fmt.Sprintf("%d:%d", s.Dev, s.Ino+1) }
	nowhere := func(*syscall.Stat_t) string { return "" }
	const plain = "level=DEBUG msg=x a=1 g.b=2\nlevel=INFO msg=x a=1 g.b=2\nlevel=WARN msg=x a=1 g.b=2\nlevel=ERROR msg=x a=1 g.b=2\n"
	for _, test := range []struct {
		named        func(*syscall.Stat_t) string
		format, want string
	}{
		{here, "text", "<7>level=DEBUG msg=x a=1 g.b=2\n<6>level=INFO msg=x a=1 g.b=2\n<4>level=WARN msg=x a=1 g.b=2\n<3>level=ERROR msg=x a=1 g.b=2\n"},
		{here, "json", `<7>{"level":"DEBUG","msg":"x","a":1,"g":{"b":2}}` + "\n" + `<6>{"level":"INFO","msg":"x","a":1,"g":{"b":2}}` + "\n" +
			`<4>{"level":"WARN","msg":"x","a":1,"g":{"b":2}}` + "\n" + `<3>{"level":"ERROR","msg":"x","a":1,"g":{"b":2}}` + "\n"},
		{elsewhere, "text", plain},
		{nowhere, "text", plain},
	} {
		if got := writes(test.named, test.format); got != test.want {
			t.Errorf("%s:\n%swant\n%s", test.format, got, test.want)
		}
	}
	if journal(&lockedBuffer{}, nil).journal {
		t.Error("memory is no journal")
	}
}
