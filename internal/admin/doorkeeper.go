package admin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// Role is what somebody may do.
type Role string

// The roles. Nobody else may do anything.
const (
	Viewer        Role = "viewer"        // look
	Administrator Role = "administrator" // and change
)

// Visitor is somebody who has shown who he is.
type Visitor struct {
	Name string
	Role Role
	Mark uint64 // of what that was shown by: another one, and it was changed
}

// Doorkeeper knows who may come in. It may be used by many goroutines at once.
type Doorkeeper interface {
	// SignIn returns who has that name and password, or ErrWrongLogin. It blocks
	// while a password is hashed, and slows guesses down: for seconds at the most.
	SignIn(ctx context.Context, client netip.AddrPort, name, password string) (Visitor, error)
	// Still returns who somebody is now that signed in once; false: nobody any more.
	Still(v Visitor) (Visitor, bool)
}

// ErrWrongLogin says that there is nobody of that name, or not with that password.
var ErrWrongLogin = errors.New("no such name, or another password")

// Bounds of what is remembered of visits.
const (
	visitTime  = 7 * 24 * time.Hour // after that one signs in again
	idleTime   = 12 * time.Hour     // likewise, where nothing was asked for so long
	mostVisits = 1000               // of more, the one that is idle for the longest time ends
)

// visits are those who have signed in with a browser. Of the secret in a cookie only
// a hash is kept.
type visits struct {
	mu  sync.Mutex
	all map[[sha256.Size]byte]*visit
}

type visit struct {
	who         Visitor
	begun, last time.Time
}

func newVisits() *visits { return &visits{all: make(map[[sha256.Size]byte]*visit)} }

// begin returns the secret of a new visit.
func (v *visits) begin(who Visitor, now time.Time) string {
	secret := rand.Text()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sweep(now)
	v.all[sha256.Sum256([]byte(secret))] = &visit{who, now, now}
	return secret
}

// sweep makes room. Callers hold mu.
func (v *visits) sweep(now time.Time) {
	var oldest [sha256.Size]byte
	var since time.Time
	for key, one := range v.all {
		if one.isOver(now) {
			delete(v.all, key)
		} else if since.IsZero() || one.last.Before(since) {
			oldest, since = key, one.last
		}
	}
	if len(v.all) >= mostVisits {
		delete(v.all, oldest)
	}
}

func (v *visit) isOver(now time.Time) bool {
	return now.Sub(v.begun) >= visitTime || now.Sub(v.last) >= idleTime
}

// find returns who has the secret.
func (v *visits) find(secret string, now time.Time) (Visitor, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	one := v.all[sha256.Sum256([]byte(secret))]
	if one == nil || one.isOver(now) {
		return Visitor{}, false
	}
	one.last = now
	return one.who, true
}

// end ends a visit.
func (v *visits) end(secret string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.all, sha256.Sum256([]byte(secret)))
}
