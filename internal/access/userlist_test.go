package access

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/server"
)

// TestUserList: who is in the list signs in, and keeps the mark as long as the hash is
// the same; one bad hash keeps nobody else out, and is told without a secret.
func TestUserList(t *testing.T) {
	var log bytes.Buffer
	l := NewUserList(slog.New(slog.NewTextHandler(&log, nil)))
	p := NewPasswords(&Policy{}, l, slog.New(slog.DiscardHandler))
	signsIn := func(name, password string) (server.Identity, bool) {
		id, err := p.Authenticate(t.Context(), credentials(netip.MustParseAddr("127.0.0.1"), name, password))
		return id, err == nil
	}
	if _, ok := signsIn("alice", "wonderland"); ok {
		t.Error("nobody is in the list, and alice signs in")
	}
	alice := HashPassword("wonderland")
	l.Set(map[string]string{"alice": alice, "bob": "hunter2", "": alice})
	first, ok := signsIn("alice", "wonderland")
	if !ok || p.Still(first) != nil {
		t.Errorf("alice: %+v", first)
	}
	if _, ok := signsIn("bob", "hunter2"); ok {
		t.Error("bob signs in without a hash")
	}
	if said := log.String(); strings.Count(said, "cannot sign in") != 2 || strings.Contains(said, "hunter2") {
		t.Errorf("the log says %s", said)
	}
	l.Set(map[string]string{"alice": alice, "bob": HashPassword("builder")})
	if _, ok := signsIn("bob", "builder"); !ok || p.Still(first) != nil {
		t.Errorf("bob: %v, alice: %v", ok, p.Still(first))
	}
	l.Set(map[string]string{"alice": HashPassword("wonderland")})
	if p.Still(first) == nil {
		t.Error("another hash, and the same mark")
	}
}
