package daemon

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/config"
)

// TestCannotOpen: the error of an address that cannot be opened says what to do.
func TestCannotOpen(t *testing.T) {
	fails := func(errno syscall.Errno) error {
		return &net.OpError{Op: "listen", Net: "tcp4", Err: os.NewSyscallError("bind", errno)}
	}
	for _, test := range []struct {
		listen string
		err    error
		want   string
	}{
		{"192.0.2.1:1080", fails(syscall.EADDRINUSE), "another program listens there"},
		{"192.0.2.1:80", fails(syscall.EACCES), "`sallyport service install`"},
		{"udp/192.0.2.1:53", fails(syscall.EADDRNOTAVAIL), "(`:53`)"},
		{"unix:/run/a:b", fails(syscall.EACCES), "permission denied"},
		{"[::1]:1080", fails(syscall.EMFILE), "too many open files"},
	} {
		err := cannotOpen(config.Listener{Name: "lan", Listen: test.listen}, nil, test.err)
		if !strings.HasPrefix(err.Error(), `the listener "lan" cannot open its address: listen tcp4: bind: `) || !errors.Is(err, test.err) {
			t.Errorf("%s: %v", test.listen, err)
		}
		if strings.HasPrefix(test.listen, "unix:") || errors.Is(test.err, syscall.EMFILE) {
			test.want += "\n" // nothing follows
		}
		if !strings.Contains(err.Error()+"\n", test.want) {
			t.Errorf("%s: %v; want %q", test.listen, err, test.want)
		}
	}
}
