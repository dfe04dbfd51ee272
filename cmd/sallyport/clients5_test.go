//go:build linux

package main_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// officeStaff let nobody out without a password.
const officeStaff = `
log: {format: json}
users: {file: %q}
rules: {allow: the staff, from: 10.1.0.0/24, to: any, commands: [connect, bind], proof: password}
`

// The only user there, and how clients write it.
const (
	officeUser     = "fred"
	officePassword = "correct-horse"
	officeLogin    = officeUser + ":" + officePassword
)

// newStaffOffice is an office that asks for passwords.
func newStaffOffice(t *testing.T) *office {
	t.Helper()
	paperSlow(t)
	return newOffice(t, fmt.Sprintf(officeStaff, paper5Users(t, officeLogin)))
}

// newOfficeFor is one that asks for a password, or not.
func newOfficeFor(t *testing.T, login bool) *office {
	t.Helper()
	if login {
		return newStaffOffice(t)
	}
	return newOffice(t, officeRules)
}

// pipingClient5 joins its standard input and output with a connection.
type pipingClient5 struct {
	name     string
	protocol string
	login    bool // it signs in
	named    bool // it hands on the target's name
	command  func(t *testing.T, port string) []string
}

func pipingClients5() []pipingClient5 {
	const inner, outer, name = officeProxy, officeOutside, officeName
	ncat := func(kind, host string, more ...string) func(*testing.T, string) []string {
		return func(_ *testing.T, port string) []string {
			return append(append([]string{"ncat", "--proxy", inner, "--proxy-type", kind}, more...), host, port)
		}
	}
	nc := func(kind, host string) func(*testing.T, string) []string {
		return func(_ *testing.T, port string) []string {
			return []string{"nc.openbsd", "-N", "-X", kind, "-x", inner, host, port}
		}
	}
	chained := func(proxy, host string) func(*testing.T, string) []string {
		return func(t *testing.T, port string) []string {
			conf := writeFile(t, "proxychains.conf", []byte("strict_chain\nproxy_dns\n[ProxyList]\n"+proxy+"\n"))
			return []string{"proxychains4", "-q", "-f", conf, "nc.openbsd", "-N", host, port}
		}
	}
	socat := func(more string) func(*testing.T, string) []string {
		return func(_ *testing.T, port string) []string {
			return []string{"socat", "-t", "30", "-", "PROXY:" + officeWall + ":" + name + ":" + port + ",proxyport=1080" + more}
		}
	}
	at, user := officeWall+" 1080", " "+officeUser+" "+officePassword
	return []pipingClient5{
		{"ncat, SOCKS 5", "socks5", false, false, ncat("socks5", outer)},
		{"ncat, SOCKS 5, a name", "socks5", false, true, ncat("socks5", name, "--proxy-dns", "remote")},
		{"ncat, SOCKS 5, a login", "socks5", true, false, ncat("socks5", outer, "--proxy-auth", officeLogin)},
		{"ncat, HTTP", "http", false, false, ncat("http", outer)},
		{"ncat, HTTP, a login", "http", true, true, ncat("http", name, "--proxy-dns", "remote", "--proxy-auth", officeLogin)},
		{"nc, SOCKS 5", "socks5", false, false, nc("5", outer)},
		{"nc, SOCKS 5, a name", "socks5", false, true, nc("5", name)},
		{"nc, HTTP", "http", false, false, nc("connect", outer)},
		{"nc, HTTP, a name", "http", false, true, nc("connect", name)},
		{"socat, HTTP", "http", false, true, socat("")},
		{"socat, HTTP, a login", "http", true, true, socat(",proxyauth=" + officeLogin)},
		{"proxychains4, SOCKS 5", "socks5", false, false, chained("socks5 "+at, outer)},
		{"proxychains4, SOCKS 5, a login and a name", "socks5", true, true, chained("socks5 "+at+user, name)},
		{"proxychains4, HTTP", "http", false, false, chained("http "+at, outer)},
		{"proxychains4, HTTP, a login and a name", "http", true, true, chained("http "+at+user, name)},
		{"tsocks, SOCKS 5", "socks5", false, false, func(t *testing.T, port string) []string {
			conf := writeFile(t, "tsocks.conf", []byte("server = "+officeWall+"\nlocal = 10.1.0.0/255.255.255.0\nserver_type = 5\nserver_port = 1080\n"))
			return []string{"env", "TSOCKS_CONF_FILE=" + conf, "tsocks", "nc.openbsd", "-N", outer, port}
		}},
	}
}

