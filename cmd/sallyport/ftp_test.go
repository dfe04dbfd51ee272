//go:build linux

package main_test

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
)

// TestFTPPassive fetches a file with curl, which opens the control connection
// and the data connection by CONNECT.
func TestFTPPassive(t *testing.T) {
	paperSlow(t)
	tests := []struct{ option, host, protocol string }{
		{"--socks4", officeOutside, "socks4"},
		{"--socks4a", officeName, "socks4a"},
	}
	for _, test := range tests {
		t.Run(test.option, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, officeRules)
			site := o.serveFTP(t)
			proxy := []string{"curl", "--silent", "--show-error", "--noproxy", "", test.option, officeProxy}

			got := o.run(t, nil, nil, append(proxy, "ftp://"+test.host+"/fetched")...)
			sameBytes(t, "fetched", got, site.fetched)

			sent := paperBytes(megabyte + 1)
			o.run(t, nil, nil, append(proxy, "--upload-file", writeFile(t, "sent", sent), "ftp://"+test.host+"/incoming/")...)
			site.received(t, "sent", sent)

			o.session(t, paperSession{Command: "connect", Protocol: test.protocol, Target: test.host + ":21", Reason: "closed"})
			o.session(t, paperSession{Command: "connect", Down: megabyte, Reason: "closed"})
			o.session(t, paperSession{Command: "connect", Up: megabyte + 1, Reason: "closed"})
		})
	}
}

// TestFTPActive runs the paper's own example with Dante's client library under
// an FTP client that knows nothing of it: CONNECT to the FTP server, BIND for
// each file, and the server calls back.
func TestFTPActive(t *testing.T) {
	paperSlow(t)
	t.Parallel()
	o := newOffice(t, officeRules)
	site := o.serveFTP(t)
	sent := paperBytes(megabyte + 1)
	sentFile, fetchedFile := writeFile(t, "sent", sent), filepath.Join(t.TempDir(), "fetched")
	conf := writeFile(t, "socks.conf", []byte(`
logoutput: stderr
route {
	from: 0.0.0.0/0 to: 0.0.0.0/0 via: `+officeWall+` port = 1080
	proxyprotocol: socks_v4
	command: connect bind
}
`))
	commands := fmt.Sprintf("open %s\nuser anonymous nobody@example.com\nbinary\nepsv4 off\nget fetched %s\nput %s incoming/sent\nbye\n",
		officeOutside, fetchedFile, sentFile)
	said := o.run(t, []byte(commands), []string{"SOCKS_CONF=" + conf, "HOME=" + t.TempDir()},
		"socksify", "tnftp", "-A", "-n", "-v")

	fetched, err := os.ReadFile(fetchedFile)
	if err != nil {
		t.Fatalf("%v; the client said:\n%s", err, said)
	}
	sameBytes(t, "fetched", fetched, site.fetched)
	site.received(t, "sent", sent)

	target := officeOutside + ":21"
	control := o.session(t, paperSession{Command: "connect", Target: target, Reason: "closed"})
	get := o.session(t, paperSession{Command: "bind", Target: target, Down: megabyte, Reason: "closed"})
	put := o.session(t, paperSession{Command: "bind", Target: target, Up: megabyte + 1, Reason: "closed"})
	for _, s := range []paperSession{control, get, put} {
		if s.Rule != "the office" || s.Protocol != "socks4" {
			t.Errorf("the log says %+v", s)
		}
	}
}

// ftpSite is vsftpd outside, with one file to fetch and a folder for what comes.
type ftpSite struct {
	folder  string
	fetched []byte
}

func (o *office) serveFTP(t *testing.T) ftpSite {
	t.Helper()
	account, err := user.Lookup("ftp")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(account.Uid)
	site := ftpSite{folder: t.TempDir(), fetched: paperBytes(megabyte)}
	incoming, empty := filepath.Join(site.folder, "incoming"), t.TempDir()
	for _, err := range []error{
		os.WriteFile(filepath.Join(site.folder, "fetched"), site.fetched, 0o644),
		os.Mkdir(incoming, 0o755),
		os.Chown(incoming, uid, -1),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	conf := writeFile(t, "vsftpd.conf", []byte(`
listen=YES
listen_address=`+officeOutside+`
background=NO
anonymous_enable=YES
anon_root=`+site.folder+`
anon_upload_enable=YES
anon_umask=022
no_anon_password=YES
write_enable=YES
local_enable=NO
connect_from_port_20=YES
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
secure_chroot_dir=`+empty+`
`))
	background(t, o.outside, officeOutside+":21", "vsftpd", conf)
	return site
}

// received checks a file that was sent.
func (s ftpSite) received(t *testing.T, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(s.folder, "incoming", name))
	if err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "sent", got, want)
}
