package access

import (
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// What a SOCKS 5 client has to show on the listener lan.
func TestLogin(t *testing.T) {
	password := []server.Proof{server.Password}
	anyName := &Users{Any: true}
	for _, c := range []struct {
		name  string
		rules []Rule
		want  server.Login
	}{
		{"no rules", nil, server.LoginNone},
		{"nobody is asked", []Rule{everybody}, server.LoginNone},
		{"everybody denied", []Rule{nothing}, server.LoginNone},
		{"by password", []Rule{byPassword}, server.LoginRequired},
		{"by password, no user asked for", []Rule{{Proofs: password}}, server.LoginRequired},
		{"by password or a claim, which SOCKS 5 has not", []Rule{{Users: anyName, Proofs: []server.Proof{"password", "claimed"}}}, server.LoginRequired},
		{"by password, the rest denied", []Rule{byPassword, nothing}, server.LoginRequired},
		{"by password, the rest allowed", []Rule{byPassword, everybody}, server.LoginOptional},
		{"everybody, then by password", []Rule{everybody, byPassword}, server.LoginOptional},
		{"by password, some ports allowed", []Rule{byPassword, {Ports: onPort25.Ports}}, server.LoginOptional},
		{"by password or ident", []Rule{byPassOrIdent}, server.LoginOptional},
		{"by default", []Rule{fredByDefault}, server.LoginOptional},
		{"by ident", []Rule{fredByIdent}, server.LoginNone},
		{"by a claim", []Rule{fredByClaim}, server.LoginNone},
		{"some by password, some by ident", []Rule{byPassword, fredByIdent}, server.LoginOptional},
		{"by password or certificate", []Rule{{Proofs: []server.Proof{"password", "certificate"}}}, server.LoginOptional},
		{"some are denied by password", []Rule{notPassword, everybody}, server.LoginOptional},
		{"some names are denied", []Rule{notFred, everybody}, server.LoginOptional},
		{"only denied", []Rule{notPassword}, server.LoginRequired},

		{"elsewhere", []Rule{{Listeners: []string{"wan"}, Proofs: password}, everybody}, server.LoginNone},
		{"elsewhere everybody", []Rule{{Listeners: []string{"wan"}}, byPassword}, server.LoginRequired},
		{"another protocol", []Rule{{Protocols: []server.Protocol{server.HTTP}, Proofs: password}, everybody}, server.LoginNone},
		{"another protocol for everybody", []Rule{{Protocols: []server.Protocol{server.SOCKS4}}, byPassword}, server.LoginRequired},
		{"another source", []Rule{{From: from("10.0.0.0/8"), Proofs: password}, everybody}, server.LoginNone},
		{"another source for everybody", []Rule{{From: from("10.0.0.0/8")}, byPassword}, server.LoginRequired},
		{"this source", []Rule{{From: from("192.0.2.0/24"), Proofs: password}}, server.LoginRequired},

		{"behind a wall", []Rule{nothing, byPassword}, server.LoginNone},
		{"in front of a wall", []Rule{byPassword, nothing, everybody}, server.LoginRequired},
		{"a wall with a hole: commands", []Rule{byPassword, {Deny: true, Commands: []socks.Command{socks.Bind}}, everybody}, server.LoginOptional},
		{"a wall with a hole: ports", []Rule{byPassword, {Deny: true, Ports: onPort25.Ports}, everybody}, server.LoginOptional},
		{"a wall with a hole: addresses", []Rule{byPassword, {Deny: true, To: to("internet")}, everybody}, server.LoginOptional},
		{"a wall with a hole: users", []Rule{byPassword, {Deny: true, Users: anyName}, everybody}, server.LoginOptional},
		{"a wall elsewhere", []Rule{byPassword, {Deny: true, From: from("10.0.0.0/8")}, everybody}, server.LoginOptional},
	} {
		p := NewPasswords(newPolicy(nil, c.rules...), &UsersFile{}, nil)
		if got := p.Login("lan", server.SOCKS5, netip.MustParseAddr("192.0.2.1")); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
