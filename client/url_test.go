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
		"socks4://no spaces",
		"socks4://a,gw",
		"socks4://gw,",
	} {
		checkRefused(t, url, secret)
	}
}

func TestNewRefusesLoginsAndChains(t *testing.T) {
	const secret = "hunter2"
	for _, url := range []string{
		"socks5://:" + secret + "@gw",
		"socks5://alice%00:" + secret + "@gw",
		"socks5://alice:" + secret + "%00@gw",
		"socks5://" + strings.Repeat("u", 256) + ":" + secret + "@gw",
		"socks5h://u:" + strings.Repeat(secret, 40) + "@gw",
		"socks5://alice:" + secret + "@gw/path",
		"http://al%3Aice:" + secret + "@gw",
		"http://alice:" + secret + "%0a@gw",
		"https://alice%7f:" + secret + "@gw",
		"http://alice:" + secret + "@gw:port",
		"http://gw/" + secret,
		"socks5://alice:" + secret + "@gw,ftp://" + secret,
		"socks5://alice:" + secret + "@gw,socks4://bob:" + secret + "@gw",
		"socks5://gw,,socks4://gw",
	} {
		checkRefused(t, url, secret)
	}
}

// checkRefused holds that New refuses a URL without a word of what is in it.
func checkRefused(t *testing.T, url, secret string) {
	t.Helper()
	d, err := client.New(url)
	if err == nil || d != nil {
		t.Errorf("%q was accepted", url)
		return
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("%q: the error shows the password: %v", url, err)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%q: %v matches errors.ErrUnsupported", url, err)
	}
}

func TestDefaultPorts(t *testing.T) {
	for url, want := range map[string]string{
		"socks4://gw":           "gw:1080",
		"socks5://gw":           "gw:1080",
		"socks5h://gw":          "gw:1080",
		"http://gw":             "gw:1080", // not 80: as curl has it
		"http://gw:80/":         "gw:80",
		"https://gw":            "gw:443",
		"socks5://@gw:1":        "gw:1", // no user is no login
		"HTTPS://[2001:db8::1]": "[2001:db8::1]:443",
	} {
		p := play(t, func(*testing.T, net.Conn) {})
		if _, err := dialerFor(t, url, p).Dial("tcp", "192.0.2.7:80"); err == nil {
			t.Errorf("%s: no error though the proxy closed", url)
		}
		if p.address != want {
			t.Errorf("%s: dialled %s, want %s", url, p.address, want)
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
		{"http://u:", "@gw"},
		{"https://u:%00", "@gw"},
		{"socks4://a,socks5h://u:", ",x@b, http://c"},
		{"socks5://u:p@a,", "://gw"},
		{"socks5://:", "@gw"},
		{"socks5://a%00:", "@gw"},
		{"socks5://" + strings.Repeat("u", 256) + ":", "@gw"},
		{"socks4://a b", ""},
		{"socks4:", ""},
		{"http://u:", "%0a@gw"},
		{"http://gw/", ""},
		{"http://gw:0", ""},
		{"ftp://", "@gw"},
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