// TestPipingClients5 is TestPipingClients for SOCKS 5 and HTTP CONNECT.
func TestPipingClients5(t *testing.T) {
	paperSlow(t)
	for _, c := range pipingClients5() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := newOfficeFor(t, c.login)
			sent := paperBytes(megabyte)
			port := o.mirror(t)
			got := o.run(t, sent, nil, c.command(t, port)...)
			sameBytes(t, "there and back", got, insideOut(sent))

			want := paperSession{
				Protocol: c.protocol, Command: "connect", Reason: "closed", Up: megabyte, Down: megabyte,
				Address: net.JoinHostPort(officeOutside, port), Target: net.JoinHostPort(officeOutside, port),
			}
			if c.named {
				want.Target = net.JoinHostPort(officeName, port)
			}
			if c.login {
				want.User = officeUser
			}
			o.session(t, want)
		})
	}
}

// fetchAndPut does both with a command that takes options and a URL as curl does.
func (o *office) fetchAndPut(t *testing.T, curl []string, url string) {
	t.Helper()
	page, received := paperBytes(megabyte), make(chan []byte, 1)
	o.serveHTTP(t, page, received)
	got := o.run(t, nil, nil, append(curl, url)...)
	sameBytes(t, "GET", got, page)
	sent := paperBytes(megabyte + 1)
	o.run(t, nil, nil, append(curl, "--upload-file", writeFile(t, "sent", sent), url)...)
	sameBytes(t, "PUT", <-received, sent)
}

// TestCurlTunnels is plain HTTP through CONNECT.
func TestCurlTunnels(t *testing.T) {
	paperSlow(t)
	t.Parallel()
	o := newStaffOffice(t)
	o.fetchAndPut(t, []string{
		"curl", "--silent", "--show-error", "--fail", "--noproxy", "",
		"--proxytunnel", "--proxy", "http://" + officeLogin + "@" + officeProxy,
	}, "http://"+officeName+"/")
	o.session(t, paperSession{Command: "connect", Protocol: "http", User: officeUser, Target: officeName + ":80", Reason: "closed"})
}

// TestCurlFromTheEnvironment: what people put into their profile.
func TestCurlFromTheEnvironment(t *testing.T) {
	paperSlow(t)
	for _, test := range []struct{ variable, protocol string }{
		{"all_proxy=socks5h://" + officeLogin + "@" + officeProxy, "socks5"},
		{"http_proxy=http://" + officeLogin + "@" + officeProxy, "http"},
		{"http_proxy=" + officeLogin + "@" + officeProxy, "http"},
	} {
		t.Run(test.variable, func(t *testing.T) {
			t.Parallel()
			o := newStaffOffice(t)
			page := paperBytes(megabyte)
			o.serveHTTP(t, page, nil)
			got := o.run(t, nil, []string{test.variable}, "curl", "--silent", "--show-error", "--fail", "http://"+officeName+"/")
			sameBytes(t, "GET", got, page)
			o.session(t, paperSession{Protocol: test.protocol, User: officeUser, Target: officeName + ":80"})
		})
	}
}

