package config

import "testing"

func TestVeil(t *testing.T) {
	for text, want := range map[string]string{
		`socks5://alice:wonder@gw:1080`:                                    `socks5://alice:******@gw:1080`,
		`socks5://alice:w@nd:r@gw`:                                         `socks5://alice:******@gw`,
		`  - "http://a:b c'd@gw"`:                                          `  - "http://a:*****@gw"`,
		`proxies: alice:wonder@gw:1080`:                                    `proxies: alice:******@gw:1080`,
		`proxies: socks5:/alice:wonder@gw`:                                 `proxies: socks5:*************@gw`,
		`socks5://a:\u00fcber@gw`:                                          `socks5://a:*********@gw`,
		`socks5://a:über@gw`:                                               `socks5://a:****@gw`,
		`["socks5://a:b@gw1", "socks5://c:d@gw2"]`:                         `["socks5://a:*********************@gw2"]`,
		`socks5://gw:1080`:                                                 `socks5://gw:1080`,
		`socks5://alice@gw:1080`:                                           `socks5://alice@gw:1080`,
		`ledger: postgres://a:b@db/x?password=secr%C3%A4t&sslmode=disable`: `ledger: postgres://a:*@db/x?password=***********&sslmode=disable`,
		`postgres://db/x?sslpassword=a b"c`:                                `postgres://db/x?sslpassword=*****`,
		`users: "@staff"`:                                                  `users: "@staff"`,
		`{listen: "127.0.0.1:1080", users: "@staff"}`:                      `{listen: "127.0.0.1:1080", users: "@staff"}`,
		`@`:  `@`,
		`:@`: `:@`,
		``:   ``,
	} {
		if got := veil(text); got != want {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
	}
}
