package daemon

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnenforced: quotas are read and do not hold yet, which is told.
func TestUnenforced(t *testing.T) {
	const lists = "limits: {l: {quota: 1 GiB, every: day, per: user}, n: {sessions: 1, per: user}}\n"
	for _, c := range []struct{ file, warned string }{
		{"", ""},
		{"rules: [{allow: x, limits: l, ports: 1}, {allow: y, limits: n, ports: 2}, {allow: z, limits: [n, l], to: any}]", "level=WARN msg=\"quotas are not enforced in this version yet: these rules let as much through as comes\" rules=\"[x z]\"\n"},
	} {
		path := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(path, []byte(lists+c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Source{File: path}.load()
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
			continue
		}
		var log bytes.Buffer
		warnOfLimits(s, slog.New(slog.NewTextHandler(&log, nil)))
		if _, got, _ := strings.Cut(log.String(), " "); got != c.warned {
			t.Errorf("%s: it logs %q, want %q", c.file, got, c.warned)
		}
	}
}
