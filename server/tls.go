package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
)

// recordHandshake is the first byte of a TLS connection (RFC 8446, section 5.1).
// No protocol that is told apart by its first byte begins with it.
const recordHandshake = 22

// wantsTLS reports whether the client has begun to speak TLS, and may.
func (d *driver) wantsTLS() bool {
	return d.buf[0] == recordHandshake && d.listener.TLS != nil && !d.session.TLS
}

// startTLS answers a client's TLS handshake. From then on the exchange goes
// through the secure connection; the plain one stays its accepter's to close.
func (d *driver) startTLS(ctx context.Context) error {
	secure := tls.Server(&rewound{Conn: d.conn, head: slices.Clone(d.buf)}, d.listener.TLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: %w", BadRequest, err)
	}
	d.conn, d.buf, d.session.TLS = secure, d.buf[:0], true
	if chains := secure.ConnectionState().VerifiedChains; len(chains) > 0 {
		d.certificate = Identity{Name: certificateName(chains[0][0]), Proof: Certificate}
	}
	return nil
}

// certificateName is the user that a client certificate names: its common name,
// or else its first e-mail address or DNS name.
func certificateName(c *x509.Certificate) string {
	for _, name := range slices.Concat([]string{c.Subject.CommonName}, c.EmailAddresses, c.DNSNames) {
		if name != "" {
			return name
		}
	}
	return ""
}

// rewound is a connection whose first bytes have been read already. It yields
// them again.
type rewound struct {
	net.Conn
	head []byte
}

// Read yields the head first.
func (r *rewound) Read(b []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(b, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	return r.Conn.Read(b)
}

// NetConn returns the connection beneath, for what only the socket can do.
func (r *rewound) NetConn() net.Conn { return r.Conn }
