package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// anybody is a policy that grants every address.
type anybody struct{}

func (anybody) Decide(_ context.Context, r *server.Request) (server.Grant, error) {
	return server.Grant{Rule: "all", Addrs: []netip.Addr{r.Target.IP}}, nil
}

// relayed begins a session on a server in memory whose recorder is v, and returns
// its two far ends. The server has ended when the test has.
func relayed(t *testing.T, v *View) (client, target net.Conn) {
	t.Helper()
	network := proxytest.NewNetwork(netip.MustParseAddr("127.0.0.1"), 64<<10)
	in, at := network.MustListen("127.0.0.1:1080"), network.MustListen("127.0.0.2:80")
	s := &server.Server{Policy: anybody{}, Outbound: network, Recorder: v}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), in, server.Listener{Name: "lan"}) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; !errors.Is(err, server.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		at.Close()
	})
	client, err := in.Dial(netip.MustParseAddrPort("127.0.0.3:4711"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte{4, 1, 0, 80, 127, 0, 0, 2, 0}); err != nil {
		t.Fatal(err)
	}
	if target, err = at.Accept(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	return client, target
}

// TestCounts: what a view tells of sessions that begin, move bytes, and end.
func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := New()
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { v.Run(ctx) })
		client, target := relayed(t, v)
		fmt.Fprint(target, "0123456789")
		if _, err := io.ReadFull(client, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		next := v.Next()
		<-next
		synctest.Wait()
		all := v.Sessions()
		if len(all) != 1 || all[0].SpeedDown != 5 || all[0].Down() != 10 {
			t.Fatalf("after a second: %d sessions, %+v; want one at 5 B/s", len(all), all)
		}
		if s := v.Samples(); len(s) == 0 || s[len(s)-1].Down != 10 || s[len(s)-1].Open != 1 {
			t.Errorf("samples: %+v; want 10 B/s, one session", s)
		}
		if r := v.Rules()["all"]; r.Hits != 1 || r.Last.IsZero() {
			t.Errorf("the rule of an open session: %+v; want one hit", r)
		}
		if v.Find(all[0].ID) != all[0].Session || v.Find(all[0].ID+1) != nil {
			t.Error("Find does not find, or finds what is not there")
		}
		all[0].End(server.Ended)
		client.Close()
		target.Close()
		synctest.Wait()
		got := v.Totals()
		if got.Opened != 1 || got.Open != 0 || got.Down != 10 || got.Ended[server.Ended] != 1 || len(got.Refused) != 0 {
			t.Errorf("after its end: %+v", got)
		}
		if r := v.Rules()["all"]; r.Hits != 1 {
			t.Errorf("after its end the rule has %d hits, want 1", r.Hits)
		}
		stop()
		running.Wait()
	})
}

// TestRefusals: what came to nothing is counted by its reason and remembered, the
// last ones only.
func TestRefusals(t *testing.T) {
	v := New()
	for i := range keptRefusals + 5 {
		s := server.NewSession(server.Record{ID: uint64(i), Rule: "no"})
		v.Opened(s)
		v.Closed(s, fmt.Errorf("%w: by a rule", server.Denied))
	}
	v.Closed(server.NewSession(server.Record{ID: 9999}), server.Garbage) // it was never opened
	got := v.Totals()
	if got.Opened != keptRefusals+5 || got.Open != 0 || got.Refused[server.Denied] != keptRefusals+5 || got.Refused[server.Garbage] != 1 {
		t.Errorf("totals: %+v", got)
	}
	all := v.Refusals(0)
	last := all[len(all)-1]
	if len(all) != keptRefusals || last.Record.ID != 9999 || last.Reason != server.Garbage || last.Seq != keptRefusals+6 {
		t.Errorf("%d refusals, the last %+v", len(all), last)
	}
	if !errors.Is(all[0].Err, server.Denied) || all[0].Record.Rule != "no" {
		t.Errorf("the first: %+v", all[0])
	}
	if more := v.Refusals(last.Seq - 1); len(more) != 1 || more[0].Seq != last.Seq {
		t.Errorf("those after the last but one: %+v", more)
	}
	if more := v.Refusals(last.Seq + 500); len(more) != 0 { // a page that was open before a restart asks so
		t.Errorf("those after one that is yet to come: %+v", more)
	}
	if r := v.Rules()["no"]; r.Hits != keptRefusals+5 {
		t.Errorf("the rule has %d hits", r.Hits)
	}
}

