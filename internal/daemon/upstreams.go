package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"reflect"
	"runtime"
	"strings"
	"sync"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/regular"
	"github.com/sallyport/sallyport/internal/upstream"
	"github.com/sallyport/sallyport/server"
)

// waysOut are the ways by which rules let sessions leave. Rules that say the same
// share one, so that what is kept for a way serves all of them.
type waysOut map[wayOut]exit

// exit is a way, and of an upstream the settings that made it.
type exit struct {
	*server.Way
	settings upstream.Settings
}

// wayOut is what a rule says of it. An upstream that is reached from several
// addresses is checked from each: it may serve not all of them.
type wayOut struct {
	via   string
	leave server.Leaving
}

func wayOutOf(r config.Rule) wayOut {
	return wayOut{r.Via, server.Leaving{Address: r.Outgoing, Device: r.Interface, Mark: r.Mark}}
}

// buildWays connects to nothing. What is as it was before is kept, with all that
// is known of its proxies. A nil log is for settings that are only checked.
func buildWays(s *config.Settings, before waysOut, log *slog.Logger) (waysOut, error) {
	w := make(waysOut)
	upstreams := make(map[string]upstream.Settings)
	for _, u := range s.Upstreams {
		settings, err := buildUpstream(u, log)
		if err == nil {
			_, err = upstream.New(settings) // whether a rule uses it or not
		}
		if err != nil {
			return nil, &SettingsError{fmt.Errorf("the upstream %q: %w", u.Name, err)}
		}
		upstreams[u.Name] = settings
	}
	for _, r := range s.Rules {
		key := wayOutOf(r)
		if _, done := w[key]; done || key == (wayOut{}) {
			continue
		}
		var err error
		if w[key], err = buildWay(key, upstreams[r.Via], before[key]); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func buildWay(key wayOut, settings upstream.Settings, before exit) (exit, error) {
	settings.Leave = key.leave
	switch {
	case before.Way != nil && reflect.DeepEqual(before.settings, settings):
		return before, nil
	case key.via == "":
		return exit{&server.Way{Outbound: key.leave}, settings}, nil
	}
	pool, err := upstream.New(settings)
	return exit{&server.Way{Via: key.via, Upstream: pool}, settings}, err
}

func buildUpstream(u config.Upstream, log *slog.Logger) (upstream.Settings, error) {
	proxies, err := signIn(u)
	return upstream.Settings{
		Name:          u.Name,
		Proxies:       proxies,
		Choose:        upstream.Choose(u.Choose),
		ProxyProtocol: u.ProxyProtocol,
		Check:         u.Check,
		Log:           log,
	}, err
}

// of returns the way of a rule, nil for the usual one, and whether it takes names.
func (w waysOut) of(r config.Rule) (way *server.Way, sendsNames bool) {
	way = w[wayOutOf(r)].Way
	if way == nil {
		return nil, false
	}
	pool, ok := way.Upstream.(*upstream.Pool)
	return way, ok && pool.SendsNames()
}

// watch checks all proxies until ctx ends.
func (w waysOut) watch(ctx context.Context) {
	var checks sync.WaitGroup
	for _, way := range w {
		if pool, ok := way.Upstream.(*upstream.Pool); ok {
			checks.Go(func() { pool.Run(ctx) })
		}
	}
	checks.Wait()
}

// signIn returns the proxies of an upstream, with the login from its file.
func signIn(u config.Upstream) ([]string, error) {
	if u.LoginFile == "" {
		return u.Proxies, nil
	}
	login, err := readLogin(u.LoginFile)
	if err != nil {
		return nil, fmt.Errorf("the login in %s: %w", u.LoginFile, err)
	}
	var proxies []string
	for _, text := range u.Proxies {
		proxy, err := url.Parse(text)
		if err != nil {
			return nil, errors.New("a proxy's URL cannot be read") // the error would quote it
		}
		proxy.User = login
		proxies = append(proxies, proxy.String())
	}
	return proxies, nil
}

// maxLogin is the most bytes of a file with a login: each half has 255 at most.
const maxLogin = 1024

// readLogin reads the one line user:password. Its errors hold nothing of it.
func readLogin(file string) (*url.Userinfo, error) {
	f, info, err := regular.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 {
		return nil, errors.New("others than the owner and the group can read the file: chmod 600")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxLogin+1))
	if err != nil {
		return nil, err
	}
	line := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	user, password, found := strings.Cut(line, ":")
	if !found || user == "" || len(text) > maxLogin || strings.ContainsAny(line, "\r\n") {
		return nil, errors.New("the file must hold one line, user:password")
	}
	return url.UserPassword(user, password), nil
}
