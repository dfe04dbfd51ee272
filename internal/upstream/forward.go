package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/server"
)

// reachTime is how long the connection to a proxy may take. It is a machine that
// somebody runs for this purpose; and there may be another.
const reachTime = 10 * time.Second

// forward reaches the first proxy of a chain.
type forward struct {
	base    client.ContextDialer // nil: the operating system's network
	leave   server.Leaving       // how, where base is nil
	version int                  // of the PROXY header; 0: none
	client  netip.AddrPort       // whom the header names; zero: nobody
	local   netip.AddrPort
}

func (f forward) dialer() client.ContextDialer {
	if f.base != nil {
		return f.base
	}
	return f.leave.Dialer()
}

// DialContext connects to the proxy and sends the header, before TLS or whatever
// comes next. The caller closes the connection.
func (f forward) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	c, err := f.dialer().DialContext(ctx, network, address)
	if err != nil || f.version == 0 {
		return c, err
	}
	if err := f.introduce(ctx, c); err != nil {
		return nil, errors.Join(fmt.Errorf("sending the PROXY header: %w", err), c.Close())
	}
	return c, nil
}

func (f forward) introduce(ctx context.Context, c net.Conn) error {
	if until, ok := ctx.Deadline(); ok {
		if err := c.SetWriteDeadline(until); err != nil {
			return err
		}
	}
	if _, err := c.Write(server.AppendProxyHeader(nil, f.version, f.client, f.local)); err != nil {
		return err
	}
	return c.SetWriteDeadline(time.Time{})
}

// ListenPacket opens the socket for datagrams to a proxy. The address is the one
// that the connection to it has.
func (f forward) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	leave := f.leave
	leave.Address = netip.Addr{} // which address says already
	return leave.ListenPacket(ctx, network, address)
}
