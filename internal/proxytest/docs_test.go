package proxytest_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	docsTest = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark|Example)[A-Z]\w+\*?`)
	docsFile = regexp.MustCompile("`([a-z0-9_/]+\\.go)`")
	docsLink = regexp.MustCompile(`\]\(([^):#]+)[#)]`)
)

// TestDocsNameWhatThereIs: the tests, files and pages that a page names are there.
func TestDocsNameWhatThereIs(t *testing.T) {
	root := filepath.Join("..", "..")
	files, tests := sources(t, root)
	pages, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(pages) == 0 || len(more) == 0 {
		t.Fatalf("%d and %d pages, %v", len(pages), len(more), err)
	}
	for _, page := range append(pages, more...) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range missing(filepath.Dir(page), string(text), files, tests) {
			t.Errorf("%s names %s, which is not there", page, name)
		}
	}
}

// missing returns what a page in a folder names and is not there.
func missing(folder, page, files, tests string) (names []string) {
	for _, name := range docsTest.FindAllString(page, -1) {
		if !strings.Contains(tests, "func "+strings.TrimSuffix(name, "*")) { // or those that begin so, as for -run
			names = append(names, name)
		}
	}
	for _, m := range docsFile.FindAllStringSubmatch(page, -1) {
		if !strings.Contains(files, "/"+m[1]+"\n") {
			names = append(names, m[1])
		}
	}
	for _, m := range docsLink.FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join(folder, m[1])); err != nil {
			names = append(names, m[1])
		}
	}
	return names
}

// sources returns the names of all Go files, one a line, and what all tests hold.
func sources(t *testing.T, root string) (files, tests string) {
	t.Helper()
	var names, texts strings.Builder
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(name) != ".go" {
			return err
		}
		names.WriteString("/" + name + "\n")
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		texts.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names.String(), texts.String()
}
