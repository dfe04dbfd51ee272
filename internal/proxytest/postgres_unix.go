//go:build unix

package proxytest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// Postgres is a PostgreSQL server of a test's own, on a unix socket in a folder that
// is gone with it. Clients need its password.
type Postgres struct {
	dir    string
	owner  *syscall.Credential // nil: this user
	number atomic.Int64        // of the last database
	listen string              // a TCP address as well; empty: none

	process *os.Process
	output  sync.WaitGroup
}

// PostgresPassword is the one of PostgresUser on every server of a test.
const (
	PostgresUser     = "sallyport"
	PostgresPassword = "open sesame"
)

// StartPostgres makes a server and waits until it serves. Debian's package must be
// there. Whoever starts it stops it. It serves at a TCP address too, unless that is
// empty: its port is 5432.
func StartPostgres(listen string) (*Postgres, error) {
	dir, err := os.MkdirTemp("", "postgres")
	if err != nil {
		return nil, err
	}
	p := &Postgres{dir: dir, listen: listen}
	if err := p.makeFiles(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := p.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

// makeFiles makes the files of a server. It refuses to be root, who becomes nobody for it.
func (p *Postgres) makeFiles() error {
	if os.Geteuid() == 0 {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		p.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(p.dir, uid, gid); err != nil {
			return err
		}
	}
	secret := filepath.Join(p.dir, "secret")
	if err := os.WriteFile(secret, []byte(PostgresPassword+"\n"), 0o644); err != nil {
		return err
	}
	initdb, err := p.command("initdb", "--pgdata", p.data(), "--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256",
		"--username="+PostgresUser, "--pwfile="+secret)
	if err != nil {
		return err
	}
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return os.WriteFile(filepath.Join(p.data(), "pg_hba.conf"), []byte("local all all scram-sha-256\nhost all all all scram-sha-256\n"), 0o644)
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

// command is one of PostgreSQL's programs, run by who may.
func (p *Postgres) command(name string, args ...string) (*exec.Cmd, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("PostgreSQL's %s is not there; tools/packages brings it in", name)
	}
	cmd := exec.CommandContext(context.Background(), found[len(found)-1], args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.owner}
	endWithUs(cmd.SysProcAttr)
	return cmd, nil
}

// Start starts a server that was stopped, and waits until it serves.
func (p *Postgres) Start() error {
	serve, err := p.command("postgres", "-D", p.data(), "-k", p.dir, "-c", "listen_addresses="+p.listen, "-c", "fsync=off", "-c", "autovacuum=off", "-c", "shared_buffers=16MB")
	if err != nil {
		return err
	}
	says, err := serve.StderrPipe()
	if err != nil {
		return err
	}
	if err := serve.Start(); err != nil {
		return err
	}
	p.process = serve.Process
	var said strings.Builder
	lines := bufio.NewScanner(says)
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "ready to accept connections") {
			p.output.Go(func() { _, _ = io.Copy(io.Discard, says) })
			return nil
		}
	}
	_, _ = p.process.Wait() // it has ended by itself
	return fmt.Errorf("PostgreSQL does not start: %s", said.String())
}

// Stop ends the server. With at once it closes nothing in order, as a crash does.
func (p *Postgres) Stop(atOnce bool) error {
	signal := syscall.SIGINT
	if atOnce {
		signal = syscall.SIGQUIT
	}
	if err := p.process.Signal(signal); err != nil {
		return err
	}
	p.output.Wait()
	_, err := p.process.Wait()
	return err
}

// Remove stops the server, and removes all that it has.
func (p *Postgres) Remove() error { return errors.Join(p.Stop(true), os.RemoveAll(p.dir)) }

// Database makes an empty database and returns its URL, without the password.
func (p *Postgres) Database(tb testing.TB) *url.URL {
	tb.Helper()
	name := fmt.Sprintf("test%d", p.number.Add(1))
	p.SQL(tb, "postgres", "CREATE DATABASE "+name)
	return &url.URL{Scheme: "postgres", User: url.User(PostgresUser), Path: "/" + name, RawQuery: url.Values{"host": {p.dir}}.Encode()}
}

// SQL runs statements by psql, and returns what it prints: values with | between, one
// row a line.
func (p *Postgres) SQL(tb testing.TB, database, statements string) string {
	tb.Helper()
	psql, err := p.command("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1",
		"--host="+p.dir, "--username="+PostgresUser, "--dbname="+database, "--command="+statements)
	if err != nil {
		tb.Fatal(err)
	}
	psql.Env = append(os.Environ(), "PGPASSWORD="+PostgresPassword)
	out, err := psql.CombinedOutput()
	if err != nil {
		tb.Fatalf("psql: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// shared is the server that the tests of one program use together.
var shared struct {
	once   sync.Once
	server *Postgres
	err    error
}

// SharedPostgres returns the server that the tests of this program use together, each
// with databases of its own. RemovePostgres is called when they have ended.
func SharedPostgres(tb testing.TB) *Postgres {
	tb.Helper()
	shared.once.Do(func() { shared.server, shared.err = StartPostgres("") })
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
	return shared.server
}

// RemovePostgres removes the server of SharedPostgres, if there is one.
func RemovePostgres() error {
	if shared.server == nil {
		return nil
	}
	return shared.server.Remove()
}
