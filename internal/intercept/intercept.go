package intercept

import (
	"context"
	"net"
	"os"
	"strings"

	"github.com/sallyport/sallyport/socks"
)

// A Dial connects to a target through the proxy. Its error wraps a
// [github.com/sallyport/sallyport/server.Reason], by which the program is told. It is
// called from many goroutines at once, and must honour ctx.
type Dial func(ctx context.Context, target socks.Addr) (net.Conn, error)

// Environment returns what is to be added to the environment of a command so that names
// are looked up as the program has them: the C library would first try those with few dots
// below the domains that resolv.conf has, and find all of them, as only the proxy knows
// better (resolv.conf(5)).
func Environment() []string {
	const name = "RES_OPTIONS"
	return []string{name + "=" + strings.TrimSpace(os.Getenv(name)+" ndots:0")}
}
