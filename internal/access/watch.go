package access

import (
	"context"
	"time"
)

// watchEvery is how often a file that is watched is looked at: so often that
// what it says holds within a second.
const watchEvery = lookAgain / 2

// Watch looks at the file twice a second until ctx ends, and calls changed when
// other users are in force than before, whoever has read them.
func (f *UsersFile) Watch(ctx context.Context, changed func()) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	known := f.now.Load()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		f.Look()
		if now := f.now.Load(); now != known {
			known = now
			changed()
		}
	}
}

// Look reads the file now, if it has changed. A change that is no good is a line
// in the log, and changes nothing.
func (f *UsersFile) Look() {
	f.checking.Lock()
	defer f.checking.Unlock()
	f.next = time.Now().Add(lookAgain)
	f.refresh()
}
