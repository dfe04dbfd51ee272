package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnenforced: what is read and does not hold yet is refused where it would
// let somebody in, and told where it would not.
func TestUnenforced(t *testing.T) {
	const lists = "sets: {s: {entries: 10.0.0.0/8}}\nschedules: {d: {days: mon}}\nlimits: {l: {sessions: 1, per: user}}\n"
	for _, c := range []struct{ file, refused, warned string }{
		{"", "", ""},
		{"rules: {deny: x, to: '@s'}", `the rule "x": sets are not enforced`, ""},
		{"rules: {allow: x, from: '@s'}", `the rule "x": sets are not enforced`, ""},
		{"rules: {allow: x, from: private, during: d}", `the rule "x": schedules are not enforced`, ""},
		{"listeners: {name: l, listen: 127.0.0.1:0, during: d}", `the listener "l": schedules are not enforced`, ""},
		{"rules: [{allow: x, limits: l, ports: 1}, {allow: y}, {allow: z, limits: l, to: any}]", "", "level=WARN msg=\"limits are not enforced in this version yet: these rules let everything through that they allow\" rules=\"[x z]\"\n"},
	} {
		path := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(path, []byte(lists+c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Source{File: path}.load()
		if c.refused != "" {
			if _, ok := errors.AsType[*SettingsError](err); !ok || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: %v, want %s", c.file, err, c.refused)
			}
			continue
		}
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
