//go:build unix

package admin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func (f *fake) Quotas() Quotas { return f.quotas }

func (f *fake) Grant(_ context.Context, g Grant) (Quota, error) {
	f.grant = g
	return f.quotas.Quotas[0], f.err
}

func (f *fake) SetRate(r Rate) error {
	f.rate = r
	return f.err
}

// TestQuotasAPI: what is asked arrives, and what is answered, and why not.
func TestQuotasAPI(t *testing.T) {
	until := time.Now().UTC().Round(0)
	d := &fake{quotas: Quotas{
		Quotas: []Quota{{Limit: "daily", Per: "user", Key: "alice", Counts: "both", Unit: "bytes", Used: 1, Left: 2, Most: 3, Granted: 1, Until: &until, Sessions: 1}},
		Counts: []QuotaCounts{{"daily", 1, 2, 3}},
	}}
	path := socketIn(t)
	l := mustListen(t, path)
	ctx, stop := context.WithCancel(t.Context())
	var served sync.WaitGroup
	served.Go(func() { Serve(ctx, l, (&Panel{Daemon: d}).Here(), slog.New(slog.DiscardHandler)) })
	defer served.Wait()
	defer stop()
	c := Client{Socket: path}
	if q, err := c.Quotas(t.Context()); err != nil || !reflect.DeepEqual(q, d.quotas) {
		t.Errorf("quotas: %+v, %v; want %+v", q, err, d.quotas)
	}
	grant, rate := Grant{"daily", "alice", true, "2 GiB"}, Rate{"line", "1 Mbit/s", "2 Mbit/s", "3 Mbit/s"}
	if q, err := c.Grant(t.Context(), grant); err != nil || d.grant != grant || !reflect.DeepEqual(q, d.quotas.Quotas[0]) {
		t.Errorf("grant: %+v, %v; arrived is %+v", q, err, d.grant)
	}
	if err := c.SetRate(t.Context(), rate); err != nil || d.rate != rate {
		t.Errorf("rate: %v; arrived is %+v", err, d.rate)
	}
	d.err = errors.New("no such limit")
	if _, err := c.Grant(t.Context(), grant); err == nil || err.Error() != "no such limit" {
		t.Errorf("a grant that cannot be: %v", err)
	}
	if err := c.SetRate(t.Context(), rate); err == nil || err.Error() != "no such limit" {
		t.Errorf("a rate that cannot be: %v", err)
	}
	for _, body := range []string{"", "{", `{"quota": 1}`, `{"key": "` + strings.Repeat("a", maxBody) + `"}`} {
		d.grant = Grant{}
		if code := posts(t, path, "/api/v1/grants", body); code < 400 || code > 499 || d.grant != (Grant{}) {
			t.Errorf("%.20q is answered %d, and made %+v", body, code, d.grant)
		}
	}
	if err := c.do(t.Context(), http.MethodPost, "grants", map[string]string{"quota": "1"}, nil); err == nil || !strings.Contains(err.Error(), "body.quota: unexpected property") {
		t.Errorf("what is wrong with a body is not told: %v", err)
	}
	name := "50% / day?"
	if err := c.SetRate(t.Context(), Rate{Limit: name, Rate: "x"}); err == nil || d.rate.Limit != name {
		t.Errorf("of the limit %q arrived %q, %v", name, d.rate.Limit, err)
	}
}

func posts(t *testing.T, socket, path, body string) int {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://admin"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}
