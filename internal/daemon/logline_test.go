package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// Who reads the log by a program goes by names, order and form of what is in it.
func TestSessionLine(t *testing.T) {
	client, target := netip.MustParseAddrPort("192.0.2.1:1234"), netip.MustParseAddrPort("[2001:db8::1]:80")
	for _, tt := range []struct {
		name       string
		record     server.Record
		reason     error
		text, json string
	}{
		{
			"CONNECT",
			server.Record{
				ID: 1, Listener: "l", Client: client, Protocol: server.SOCKS5, Command: socks.Connect,
				Identity: server.Identity{Name: "bo b\n", Proof: server.Password},
				Target:   socks.Addr{Name: "example.org", Port: 80}, Address: target, Bound: client, Rule: "r",
			},
			nil,
			`level=INFO msg=session id=1 listener=l client=192.0.2.1:1234 protocol=socks5 user="bo b\\x0a" proof=password command=connect target=example.org:80 address=[2001:db8::1]:80 bound=192.0.2.1:1234 rule=r up=0 down=0 took=1.234s reason=closed`,
			`level":"INFO","msg":"session","id":1,"listener":"l","client":"192.0.2.1:1234","protocol":"socks5","user":"bo b\\x0a","proof":"password","command":"connect","target":"example.org:80","address":"[2001:db8::1]:80","bound":"192.0.2.1:1234","rule":"r","up":0,"down":0,"took":"1.234s","reason":"closed"}`,
		},
		{
			"all there is",
			server.Record{
				ID: 1 << 63, Client: client, Through: client, TLS: true, HTTP2: true, Protocol: server.HTTP, Command: socks.Associate,
				Target: socks.Addr{IP: target.Addr(), Port: 80}, Via: "v", Proxy: "p",
			},
			fmt.Errorf("%w: more", server.Denied),
			`level=INFO msg=session id=9223372036854775808 listener="" client=192.0.2.1:1234 through=192.0.2.1:1234 tls=true protocol=http http=2 user="" proof=none command=udp target=[2001:db8::1]:80 dropped=0 via=v proxy=p address="" bound="" rule="" up=0 down=0 took=1.234s reason=denied detail=more`,
			`level":"INFO","msg":"session","id":9223372036854775808,"listener":"","client":"192.0.2.1:1234","through":"192.0.2.1:1234","tls":true,"protocol":"http","http":2,"user":"","proof":"none","command":"udp","target":"[2001:db8::1]:80","dropped":0,"via":"v","proxy":"p","address":"","bound":"","rule":"","up":0,"down":0,"took":"1.234s","reason":"denied","detail":"more"}`,
		},
		{
			"BIND",
			server.Record{ID: 2, Client: client, Protocol: server.SOCKS4, Command: socks.Bind, Primary: "held", Target: socks.Addr{IP: target.Addr(), Port: 80}},
			server.TimedOut,
			`level=INFO msg=session id=2 listener="" client=192.0.2.1:1234 protocol=socks4 user="" proof=none command=bind target=[2001:db8::1]:80 primary=held address="" bound="" rule="" up=0 down=0 took=1.234s reason=timed-out`,
			`level":"INFO","msg":"session","id":2,"listener":"","client":"192.0.2.1:1234","protocol":"socks4","user":"","proof":"none","command":"bind","target":"[2001:db8::1]:80","primary":"held","address":"","bound":"","rule":"","up":0,"down":0,"took":"1.234s","reason":"timed-out"}`,
		},
		{
			"garbage",
			server.Record{ID: 3, Client: client},
			errors.Join(server.Garbage),
			`level=INFO msg=session id=3 listener="" client=192.0.2.1:1234 up=0 down=0 took=1.234s reason=garbage`,
			`level":"INFO","msg":"session","id":3,"listener":"","client":"192.0.2.1:1234","up":0,"down":0,"took":"1.234s","reason":"garbage"}`,
		},
	} {
		for format, want := range map[string]string{"text": tt.text, "json": tt.json} {
			t.Run(tt.name+", "+format, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var written strings.Builder
					log := newLogger(stream{Writer: &written}, config.Log{Format: format})
					s := server.NewSession(tt.record)
					s.Started = time.Now()
					time.Sleep(1234400 * time.Microsecond)
					log.sessions.Closed(s, tt.reason)
					log.queue.close()
					got := strings.TrimSuffix(written.String(), "\n")
					if got = got[max(0, strings.Index(got, "level")):]; got != want { // before it is the time, in the zone of whoever runs this
						t.Errorf("the line is\n%s\nwant\n%s", got, want)
					}
				})
			})
		}
	}
}

// A level above that of sessions leaves their lines out.
func TestSessionLineBelowTheLevel(t *testing.T) {
	var written strings.Builder
	log := newLogger(stream{Writer: &written}, config.Log{Level: "warn"})
	log.sessions.Closed(&server.Session{}, nil)
	log.queue.close()
	if written.Len() > 0 {
		t.Errorf("a line was written: %s", &written)
	}
}
