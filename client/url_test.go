package client_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/client"
)

func TestNewReadsURLs(t *testing.T) {
	long := strings.Repeat("u", 255)
	for url, want := range map[string]struct{ address, userID string }{
		"socks4://gw":                         {"gw:1080", ""},
		"socks4a://gw:":                       {"gw:1080", ""},
		"SOCKS4A://gw:9050/":                  {"gw:9050", ""},
		"socks4://alice@192.0.2.1:01081":      {"192.0.2.1:1081", "alice"},
		"socks4://[2001:db8::1]":              {"[2001:db8::1]:1080", ""},
		"socks4://a%40b%3Ac%ff@gw":            {"gw:1080", "a@b:c\xff"},
		"socks4://" + long + "@gw":            {"gw:1080", long},
		"socks4a://%E2%82%AC@proxy.example:1": {"proxy.example:1", "€"},
	} {
		t.Run(url, func(t *testing.T) {
			userID := make(chan string, 1)
			p := play(t, func(t *testing.T, c net.Conn) { userID <- readRequest(t, c).UserID })
			if _, err := dialerFor(t, url, p).Dial("tcp", "192.0.2.7:80"); err == nil {
				t.Fatal("no error though the proxy closed")
			}
			if got := <-userID; got != want.userID || p.address != want.address {
				t.Errorf("address %q, userid %q; want %q, %q", p.address, got, want.address, want.userID)
			}
		})
	}
}

func TestNewRefusesURLs(t *testing.T) {
	const secret = "hunter2"
	for _, url := range []string{
		"",
		"gw:1080",
		"//gw",
		"ftp://gw",
		secret + "://gw",
		"alice:" + secret + "@gw:1080",
		"socks4:gw",
		"socks4://",
		"socks4://:1080",
		"socks4://alice@:1080",
		"socks4://alice:" + secret,
		"socks4://alice:" + secret + "@gw",
		"socks4://alice:" + secret + "@gw:port",
		"socks4://alice:%zz" + secret + "@gw",
		"socks4://alice:%00" + secret + "@gw",
		"socks4://alice:" + secret + "/x@gw",
		"socks4://alice:1/" + secret + "@gw",
		"socks4://alice:" + secret + "#x@gw",
		"socks4://alice:1#" + secret + "@gw",
		"socks4://alice:1?" + secret + "@gw",
		"socks4://alice:@gw",
		"socks4://gw/path",
		"socks4://gw?",
		"socks4://gw?x=" + secret,
		"socks4://gw#" + secret,
		"socks4://gw:0",
		"socks4://gw:65536",
		"socks4://alice%00@gw",
		"socks4://" + strings.Repeat("u", 256) + "@gw",
		"socks4://gw\n",
		"socks4://[::1",
	} {
		d, err := client.New(url)
		if err == nil || d != nil {
			t.Errorf("%q was accepted", url)
			continue
		}
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q: the error shows the password: %v", url, err)
		}
		if errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%q: %v matches errors.ErrUnsupported", url, err)
		}
	}
}

func TestNewNamesSchemesToCome(t *testing.T) {
	for _, scheme := range []string{"socks5", "socks5h", "http", "https"} {
		_, err := client.New(scheme + "://alice:hunter2@gw")
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v does not match errors.ErrUnsupported", scheme, err)
			continue
		}
		if text := err.Error(); !strings.Contains(text, scheme+" ") || strings.Contains(text, "hunter2") {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

// FuzzNew holds three promises for any text: no panic, a Dialer or an error but
// not both, and nothing of the text in the error.
func FuzzNew(f *testing.F) {
	const secret = "hunter2hunter2"
	for _, seed := range [][2]string{
		{"socks4://alice:", "@gw:1080"},
		{"socks4a://gw/", ""},
		{"", "://gw"},
		{"socks4://gw:1080?", "#"},
		{"socks4://alice:%", "@[::1%25eth0]:1"},
		{"socks5://u:", "@gw"},
		{"socks4://", "@gw:65536"},
		{"socks4://[", "]"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		d, err := client.New(before + secret + after)
		if (d == nil) == (err == nil) {
			t.Fatalf("Dialer %v and error %v", d, err)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Fatalf("the error repeats the URL: %v", err)
		}
	})
}
