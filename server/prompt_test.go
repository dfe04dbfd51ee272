package server

import "context"

// prompt makes a Policy that knows at once whatever it decides on. On a socket of
// TCP all of the tests' have it (rig.serve), so that sessions are served on loops
// where there are any.
type prompt struct{ Policy }

// DecideNow asks the policy, which must not wait for anything.
func (p prompt) DecideNow(r *Request) (Grant, bool, error) {
	g, err := p.Decide(context.Background(), r)
	return g, true, err
}

// deliberate makes a Policy that never knows at once, so that all sessions are
// served in goroutines from the start.
type deliberate struct{ Policy }
