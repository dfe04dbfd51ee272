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
	l.Set(map[string]string{"alice": alice, "bob": "hunter2", "": alice}, nil)
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
	l.Set(map[string]string{"alice": alice, "bob": HashPassword("builder")}, nil)
	if _, ok := signsIn("bob", "builder"); !ok || p.Still(first) != nil {
		t.Errorf("bob: %v, alice: %v", ok, p.Still(first))
	}
	l.Set(map[string]string{"alice": HashPassword("wonderland")}, nil)
	if p.Still(first) == nil {
		t.Error("another hash, and the same mark")
	}
}

// TestUserListKeys: who has a key signs in with it as long as it is there; what is no key
// keeps nobody else out.
func TestUserListKeys(t *testing.T) {
	var log bytes.Buffer
	l := NewUserList(slog.New(slog.NewTextHandler(&log, nil)))
	p := NewPasswords(&Policy{}, l, slog.New(slog.DiscardHandler))
	one, line := newKey(t)
	two, other := newKey(t)
	key, second := one.Marshal(), two.Marshal()
	signsIn := func(name string, key []byte) (server.Identity, bool) {
		id, err := p.Authenticate(t.Context(), server.Credentials{Name: name, Key: key, Protocol: server.SSH, Client: netip.MustParseAddrPort("127.0.0.1:1")})
		return id, err == nil
	}
	hash := HashPassword("wonderland")
	l.Set(map[string]string{"alice": hash, "bob": hash}, map[string][]string{"alice": {"nonsense", line, other}, "eve": {line}})
	first, ok := signsIn("alice", key)
	if !ok || first.Proof != server.Key || p.Still(first) != nil {
		t.Errorf("alice: %+v, %v", first, ok)
	}
	again, ok := signsIn("alice", second)
	if !ok {
		t.Error("alice cannot sign in with another key of hers")
	}
	for name, key := range map[string][]byte{"bob": key, "eve": key} {
		if _, ok := signsIn(name, key); ok {
			t.Errorf("%s signs in", name)
		}
	}
	if said := log.String(); strings.Count(said, "with a key") != 1 || strings.Contains(said, "nonsense") {
		t.Errorf("the log says %s", said)
	}
	l.Set(map[string]string{"alice": hash}, map[string][]string{"alice": {line}})
	if p.Still(first) != nil || p.Still(again) == nil {
		t.Errorf("with the key that stays: %v, with the one that has gone: %v", p.Still(first), p.Still(again))
	}
	l.Set(map[string]string{"alice": Enable(hash, false)}, map[string][]string{"alice": {line}})
	if _, ok := signsIn("alice", key); ok || p.Still(first) == nil {
		t.Error("alice is disabled, and still there")
	}
}
