//go:build unix

package server

import (
	"io"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// BenchmarkVirtualPort moves bulk from who offers a port to a visitor. Both ends
// of the SSH connection are in this process.
func BenchmarkVirtualPort(b *testing.B) {
	r := onLoopback(b, &Server{Policy: deciding(offering), Authenticator: door{login: LoginOptional}}, sshListener(b))
	offer := offerIntranet(b, signIn(b, proxytest.Dial(b, r.address)))
	visitor := proxytest.Dial(b, r.address)
	if !visit(b, visitor) {
		b.Fatal("not granted")
	}
	far, err := offer.Accept()
	if err != nil {
		b.Fatal(err)
	}
	const piece = 32 << 10
	buf, sent := make([]byte, piece), make([]byte, piece)
	b.SetBytes(piece)
	go func() {
		for range b.N {
			if _, err := far.Write(sent); err != nil {
				return
			}
		}
	}()
	for range b.N {
		if _, err := io.ReadFull(visitor, buf); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	visitor.Close()
	far.Close()
}