// TestCurlRefused: what a person sees who is not let in.
func TestCurlRefused(t *testing.T) {
	paperSlow(t)
	for _, test := range []struct {
		name   string
		args   []string
		code   int
		reason string
	}{
		{"SOCKS 5, no login", []string{"--socks5-hostname", officeProxy}, 97, "bad-login"},
		{"SOCKS 5, another password", []string{"--socks5-hostname", officeProxy, "--proxy-user", officeUser + ":x"}, 97, "bad-login"},
		{"HTTP, no login", []string{"--proxy", "http://" + officeProxy}, 22, "bad-login"},
		{"HTTP, another password", []string{"--proxy", "http://" + officeProxy, "--proxy-user", officeUser + ":x"}, 22, "bad-login"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := newStaffOffice(t)
			target := o.outside.listen(t, officeOutside+":80")
			command := append([]string{"curl", "--silent", "--show-error", "--fail", "--noproxy", ""}, test.args...)
			cmd := exec.CommandContext(t.Context(), command[0], append(command[1:], "http://"+officeName+"/")...)
			var err error
			o.inside.do(func() { err = cmd.Start() })
			if err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // its exit code says the same
			if code := cmd.ProcessState.ExitCode(); code != test.code {
				t.Errorf("curl ends with %d, want %d", code, test.code)
			}
			o.session(t, paperSession{Reason: test.reason})
			(&paperTarget{o.outside, target, paperAt(officeOutside, 80)}).untouched(t)
		})
	}
}

// TestWget fetches a page through an HTTP proxy, plain and over TLS.
func TestWget(t *testing.T) {
	paperSlow(t)
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			o := newStaffOffice(t)
			page := paperBytes(megabyte)
			o.serveHTTP(t, page, nil)
			o.serveHTTPS(t, page, nil)
			got := o.run(t, nil, []string{scheme + "_proxy=http://" + officeProxy},
				"wget", "--no-config", "--quiet", "--tries=1", "--no-check-certificate", "--output-document=-",
				"--proxy-user="+officeUser, "--proxy-password="+officePassword, scheme+"://"+officeName+"/")
			sameBytes(t, "GET", got, page)
			o.session(t, paperSession{Protocol: "http", User: officeUser, Command: "connect", Address: officeOutside + map[string]string{"http": ":80", "https": ":443"}[scheme]})
		})
	}
}

// TestGit clones from a web server and pushes to it.
func TestGit(t *testing.T) {
	paperSlow(t)
	for _, test := range []struct{ proxy, login, target string }{
		{"http", "", "http"},
		{"http", officeLogin + "@", "https"},
		{"https", officeLogin + "@", "https"},
		{"socks5h", officeLogin + "@", "http"},
		{"socks5h", "", "https"},
		{"socks4a", "", "http"},
	} {
		t.Run(test.target+" through "+test.proxy+"://"+test.login, func(t *testing.T) {
			t.Parallel()
			o, certificate := newOfficeTLS(t, test.login != "")
			home := t.TempDir()
			env := []string{
				"HOME=" + home, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "http_proxy=", "all_proxy=",
				"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
			}
			o.serveGit(t, env)
			git := func(args ...string) []byte {
				return o.run(t, nil, env, append([]string{
					"git", "-c", "http.proxy=" + test.proxy + "://" + test.login + officeProxy,
					"-c", "http.proxySSLCAInfo=" + certificate, "-c", "http.sslVerify=false",
				}, args...)...)
			}
			url, mine, again := test.target+"://"+officeName+"/repository.git", filepath.Join(home, "mine"), filepath.Join(home, "again")
			git("clone", "--quiet", url, mine)
			sent := paperBytes(3 * megabyte) // more than git sends in one piece
			if err := os.WriteFile(filepath.Join(mine, "file"), sent, 0o600); err != nil {
				t.Fatal(err)
			}
			git("-C", mine, "add", "file")
			git("-C", mine, "commit", "--quiet", "--message=file")
			git("-C", mine, "push", "--quiet", "origin", "HEAD")
			git("clone", "--quiet", url, again)
			got, err := os.ReadFile(filepath.Join(again, "file"))
			if err != nil {
				t.Fatal(err)
			}
			sameBytes(t, "pushed and cloned", got, sent)
			protocol := map[string]string{"http": "http", "https": "http", "socks5h": "socks5", "socks4a": "socks4a"}[test.proxy]
			port := map[string]string{"http": ":80", "https": ":443"}[test.target]
			o.session(t, paperSession{Protocol: protocol, Command: "connect", Target: officeName + port})
		})
	}
}

