package access

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

// Bounds of what is remembered of logins.
const (
	verifiedTime = time.Minute // a login holds so long without another look
	maxVerified  = 4096        // logins
)

// loginKey stands for a name and a password. It says nothing of them to whoever
// does not have the random key of this process.
type loginKey [sha256.Size]byte

// verified remembers for a short while which logins were right: HTTP sends the
// password with every request. Safe for concurrent use.
type verified struct {
	secret [32]byte

	mu    sync.Mutex
	since recent[loginKey, time.Time]
}

func newVerified() *verified {
	v := &verified{since: recent[loginKey, time.Time]{limit: maxVerified}}
	_, _ = rand.Read(v.secret[:]) // never fails: it would end the program
	return v
}

func (v *verified) key(name, password string) loginKey {
	h := hmac.New(sha256.New, v.secret[:])
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(name)))) // so that no two logins are one text
	h.Write([]byte(name))
	h.Write([]byte(password))
	return loginKey(h.Sum(nil))
}

func (v *verified) has(k loginKey, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	since, ok := v.since.get(k)
	return ok && now.Sub(since) < verifiedTime
}

func (v *verified) add(k loginKey, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.since.put(k, now)
}
