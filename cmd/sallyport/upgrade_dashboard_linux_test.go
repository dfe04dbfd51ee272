package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/internal/proxytest"
)

// visitor asks the dashboard of an upgradable, each time by a connection of its own.
type visitor struct {
	*http.Client
	base, token string
}

func newVisitor(network, address, token string) visitor {
	return visitor{&http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, "http://localhost", token}
}

// asks returns the answer's body; an error where it is no success.
func (v visitor) asks(ctx context.Context, method, path string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, method, v.base+path, http.NoBody)
	if err != nil {
		return "", err
	}
	if v.token != "" {
		r.Header.Set("Authorization", "Bearer "+v.token)
	}
	answer, err := v.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, body)
	}
	return string(body), err
}

// TestDashboardOutlivesUpgrades: the sockets of the dashboard, that at an address and the
// unix socket, go from process to process: whoever asks is answered, by the process that
// serves, and administrators sign in with the passwords of before.
func TestDashboardOutlivesUpgrades(t *testing.T) {
	u := newUpgradable(t)
	if err := (daemon.Users{File: filepath.Join(u.dir, "administrators")}).Add(t.Context(), "root", "secret"); err != nil {
		t.Fatal(err)
	}
	u.starts(t, "listeners: {name: lan, listen: '127.0.0.1:0'}\nrules: {allow: all, from: loopback, to: any}\nledger: off\n"+
		"admin: {socket: admin.sock, listen: '127.0.0.1:0', file: administrators, viewers: vera}\n")
	greeting, err := os.ReadFile(filepath.Join(u.dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	_, page, _ := strings.Cut(string(greeting), "dashboard: http://")
	page, _, _ = strings.Cut(page, "/")
	ways := map[string]visitor{
		"at its address": newVisitor("tcp", page, "root:secret"), "on the unix socket": newVisitor("unix", filepath.Join(u.dir, "admin.sock"), ""),
	}
	end := make(chan struct{})
	var asking sync.WaitGroup
	defer asking.Wait()
	stop := sync.OnceFunc(func() { close(end) })
	defer stop()
	for where, v := range ways {
		asking.Go(func() {
			for {
				if _, err := v.asks(t.Context(), http.MethodGet, "/readyz"); err != nil {
					t.Errorf("%s: %v", where, err)
					return
				}
				select {
				case <-end:
					return
				default:
				}
			}
		})
	}
	started := startedOf(t, ways)
	for i := range 4 {
		if i%2 == 0 {
			u.upgrades(true)
		} else {
			u.upgradesByAPI(ways["at its address"])
		}
		proxytest.Eventually(t, "another process answers", func() bool { return startedOf(t, ways).After(started) })
		started = startedOf(t, ways)
	}
	stop()
	asking.Wait()
	u.stops()
	if _, err := os.Lstat(filepath.Join(u.dir, "admin.sock")); !os.IsNotExist(err) {
		t.Errorf("the unix socket is still there: %v", err)
	}
}

// upgradesByAPI has another process take over as a program asks for it that signs in.
func (u *upgradable) upgradesByAPI(v visitor) {
	u.Helper()
	before := u.serving()
	said, err := v.asks(u.Context(), http.MethodPost, "/api/v1/upgrade")
	var done struct{ Before, PID int }
	if err == nil {
		err = json.Unmarshal([]byte(said), &done)
	}
	if err != nil || done.Before != before {
		u.Fatalf("upgrade: %q, %v; want one of process %d", said, err, before)
	}
	proxytest.Eventually(u, "it serves", func() bool { return u.serving() == done.PID })
}

// startedOf is when the process began that answers; all ways lead to the same, but for a
// moment.
func startedOf(t *testing.T, ways map[string]visitor) (at time.Time) {
	t.Helper()
	proxytest.Eventually(t, "the same process answers everywhere", func() bool {
		var all []time.Time
		for where, v := range ways {
			said, err := v.asks(t.Context(), http.MethodGet, "/api/v1/status")
			var status struct{ Started time.Time }
			if err == nil {
				err = json.Unmarshal([]byte(said), &status)
			}
			if err != nil {
				t.Fatalf("%s: %q, %v", where, said, err)
			}
			all = append(all, status.Started)
		}
		at = all[0]
		return all[0].Equal(all[len(all)-1])
	})
	return at
}
