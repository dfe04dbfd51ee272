package access

import (
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/server"
)

// mayOffer says whether the client may offer the virtual port that is its target:
// over SSH, as one of those whom the port is for, and having proven that it is. The
// rules may still deny it, or set it hours and limits; it does not take one that
// allows it.
func (d *decision) mayOffer() error {
	id, users := d.request.Identity, d.policy.virtual[d.request.Target.Name]
	switch {
	case d.request.Protocol != server.SSH:
		return fmt.Errorf("%w: a virtual port is offered over ssh", server.Unsupported)
	case !d.proven() || id.Name == "":
		return fmt.Errorf("%w: who offers a virtual port has to sign in", server.Denied)
	case !users.Any && !slices.Contains(users.Names, id.Name):
		return fmt.Errorf("%w: the virtual port %q is for others to offer", server.Denied, d.request.Target.Name)
	}
	return nil
}

// hoursEnd returns when the listener's hours end.
func (d *decision) hoursEnd() time.Time { return d.policy.hours[d.request.Listener].Until(d.now) }
