package upstream

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/sallyport/sallyport/client"
)

// member is one proxy of a pool, or a chain that is as good as one.
type member struct {
	*health // by its name without the login
	url     string
	last    client.Proxy
}

func newMember(text string, log *slog.Logger) (*member, error) {
	chain, err := client.Proxies(text)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range chain {
		names = append(names, p.String())
	}
	return &member{
		health: newHealth("an upstream proxy", "proxy", strings.Join(names, ","), log),
		url:    text, last: chain[len(chain)-1],
	}, nil
}

// dialer returns what speaks to the proxy, which is reached by f.
func (m *member) dialer(f forward) (*client.Dialer, error) {
	return client.New(m.url, client.WithForward(f))
}

// watch checks the proxy until ctx ends.
func (m *member) watch(ctx context.Context, every time.Duration, f forward) {
	d, err := m.dialer(f)
	if err != nil {
		return // it was read before
	}
	m.health.watch(ctx, every, d.Probe)
}
