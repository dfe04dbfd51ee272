//go:build linux

package main_test

import (
	"io"
	"net"
	"net/http"
	"testing"
)

// megabyte is a little more, so that it is no multiple of any buffer.
const megabyte = 1<<20 + 3

// TestPipingClients sends a megabyte through each client that joins its
// standard input and output with a connection, says that this was all, and
// gets it back changed.
func TestPipingClients(t *testing.T) {
	paperSlow(t)
	const inner, outer, name = officeProxy, officeOutside, officeName
	clients := []struct {
		client  string
		want    paperSession
		command func(t *testing.T, port string) []string
	}{
		{"ncat", paperSession{Protocol: "socks4"}, func(_ *testing.T, port string) []string {
			return []string{"ncat", "--proxy", inner, "--proxy-type", "socks4", outer, port}
		}},
		{"ncat with a user", paperSession{Protocol: "socks4", User: "alice"}, func(_ *testing.T, port string) []string {
			return []string{"ncat", "--proxy", inner, "--proxy-type", "socks4", "--proxy-auth", "alice", outer, port}
		}},
		{"ncat with a name", paperSession{Protocol: "socks4a"}, func(_ *testing.T, port string) []string {
			return []string{"ncat", "--proxy", inner, "--proxy-type", "socks4", "--proxy-dns", "remote", name, port}
		}},
		{"nc", paperSession{Protocol: "socks4"}, func(_ *testing.T, port string) []string {
			return []string{"nc.openbsd", "-N", "-X", "4", "-x", inner, outer, port}
		}},
		{"socat SOCKS4", paperSession{Protocol: "socks4", User: "alice"}, func(_ *testing.T, port string) []string {
			return []string{"socat", "-t", "30", "-", "SOCKS4:" + officeWall + ":" + outer + ":" + port + ",socksport=1080,socksuser=alice"}
		}},
		{"socat SOCKS4A", paperSession{Protocol: "socks4a", User: "alice"}, func(_ *testing.T, port string) []string {
			return []string{"socat", "-t", "30", "-", "SOCKS4A:" + officeWall + ":" + name + ":" + port + ",socksport=1080,socksuser=alice"}
		}},
		{"proxychains4", paperSession{Protocol: "socks4"}, func(t *testing.T, port string) []string {
			return []string{"proxychains4", "-q", "-f", proxychainsConf(t), "nc.openbsd", "-N", outer, port}
		}},
		{"proxychains4 with a name", paperSession{Protocol: "socks4a"}, func(t *testing.T, port string) []string {
			return []string{"proxychains4", "-q", "-f", proxychainsConf(t), "nc.openbsd", "-N", name, port}
		}},
		{"tsocks", paperSession{Protocol: "socks4"}, func(t *testing.T, port string) []string {
			conf := writeFile(t, "tsocks.conf", []byte("server = "+officeWall+"\nlocal = 10.1.0.0/255.255.255.0\nserver_type = 4\nserver_port = 1080\n"))
			return []string{"env", "TSOCKS_CONF_FILE=" + conf, "tsocks", "nc.openbsd", "-N", outer, port}
		}},
	}
	for _, test := range clients {
		t.Run(test.client, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, officeRules)
			sent := paperBytes(megabyte)
			port := o.mirror(t)
			got := o.run(t, sent, nil, test.command(t, port)...)
			sameBytes(t, "there and back", got, insideOut(sent))

			want := test.want
			want.Command, want.Address, want.Reason = "connect", net.JoinHostPort(outer, port), "closed"
			want.Target = want.Address
			if want.Protocol == "socks4a" {
				want.Target = net.JoinHostPort(name, port)
			}
			want.Up, want.Down = megabyte, megabyte
			o.session(t, want)
		})
	}
}

func proxychainsConf(t *testing.T) string {
	t.Helper()
	return writeFile(t, "proxychains.conf", []byte("strict_chain\nproxy_dns\n[ProxyList]\nsocks4 "+officeWall+" 1080\n"))
}

// serveHTTP runs a web server outside. It shows the page, and puts what it is
// sent into received.
func (o *office) serveHTTP(t *testing.T, page []byte, received chan<- []byte) {
	t.Helper()
	server := &http.Server{ReadHeaderTimeout: paperPatience, Handler: officePages(page, received)}
	ln := o.outside.listen(t, officeOutside+":80")
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
}

func officePages(page []byte, received chan<- []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = w.Write(page) // the client tells
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 2*megabyte))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		received <- body
	}
}
