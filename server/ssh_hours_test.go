//go:build unix

package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// TestHoursOverSSH: what was granted for an hour ends with it, be it a channel, a visitor
// or an offer, and of datagrams as well; the connection may stay.
func TestHoursOverSSH(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		until := time.Now().Add(time.Hour)
		r := inMemory(t, &Server{Policy: deciding(func(ctx context.Context, q *Request) (Grant, error) {
			g, err := offering(ctx, q)
			g.Until = until
			return g, err
		}), Authenticator: door{login: LoginOptional}, Timeouts: Timeouts{Idle: 24 * time.Hour}}, sshListener(t))
		target := r.network.MustListen(targetAt.String())
		client := signIn(t, r.client())
		offer := offerIntranet(t, client)
		visitor := r.mustVisit()
		offer.next(t)
		channel, err := client.Dial("tcp", targetAt.String())
		if err != nil {
			t.Fatal(err)
		}
		r.next4(target)
		if _, err := offerPackets(client, "intranet"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(r.server.Sessions()); n != 4 {
			t.Fatalf("%d sessions, want a visitor, a channel and two offers", n)
		}
		time.Sleep(time.Hour + 30*time.Second) // the clock on the wall is looked at now and then
		synctest.Wait()
		haveEnded(r)
		if _, err := channel.Read(make([]byte, 1)); err == nil {
			t.Error("something came by the channel")
		}
		if rest, err := proxytest.End(visitor); len(rest) > 0 || err == nil {
			t.Errorf("the visitor got %q, then %v; want a reset", rest, err)
		}
		if _, _, err := client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			t.Errorf("the connection: %v", err)
		}
	})
}

// haveEnded takes the ends of two offers and of two that were connected by hours.
func haveEnded(r *rig) {
	r.Helper()
	seen := map[socks.Command]int{}
	for range 4 {
		e := <-r.ends
		seen[e.Command]++
		// An offer that ends takes the visitor along, if it is the first to notice.
		if reason := ReasonOf(e.err); reason != Schedule && (e.Protocol == SSH || reason != TargetReset) {
			r.Errorf("%v of %v ended with %v", e.Command, e.Protocol, e.err)
		}
	}
	if seen[socks.Bind] != 2 || seen[socks.Connect] != 2 || len(r.server.Sessions()) > 0 {
		r.Errorf("%v have ended, and %d sessions are left", seen, len(r.server.Sessions()))
	}
}
