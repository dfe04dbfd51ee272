package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/server"
)

func TestProxies(t *testing.T) {
	got, err := client.Proxies("socks5h://alice:secret@gw1, https://[2001:db8::1],socks4://bob@gw3:9050,http://a:@b")
	want := []client.Proxy{
		{Scheme: "socks5h", Host: "gw1", Port: "1080", SendsNames: true, HasUser: true, HasSecret: true},
		{Scheme: "https", Host: "2001:db8::1", Port: "443", SendsNames: true},
		{Scheme: "socks4", Host: "gw3", Port: "9050", HasUser: true},
		{Scheme: "http", Host: "b", Port: "1080", SendsNames: true, HasUser: true},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if got, want := want[1].String(), "https://[2001:db8::1]:443"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if _, err := client.Proxies("http://gw,socks5://alice:secret@"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}

// TestProbe: a proxy that serves, one that is not there, that wants another login,
// that is something else, and that says nothing.
func TestProbe(t *testing.T) {
	open := startSallyport(t, new(server.Server))
	locked := startSallyport(t, &server.Server{Authenticator: aliceAlone{}})
	greeter := listenLocal()
	defer greeter.Close()
	go func() {
		for {
			c, err := greeter.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "220 mail.example ESMTP\r\n")
			c.Close()
		}
	}()
	for _, test := range []struct {
		url  string
		want error // nil: it serves
	}{
		{"socks4://" + open, nil},
		{"http://" + open, nil},
		{"socks5://" + open, nil},
		{"socks5h://alice:secret@" + locked, nil},
		{"http://" + open + ",socks5://alice:secret@" + locked, nil},
		{"socks5://alice:other@" + locked, client.ErrLogin},
		{"socks5://" + locked, client.ErrLogin},
		{"http://" + freeAddr(t).String(), client.ErrProxy},
		{"socks5://" + open + ",http://" + freeAddr(t).String(), client.ErrProxy},
		{"https://" + open, client.ErrProxy},
		{"socks5://" + greeter.Addr().String(), errAny},
	} {
		d, err := client.New(test.url)
		if err != nil {
			t.Fatal(err)
		}
		err = d.Probe(t.Context())
		if err == nil && test.want != nil || !errors.Is(err, test.want) && !errors.Is(test.want, errAny) {
			t.Errorf("%s: %v, want %v", test.url, err, test.want)
		}
	}

	silent := listenLocal()
	defer silent.Close()
	d, err := client.New("socks5://" + silent.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := d.Probe(ctx); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	var timeout net.Error
	if err := d.Probe(ctx); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Error(err)
	}
}

var errAny = errors.New("any error")
