//go:build linux

package main_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serveFiles runs a web server outside that serves the folder, plain and over TLS.
func (o *office) serveFiles(t *testing.T, root string) {
	t.Helper()
	o.serveWeb(t, http.FileServer(http.Dir(root)))
}

// meeting serves files, and a part of a file too, but ends no answer before three
// parts were asked for: else a fast first connection would have it all.
type meeting struct {
	files http.Handler
	parts atomic.Int32
	met   chan struct{} // closed when three parts were asked for
}

func (m *meeting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Range") != "" && m.parts.Add(1) == 3 {
		close(m.met)
	}
	m.files.ServeHTTP(&held{ResponseWriter: w, until: m.met, gone: r.Context().Done()}, r)
}

// held is an answer that stops in its midst until it may go on.
type held struct {
	http.ResponseWriter
	until, gone <-chan struct{}
	written     int
}

func (h *held) Write(b []byte) (int, error) {
	if h.written > 64<<10 {
		select {
		case <-h.until:
		case <-h.gone:
		case <-time.After(paperPatience):
		}
	}
	n, err := h.ResponseWriter.Write(b)
	h.written += n
	return n, err
}

// TestParallelDownload has aria2 fetch one file over four connections at once,
// and check its sum.
func TestParallelDownload(t *testing.T) {
	paperSlow(t)
	for _, scheme := range []string{"http", "https"} {
		for _, login := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, a login: %v", scheme, login), func(t *testing.T) {
				t.Parallel()
				o := newOfficeFor(t, login)
				root, home := t.TempDir(), t.TempDir()
				content := paperBytes(8 * megabyte)
				if err := os.WriteFile(filepath.Join(root, "file"), content, 0o644); err != nil {
					t.Fatal(err)
				}
				server := &meeting{files: http.FileServer(http.Dir(root)), met: make(chan struct{})}
				o.serveWeb(t, server)
				proxy, user := "http://"+officeProxy, ""
				if login {
					proxy, user = "http://"+officeLogin+"@"+officeProxy, officeUser
				}
				o.run(t, nil, []string{"HOME=" + home}, "aria2c", "--no-conf", "--quiet", "--check-certificate=false", "--max-tries=1",
					"--split=4", "--max-connection-per-server=4", "--min-split-size=1M", "--piece-length=1M",
					fmt.Sprintf("--checksum=sha-256=%x", sha256.Sum256(content)),
					"--all-proxy="+proxy, "--dir="+home, "--out=fetched", scheme+"://"+officeName+"/file")
				got, err := os.ReadFile(filepath.Join(home, "fetched"))
				if err != nil {
					t.Fatal(err)
				}
				sameBytes(t, "fetched", got, content)
				if n := server.parts.Load(); n < 3 { // the first connection may ask for all
					t.Errorf("the file was fetched in %d parts more", n)
				}
				port := map[string]string{"http": ":80", "https": ":443"}[scheme]
				o.session(t, paperSession{Command: "connect", Protocol: "http", User: user, Target: officeName + port})
			})
		}
	}
}

// TestApt brings the lists of a package repository up to date, and fetches a
// package from it.
func TestApt(t *testing.T) {
	paperSlow(t)
	for _, proxy := range []struct {
		url   string
		login bool
	}{
		{"http://" + officeProxy, false},
		{"http://" + officeLogin + "@" + officeProxy, true},
		{"socks5h://" + officeProxy, false},
		{"socks5h://" + officeLogin + "@" + officeProxy, true},
	} {
		t.Run(proxy.url, func(t *testing.T) {
			t.Parallel()
			o := newOfficeFor(t, proxy.login)
			root, home := t.TempDir(), t.TempDir()
			archive := newRepository(t, root)
			o.serveFiles(t, root)
			for _, dir := range []string{"lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"} {
				if err := os.MkdirAll(filepath.Join(home, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			conf := writeFile(t, "apt.conf", []byte(strings.Join([]string{
				`Dir::Etc "` + home + `/etc";`,
				`Dir::Etc::sourcelist "` + writeFile(t, "sources.list", []byte("deb [trusted=yes arch=amd64] http://"+officeName+" ./\n")) + `";`,
				`Dir::State::lists "` + home + `/lists";`,
				`Dir::State::status "` + writeFile(t, "status", nil) + `";`,
				`Dir::Cache "` + home + `/cache";`,
				`APT::Sandbox::User "root";`, // the user that apt would become may not enter a test's folder
				`Acquire::http::Proxy "` + proxy.url + `";`,
				`Acquire::Retries "0";`,
			}, "\n")))
			env := []string{"APT_CONFIG=" + conf, "HOME=" + home, "LC_ALL=C", "http_proxy=", "no_proxy="}
			o.run(t, nil, env, "apt-get", "--error-on=any", "update")
			o.run(t, nil, env, "sh", "-ec", `cd "$0" && apt-get download hail`, home)
			got, err := os.ReadFile(filepath.Join(home, "hail_1.0_all.deb"))
			if err != nil {
				t.Fatal(err)
			}
			sameBytes(t, "the package", got, archive)
			kind, _, _ := strings.Cut(proxy.url, "://")
			want := paperSession{Command: "connect", Protocol: strings.TrimSuffix(kind, "h"), Target: officeName + ":80"}
			if proxy.login {
				want.User = officeUser
			}
			o.session(t, want)
		})
	}
}

// newRepository makes a repository with one package, and returns the package.
func newRepository(t *testing.T, root string) []byte {
	t.Helper()
	const control = "Package: hail\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.com>\nDescription: says nothing\n"
	tree := t.TempDir()
	if err := os.Mkdir(filepath.Join(tree, "DEBIAN"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "DEBIAN", "control"), []byte(control), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "noise"), paperBytes(megabyte), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "dpkg-deb", "--build", "-Znone", tree, filepath.Join(root, "hail.deb")).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	archive, err := os.ReadFile(filepath.Join(root, "hail.deb"))
	if err != nil {
		t.Fatal(err)
	}
	packages := fmt.Appendf(nil, "%sFilename: ./hail.deb\nSize: %d\nSHA256: %x\n\n", control, len(archive), sha256.Sum256(archive))
	release := fmt.Appendf(nil, "Date: %s\nSHA256:\n %x %d Packages\n", time.Now().UTC().Format(time.RFC1123), sha256.Sum256(packages), len(packages))
	for name, content := range map[string][]byte{"Packages": packages, "Release": bytes.ReplaceAll(release, []byte("GMT"), []byte("UTC"))} {
		if err := os.WriteFile(filepath.Join(root, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return archive
}
