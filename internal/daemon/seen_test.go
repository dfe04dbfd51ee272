package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// TestSeen: what an administrator is shown of sessions and refusals, with all
// that clients chose escaped.
func TestSeen(t *testing.T) {
	if !reflect.DeepEqual(admin.SessionOrders(), live.Orders()) {
		t.Errorf("the orders of the API are %q, those of the view %q", admin.SessionOrders(), live.Orders())
	}
	s := seen{live.New(), time.Now()}
	record := server.Record{
		ID: 7, Listener: "lan", Client: netip.MustParseAddrPort("10.0.0.7:1"), Protocol: server.SOCKS4a, Command: socks.Connect,
		Identity: server.Identity{Name: "bob\n<b>", Proof: server.Claimed}, Target: socks.Addr{Name: "a.example", Port: 80}, Rule: "web",
	}
	open := server.NewSession(record)
	s.view.Opened(open)
	page := s.Sessions(admin.SessionQuery{Filter: "BOB"})
	if len(page.Sessions) != 1 || page.Open != 1 || page.Matched != 1 {
		t.Fatalf("sessions: %+v", page)
	}
	got := page.Sessions[0]
	if got.ID != 7 || got.User != `bob\x0a<b>` || got.Target != "a.example:80" || got.Client != "10.0.0.7:1" || got.Command != "connect" || got.Address != "" {
		t.Errorf("session: %+v", got)
	}
	if err := s.EndSession(8); !errors.Is(err, admin.ErrNoSession) {
		t.Errorf("the end of a session that is not there: %v", err)
	}
	s.view.Closed(open, fmt.Errorf("%w: by the rule %q", server.Denied, "web"))
	now := s.Now()
	if now.Open != 0 || now.Opened != 1 || now.Refused["denied"] != 1 || len(now.Refusals) != 1 {
		t.Fatalf("now: %+v", now)
	}
	if r := now.Refusals[0]; r.Reason != "denied" || r.Detail != `by the rule "web"` || r.User != `bob\x0a<b>` || r.Target != "a.example:80" {
		t.Errorf("refusal: %+v", r)
	}
	select {
	case <-s.Next():
		t.Error("there is something new, and nothing has happened")
	default:
	}
}