// TestDoors: what is counted where sessions come in, and of users that there are not
// more counts than asked for, none of them under a name that was only claimed.
func TestDoors(t *testing.T) {
	v := New()
	v.CountUsers(2)
	for i, who := range []server.Identity{
		{Name: "alice", Proof: server.Password},
		{Name: "mallory", Proof: server.Claimed},
		{Name: "bob", Proof: server.Ident},
		{Name: "carol", Proof: server.Password},
		{Name: "alice", Proof: server.Password},
	} {
		s := server.NewSession(server.Record{ID: uint64(i), Listener: "lan", Protocol: server.SOCKS5, Rule: "web", Identity: who})
		v.Opened(s)
		v.sample(time.Now())
		v.open[s].up, v.open[s].down = -10, -1 // as if it had moved them since
		if i > 0 {
			v.Closed(s, server.Denied)
		} else {
			v.sample(time.Now())
		}
	}
	v.Closed(server.NewSession(server.Record{Listener: "lan"}), server.Garbage) // it was never opened
	if got, want := v.Users(), map[string]UserBytes{"alice": {20, 2}, OthersUsers: {30, 3}}; !maps.Equal(got, want) {
		t.Errorf("users: %v, want %v", got, want)
	}
	all := v.Doors()
	at := all[Door{"lan", server.SOCKS5}]
	if at.Opened != 5 || at.Open != 1 || at.Up != 50 || at.Down != 5 || at.Refused[server.Denied] != 4 || len(at.Ended) != 0 {
		t.Errorf("the door: %+v", at)
	}
	if g := all[Door{"lan", ""}]; g.Opened != 0 || g.Open != 0 || g.Refused[server.Garbage] != 1 || len(all) != 2 {
		t.Errorf("garbage: %+v, of %d doors", g, len(all))
	}
	at.Refused[server.Denied] = 0
	if v.Doors()[Door{"lan", server.SOCKS5}].Refused[server.Denied] != 4 {
		t.Error("the maps are the view's own")
	}
}

// TestQuery: filter, order, and page.
func TestQuery(t *testing.T) {
	v := New()
	start := time.Now()
	for i, name := range []string{"carol", "alice", "bob", "Alina"} {
		s := server.NewSession(server.Record{
			ID: uint64(i + 1), Started: start.Add(time.Duration(i) * time.Second), Identity: server.Identity{Name: name},
			Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(9 - i)}), 1), Rule: []string{"x", "y"}[i%2],
			Target: socks.Addr{Name: "host" + string(rune('d'-i)), Port: 80},
		})
		v.Opened(s)
		v.open[s].speed = &speed{down: int64(i % 3)}
	}
	ids := func(q Query) (ids []uint64) {
		for _, l := range v.Query(q).Lines {
			ids = append(ids, l.Record.ID)
		}
		return ids
	}
	for _, test := range []struct {
		q    Query
		want []uint64
	}{
		{Query{}, []uint64{3, 2, 1, 4}},
		{Query{Sort: "speed", Offset: 1, Limit: 2}, []uint64{2, 1}},
		{Query{Sort: "newest"}, []uint64{4, 3, 2, 1}},
		{Query{Sort: "oldest", Limit: 9}, []uint64{1, 2, 3, 4}},
		{Query{Sort: "user"}, []uint64{4, 2, 3, 1}},
		{Query{Sort: "client"}, []uint64{4, 3, 2, 1}},
		{Query{Sort: "target"}, []uint64{4, 3, 2, 1}},
		{Query{Sort: "rule"}, []uint64{1, 3, 2, 4}},
		{Query{Sort: "bytes"}, []uint64{1, 2, 3, 4}},
		{Query{Filter: "AL", Sort: "oldest"}, []uint64{2, 4}},
		{Query{Filter: "hostd", Sort: "oldest"}, []uint64{1}},
		{Query{Filter: "10.0.0.8"}, []uint64{2}},
		{Query{Filter: "nobody"}, nil},
		{Query{Offset: 99}, nil},
		{Query{Offset: -1, Limit: 1}, []uint64{3}},
	} {
		if got := ids(test.q); !slices.Equal(got, test.want) {
			t.Errorf("%+v: %v, want %v", test.q, got, test.want)
		}
	}
	if p := v.Query(Query{Filter: "al", Limit: 1}); p.Open != 4 || p.Matched != 2 || len(p.Lines) != 1 {
		t.Errorf("page: %d open, %d match, %d lines", p.Open, p.Matched, len(p.Lines))
	}
}

func BenchmarkQuery9000(b *testing.B) {
	v := New()
	for i := range 9000 {
		v.Opened(server.NewSession(server.Record{ID: uint64(i + 1), Identity: server.Identity{Name: fmt.Sprint("user", i%100)}}))
	}
	for _, q := range []Query{{Limit: 50}, {Limit: 50, Sort: "user"}, {Limit: 50, Filter: "user7"}} {
		b.Run(fmt.Sprintf("sort=%s,filter=%s", q.Sort, q.Filter), func(b *testing.B) {
			for b.Loop() {
				v.Query(q)
			}
		})
	}
	b.Run("sample", func(b *testing.B) {
		for b.Loop() {
			v.sample(time.Now())
		}
	})
}