// serveGit runs a web server outside, plain and over TLS, with an empty
// repository that all may write to.
func (o *office) serveGit(t *testing.T, env []string) {
	t.Helper()
	root := t.TempDir()
	repository := filepath.Join(root, "repository.git")
	for _, args := range [][]string{
		{"init", "--quiet", "--bare", repository},
		{"-C", repository, "config", "http.receivepack", "true"},
	} {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Env = append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
	}
	backend := &cgi.Handler{
		Path: "/usr/lib/git-core/git-http-backend",
		Env:  append([]string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"}, env...),
	}
	o.serveWeb(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 8*megabyte))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		// CGI takes no body in chunks.
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		backend.ServeHTTP(w, r)
	}))
}

// serveHTTPS is serveHTTP over TLS, with HTTP/2, and a certificate that nobody
// vouches for.
func (o *office) serveHTTPS(t *testing.T, page []byte, received chan<- []byte) {
	t.Helper()
	server := httptest.NewUnstartedServer(officePages(page, received))
	server.Listener.Close()
	server.Listener = o.outside.listen(t, officeOutside+":443")
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = log.New(testWriter{t}, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
}

// testWriter writes into the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("the web server says: %s", p)
	return len(p), nil
}

// TestFTPActive5 is TestFTPActive over SOCKS 5: two replies to each BIND, and a
// login before each request.
func TestFTPActive5(t *testing.T) {
	paperSlow(t)
	for _, login := range []bool{false, true} {
		t.Run(fmt.Sprintf("a login: %v", login), func(t *testing.T) {
			t.Parallel()
			o := newOfficeFor(t, login)
			site := o.serveFTP(t)
			method, env := "none", []string{"HOME=" + t.TempDir()}
			if login {
				method = "username"
				env = append(env, "SOCKS_USERNAME="+officeUser, "SOCKS_PASSWORD="+officePassword)
			}
			conf := writeFile(t, "socks.conf", []byte(`
logoutput: stderr
route {
	from: 0.0.0.0/0 to: 0.0.0.0/0 via: `+officeWall+` port = 1080
	proxyprotocol: socks_v5
	command: connect bind
	method: `+method+`
}
`))
			sent := paperBytes(megabyte + 1)
			sentFile, fetchedFile := writeFile(t, "sent", sent), filepath.Join(t.TempDir(), "fetched")
			commands := fmt.Sprintf("open %s\nuser anonymous nobody@example.com\nbinary\nepsv4 off\nget fetched %s\nput %s incoming/sent\nbye\n",
				officeOutside, fetchedFile, sentFile)
			said := o.run(t, []byte(commands), append(env, "SOCKS_CONF="+conf), "socksify", "tnftp", "-A", "-n", "-v")
			fetched, err := os.ReadFile(fetchedFile)
			if err != nil {
				t.Fatalf("%v; the client said:\n%s", err, said)
			}
			sameBytes(t, "fetched", fetched, site.fetched)
			site.received(t, "sent", sent)
			user := ""
			if login {
				user = officeUser
			}
			o.session(t, paperSession{Protocol: "socks5", Command: "connect", User: user, Target: officeOutside + ":21", Reason: "closed"})
			target := officeOutside + ":0" // what Dante's client asks for
			o.session(t, paperSession{Protocol: "socks5", Command: "bind", User: user, Target: target, Down: megabyte, Reason: "closed"})
			o.session(t, paperSession{Protocol: "socks5", Command: "bind", User: user, Target: target, Up: megabyte + 1, Reason: "closed"})
		})
	}
}

// serveWeb runs a web server outside, plain and over TLS, without HTTP/2 and with a
// certificate that nobody vouches for.
func (o *office) serveWeb(t *testing.T, handler http.Handler) {
	t.Helper()
	for _, port := range []string{"80", "443"} {
		server := httptest.NewUnstartedServer(handler)
		server.Listener.Close()
		server.Listener = o.outside.listen(t, net.JoinHostPort(officeOutside, port))
		server.Config.ErrorLog = log.New(testWriter{t}, "", 0)
		if port == "443" {
			// Debian's aria2 breaks handshakes of TLS 1.3 now and then when it has several
			// at once, with no proxy in between as well.
			server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}
			server.StartTLS()
		} else {
			server.Start()
		}
		t.Cleanup(server.Close)
	}
}
