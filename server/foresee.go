package server

import (
	"fmt"
	"slices"

	"github.com/sallyport/sallyport/socks"
)

// Foresee returns the error with which a [Server] would refuse a request that its
// [Policy] has granted, as far as the two alone tell; nil: it would try. What
// only shows on the way, such as [Loop] and [NoPrimary], is not in it.
func Foresee(r *Request, g Grant) error {
	switch r.Command {
	case socks.Connect, socks.Associate:
		if err := aims(r); err != nil {
			return err
		}
	case socks.Bind:
		if r.Target.IP.IsUnspecified() {
			if !g.Bind.AnyPeer {
				return fmt.Errorf("%w: BIND for any peer (DSTIP 0.0.0.0), and the rule does not say any_peer", Denied)
			}
			return nil
		}
	default:
		return fmt.Errorf("%w: command %d", Unsupported, r.Command)
	}
	if !g.ByName && !g.Virtual && !slices.ContainsFunc(g.Addrs, isHost) {
		return fmt.Errorf("%w: %s is no host's address", BadRequest, r.Target.Host())
	}
	return nil
}

// aims returns an error for a target that nothing can be sent to.
func aims(r *Request) error {
	if r.Target.Port == 0 && r.Protocol != Mapped { // of which a unix socket has none
		return fmt.Errorf("%w: port 0", BadRequest)
	}
	return nil
}
