package proxytest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sallyport/sallyport/"

// mayImport holds the arrows of the design: for each package, which of the
// others it may import. The standard library and golang.org/x are free to all.
// What is embedded by others (socks, client, server, and datagram, relay and engine below them)
// must stay free of everything else.
//
// A package that is missing here fails the test: a new one needs a place in
// the order, and a second consumer or a duty of its own.
var mayImport = map[string][]string{
	"socks":              {},
	"internal/engine":    {},
	"internal/relay":     {"internal/engine"},
	"internal/datagram":  {},
	"server":             {"socks", "internal/datagram", "internal/engine", "internal/relay"},
	"client":             {"socks", "server", "internal/datagram", "internal/relay"},
	"internal/regular":   {},
	"internal/access":    {"socks", "server", "internal/regular", "github.com/gaissmai/bart"},
	"internal/config":    {"socks", "server", "client", "internal/regular", "github.com/goccy/go-yaml", "github.com/google/jsonschema-go"},
	"internal/upstream":  {"socks", "server", "client"},
	"internal/admin":     {"github.com/danielgtaylor/huma/v2", "github.com/prometheus/client_golang"},
	"internal/intercept": {"socks", "server", "internal/relay"},
	"internal/limits":    {"server"},
	"internal/live":      {"server"},
	"internal/pac":       {},
	"internal/ledger":    {"server", "internal/limits", "modernc.org/sqlite", "github.com/jackc/pgx/v5"},
	"internal/handover":  {"github.com/coreos/go-systemd"},
	"internal/service":   {"github.com/kardianos/service"},
	"internal/daemon":    {"socks", "server", "client", "internal/access", "internal/config", "internal/admin", "internal/handover", "internal/ledger", "internal/limits", "internal/live", "internal/pac", "internal/regular", "internal/upstream"},
	"internal/proxytest": {"socks", "server", "client"},
	"bench/load":         {},
	"bench/peers":        {"bench/load", "bench/soak"},
	"bench/plain":        {},
	"bench/soak":         {"bench/load"},
	"cmd/sallyport":      {"socks", "server", "client", "internal/daemon", "internal/engine", "internal/intercept", "internal/service", "github.com/spf13/cobra", "charm.land/bubbletea/v2"},
}

// bannedNames say nothing of what a package is for.
var bannedNames = []string{"common", "helper", "helpers", "misc", "pkg", "shared", "types", "util", "utils"}

// goPackage is what `go list -json` tells of a package, as far as it is used.
type goPackage struct {
	ImportPath string
	Imports    []string // of the package itself, not of its tests
}

func TestImportsFollowTheDesign(t *testing.T) {
	packages := listPackages(t)
	if len(packages) < 5 {
		t.Fatalf("go list found %d packages of this module; the test looks at the wrong folder", len(packages))
	}
	for _, p := range packages {
		for _, fault := range importFaults(p) {
			t.Error(fault)
		}
	}
}

func TestImportFaults(t *testing.T) {
	tests := []struct {
		name string
		in   goPackage
		want int
	}{
		{"what the design allows", goPackage{module + "server", []string{"net", "golang.org/x/sys/unix", module + "socks"}}, 0},
		{"a package of a module that it may use", goPackage{module + "internal/config", []string{"github.com/goccy/go-yaml/ast"}}, 0},
		{"against the arrow", goPackage{module + "socks", []string{module + "server"}}, 1},
		{"a third party in what others embed", goPackage{module + "client", []string{"github.com/spf13/cobra"}}, 1},
		{"settings outside the daemon", goPackage{module + "cmd/sallyport", []string{module + "internal/config"}}, 1},
		{"a name that only begins alike", goPackage{module + "internal/config", []string{"github.com/goccy/go-yamlish"}}, 1},
		{"an unknown package", goPackage{module + "internal/novelty", nil}, 1},
		{"a name that says nothing", goPackage{module + "internal/util", nil}, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := importFaults(test.in); len(got) != test.want {
				t.Errorf("%d faults, want %d: %q", len(got), test.want, got)
			}
		})
	}
}

// importFaults says what is wrong with the place and the imports of p.
func importFaults(p goPackage) (faults []string) {
	name := strings.TrimPrefix(p.ImportPath, module)
	for element := range strings.SplitSeq(name, "/") {
		if slices.Contains(bannedNames, element) {
			faults = append(faults, fmt.Sprintf("%s: a package called %q says nothing of its duty", name, element))
		}
	}
	allowed, known := mayImport[name]
	if !known {
		return append(faults, fmt.Sprintf("%s: not in the table of this test; which packages may it import?", name))
	}
	for _, imported := range p.Imports {
		if !isAllowed(imported, allowed) {
			faults = append(faults, fmt.Sprintf("%s imports %s: against the design (it may import %q)", name, imported, allowed))
		}
	}
	return faults
}

// isAllowed reports whether a package may be imported where the packages of
// this module and the third-party modules named by allowed are.
func isAllowed(imported string, allowed []string) bool {
	if name, ours := strings.CutPrefix(imported, module); ours {
		return slices.Contains(allowed, name)
	}
	first, _, _ := strings.Cut(imported, "/")
	if !strings.Contains(first, ".") || strings.HasPrefix(imported, "golang.org/x/") {
		return true // only the standard library has paths that begin without a dot
	}
	return slices.ContainsFunc(allowed, func(thirdParty string) bool {
		return imported == thirdParty || strings.HasPrefix(imported, thirdParty+"/")
	})
}

// listPackages asks the go command for every package of the module.
func listPackages(t *testing.T) (packages []goPackage) {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports", "./...")
	list.Dir = "../.."
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		packages = append(packages, p)
	}
}
