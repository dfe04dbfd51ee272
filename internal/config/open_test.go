package config

import (
	"errors"
	"net/netip"
	"testing"
)

// What lets anybody in, on a public address.
func TestOpenProxy(t *testing.T) {
	for _, c := range []struct {
		rule string
		open bool
	}{
		{"allow: all", true},
		{"allow: all, from: any", true},
		{"allow: all, from: internet", true},
		{"allow: all, from: [10.0.0.0/8, any]", true},
		{"allow: all, from: 0.0.0.0/0", true},
		{"allow: all, from: '::/0'", true},
		{"allow: all, from: '2000::/3'", true},
		{"allow: all, from: [0.0.0.0/1, 128.0.0.0/1]", true},
		{"allow: all, from: [0.0.0.0/2, 128.0.0.0/1, 10.0.0.0/8]", true},
		{"allow: all, from: ['2000::/4', '3000::/4']", true},
		{"allow: all, from: ['::ffff:0.0.0.0/97', 128.0.0.0/1]", true},
		{"allow: all, users: any", true},
		{"allow: all, users: alice, proof: claimed", true},
		{"allow: all, users: alice, proof: [ident, claimed]", true},
		{"allow: all, proof: claimed", true},
		{"allow: all, listeners: lan", true},
		{"allow: all, to: 10.0.0.1, ports: 80", true},
		{"allow: all, from: loopback", false},
		{"allow: all, from: private", false},
		{"allow: all, from: [10.0.0.0/8, 'fd00::/8', 192.0.2.1]", false},
		{"allow: all, from: [128.0.0.0/3, 160.0.0.0/4, 160.0.0.0/4, 128.0.0.0/3]", false},
		{"allow: all, users: alice", false},
		{"allow: all, users: '@staff'", false},
		{"allow: all, users: alice, proof: ident", false},
		{"allow: all, proof: ident", true},
		{"allow: all, proof: password", false},
		{"allow: all, users: any, proof: password", false},
		{"allow: all, users: any, proof: [password, ident]", true}, // anybody's identd says what he likes
		{"allow: all, users: alice, proof: ident, from: 10.0.0.0/8", false},
		{"allow: all, from: 128.0.0.0/1", true},
		{"allow: all, users: any, proof: [password, claimed]", true},
		{"allow: all, listeners: home", false},
		{"deny: all", false},
	} {
		file := "listeners: [{name: lan, listen: '192.0.2.1:1080'}, {name: home, listen: 'localhost:0'}]\nusers: {file: users}\ngroups: {staff: [bob]}\nrules: {" + c.rule + "}\n"
		if !c.open {
			parse(t, file)
			continue
		}
		checkFaults(t, file, Override{}, []string{
			"1:33 \"192.0.2.1:1080\" is open to the world: the rule \"all\" does not limit who may use it | limit the rule with `from`, or with `proof: password`; if it is meant, write `open_to_the_world: true`",
		})
	}
}

// Which addresses are public, and how to mean it.
func TestOpenListener(t *testing.T) {
	for _, c := range []struct {
		listener string
		open     bool
	}{
		{"listen: 0.0.0.0:1080", true},
		{"listen: ':1080'", true},
		{"listen: '[::]:1080'", true},
		{"listen: '[fe80::1%eth0]:1080'", true},
		{"listen: 10.0.0.1:1080", true},
		{"listen: gw.example.com:1080", true},
		{"listen: localhost.example.com:1080", true},
		{"listen: ':1080', open_to_the_world: false", true},
		{"listen: ':1080', open_to_the_world: true", false},
		{"listen: 127.0.0.1:1080", false},
		{"listen: 127.9.9.9:1080", false},
		{"listen: '[::1]:1080'", false},
		{"listen: '[::ffff:127.0.0.1]:1080'", false},
		{"listen: LOCALHOST:1080", false},
	} {
		_, err := Parse("f.yaml", []byte("listeners: {"+c.listener+"}\nrules: [{deny: x, ports: 25}, {allow: all}]\n"), Override{})
		if faults, ok := errors.AsType[Errors](err); ok != c.open || len(faults) > 1 {
			t.Errorf("%s: %v", c.listener, err)
		}
	}
	parse(t, "open_to_the_world: true\nlisteners: {listen: ':1080'}\nrules: {allow: all}\n")
	parse(t, "listeners: {listen: ':1080'}\nrules: []\n")
	parse(t, "listeners: {listen: ':1080'}\n")
}

// A rule that could not be read says nothing about who it lets in.
func TestOpenAfterFault(t *testing.T) {
	checkFaults(t, "listeners: {listen: ':1080'}\nrules: {allow: all, from: 10.0.0.0.0/8}\n", Override{}, []string{
		`2:27 "10.0.0.0.0" is not an IP address | write all four numbers of an IPv4 address`,
	})
}

func TestShare(t *testing.T) {
	all := netip.MustParsePrefix("0.0.0.0/0")
	for _, c := range []struct {
		parts []string
		want  float64
	}{
		{nil, 0},
		{[]string{"0.0.0.0/0"}, 1},
		{[]string{"10.0.0.0/8"}, 1.0 / 256},
		{[]string{"10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8", "11.0.0.0/8"}, 2.0 / 256},
		{[]string{"::/0", "fd00::/8"}, 0},
	} {
		var parts []netip.Prefix
		for _, p := range c.parts {
			parts = append(parts, netip.MustParsePrefix(p))
		}
		if got := share(parts, all); got != c.want {
			t.Errorf("share of %v is %v, want %v", c.parts, got, c.want)
		}
	}
}
