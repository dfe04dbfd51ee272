package upstream

import (
	"context"
	"errors"
	"os"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/server"
)

// verdict is what an error says of the proxy that it comes from.
type verdict int

const (
	final     verdict = iota // it is about the target: another proxy would say the same
	elsewhere                // this proxy cannot now, or not this; another may
	doubtful                 // it may be the proxy's fault, or not
	refusing                 // the proxy does not let us in
	dead                     // there is no way to the proxy
)

// errNoFamily is what a proxy can never do, whatever its state.
var errNoFamily = errors.New("SOCKS 4 carries no IPv6 address")

// busyWords are Sallyport's reasons that are about the proxy itself.
var busyWords = map[string]bool{
	string(server.Busy): true, string(server.UpstreamFailed): true,
	string(server.TooMany): true, string(server.TooFast): true, string(server.Quota): true, string(server.NoLedger): true,
	string(server.Failed): true, string(server.Shutdown): true,
}

// judge says whose fault an error is.
func judge(err error) verdict {
	switch {
	case errors.Is(err, client.ErrProxy):
		return dead
	case refusesUs(err):
		return refusing
	case errors.Is(err, errNoFamily), errors.Is(err, errors.ErrUnsupported), errors.Is(err, client.ErrUnsupported):
		return elsewhere
	case saysBusy(err):
		return elsewhere
	case errors.Is(err, client.ErrRejected):
		return final
	}
	return doubtful
}

// saysBusy reports whether a proxy says of itself, or of those behind it, that it
// cannot now.
func saysBusy(err error) bool {
	reply, ok := errors.AsType[*client.ReplyError](err)
	return ok && busyWords[reply.Reason]
}

// verdict judges an error, and notes what it says of the proxy.
func (m *member) verdict(err error) verdict {
	v := judge(err)
	switch v {
	case dead, refusing:
		m.failed(err, v == refusing)
	case doubtful:
		// A client can bring this about, by a target that keeps silent: only a
		// check tells.
		m.suspect()
	}
	return v
}

// refusesUs reports whether the proxy wants another login, or identd's word.
func refusesUs(err error) bool {
	return errors.Is(err, client.ErrLogin) || errors.Is(err, client.ErrNoIdentd) || errors.Is(err, client.ErrOtherUser)
}

// reasonOf puts a proxy's refusal into a word of ours.
func reasonOf(err error) server.Reason {
	if saysBusy(err) {
		return server.UpstreamFailed
	}
	for _, known := range []struct {
		err    error
		reason server.Reason
	}{
		{client.ErrRefused, server.Refused},
		{client.ErrUnreachable, server.Unreachable},
		{client.ErrTimeout, server.TimedOut},
		{client.ErrNotAllowed, server.Denied},
		{client.ErrUnsupported, server.Unsupported},
		{errors.ErrUnsupported, server.Unsupported},
		{errNoFamily, server.Unreachable},
		{context.DeadlineExceeded, server.TimedOut},
		{os.ErrDeadlineExceeded, server.TimedOut},
	} {
		if errors.Is(err, known.err) {
			return known.reason
		}
	}
	return server.UpstreamFailed
}
