package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Each mistake is a file and all the faults that must be found in it, as
// "line:column problem | hint".
var mistakes = []struct {
	name string
	file string
	want []string
}{
	// The top level.
	{"unknown section", "listner: x", []string{`1:1 unknown key "listner" | did you mean "listeners"?`}},
	{"unknown section, nothing near", "colour: red", []string{`1:1 unknown key "colour" | the keys here are admin, groups, hide_address, include, ledger, limits, listeners, log, open_to_the_world, pac, resolver, rules, schedules, sets, ssh, timeouts, upstreams, users, virtual_ports`}},
	{"virtual port without a name", "virtual_ports: {}", []string{
		"1:16 the virtual port has no name | write `name: intranet`",
		"1:16 nobody may offer the virtual port | write `users: bob`: who may offer it, over ssh",
	}},
	{"virtual ports that are something else", "listeners: {name: lan, listen: 127.0.0.1:1080}\nusers: {file: users}\nvirtual_ports:\n  - {name: lan, users: bob}\n  - {name: a, users: [\"@b\"]}\n  - {name: A., users: any}\n  - {name: 10.1.2.3, users: any}\n  - {name: localhost, users: any}\n  - {name: a b, users: any}", []string{
		`4:12 something is called "lan" already | it is in line 1`,
		`5:23 no group is called "b" | there are none in the settings`,
		`6:12 something is called "a" already | it is in line 5`,
		`7:12 "10.1.2.3" would be taken for an address | write a name such as intranet`,
		`8:12 localhost is this machine | write a name such as intranet`,
		`9:12 "a b" is not a host name | write a name such as www.example.com`,
	}},
	{"virtual port on all addresses for datagrams, and where another listens", "listeners: {listen: 127.0.0.1:1080}\nusers: {file: users}\nvirtual_ports:\n  - {name: a, users: any, listen: udp/:53}\n  - {name: b, users: any, listen: [127.0.0.1:1081, 127.0.0.1:1080]}", []string{
		"4:35 a listener for UDP has an address of its own, from which its answers come | write udp/192.168.1.1:53; several make a list",
		"5:52 two listeners on the same address | the other one is in line 1",
	}},
	{"virtual port without users", "virtual_ports: {name: a, users: bob}", []string{"1:33 who offers a virtual port has to sign in, and there are no users | write `users: {file: users}`; `sallyport user add NAME --file users` puts somebody into it"}},
	{"host key", "ssh: {host_key: \"a\\0b\"}", []string{`1:17 the name of a file cannot hold a NUL byte | `}},
	{"key without users", "listeners: {listen: 127.0.0.1:1080, protocols: [ssh]}\nrules: {allow: a, proof: key}", []string{"2:26 the rule asks for a key, and there are no users | write `users: {file: users}`; `sallyport user key NAME FILE` gives one of them a key"}},
	{"ledger: on", "ledger: maybe", []string{"1:9 expected off, sqlite: and the name of a file, or postgres: and a database, found \"maybe\" | write `sqlite:/var/lib/sallyport/ledger.db` or `postgres://USER@HOST/DATABASE`"}},
	{"ledger in a database: passwords", "ledger: {store: 'postgres://u@db/x?password=s', node: \"a\\tb\"}", []string{
		"1:17 a password does not stand behind the question mark | write `postgres://USER:PASSWORD@HOST/DATABASE`, or keep it in ~/.pgpass",
		"1:55 the name of a node is 1 to 100 letters, digits and signs | leave it out: the name of the machine will do",
	}},
	{"people in the ledger", "users: {file: f.yaml, ledger: true}\ngroups: {a: {ledger: 1}, b: {}, c: {ledger: true}}\nledger: off", []string{
		"1:8 the users are in a file, or in the ledger | write `users: {file: users}` or `users: {ledger: true}`",
		"1:31 the ledger is to have this, and `ledger` is off | name a ledger: `ledger: postgres://USER@HOST/DATABASE`",
		"2:22 expected true, found \"1\" | leave it out where the ledger does not have it",
		"2:29 the group has no members | write names: `[alice, bob]`, or `{ledger: true}` if the ledger has them",
		"2:45 the ledger is to have this, and `ledger` is off | name a ledger: `ledger: postgres://USER@HOST/DATABASE`",
	}},
	{"shared", "limits: {a: {rate: 1 Mbit/s, per: user, shared: true}, b: {sessions: 1, per: user, shared: true}, c: {rate: 1 Mbit/s, per: session, shared: true}}", []string{
		"1:49 a rate is shared by the servers of a PostgreSQL ledger, and there is none | leave it out, or write `ledger: postgres://USER@HOST/DATABASE`",
		"1:92 `shared` belongs to a rate | leave it out: quotas are shared where the ledger is",
		"1:92 a rate is shared by the servers of a PostgreSQL ledger, and there is none | leave it out, or write `ledger: postgres://USER@HOST/DATABASE`",
		"1:141 a session is on one server only | leave it out, or write `per: user` or another",
		"1:141 a rate is shared by the servers of a PostgreSQL ledger, and there is none | leave it out, or write `ledger: postgres://USER@HOST/DATABASE`",
	}},
	{"ledger in a database: no URL", "ledger: 'postgres://u:%zz@db/x'", []string{
		"1:9 the ledger's database has a URL that cannot be read | write `postgres://USER@HOST/DATABASE`",
	}},
	{"ledger without a file", "ledger: 'sqlite:'", []string{"1:9 the ledger needs the name of a file | write `sqlite:/var/lib/sallyport/ledger.db`"}},
	{"ledger: times", "ledger: {flush: 1ms, keep: {hours: soon, days: 200y}, when_lost: cry}", []string{
		`1:17 "1ms" is out of bounds | from 100ms to 1m`,
		`1:36 "soon" is not a time | write 90s, 10m, 1h30m or 2d`,
		`1:48 "200y" is not a time | write 90s, 10m, 1h30m or 2d`,
		`1:66 "cry" is not what becomes of sessions while the ledger is away | what becomes of sessions while the ledger is away is one of allow, deny`,
	}},
	{"ledger keeps minutes for longer than days", "ledger: {keep: {minutes: 70d}}", []string{
		"1:16 what is finer would be kept for longer than what is coarser | the defaults are `{minutes: 2d, hours: 60d, days: 1095d}`",
	}},
	{"section twice", "log: {level: info}\nadmin: off\nlog: {level: warn}", []string{`3:1 the key "log" stands here twice | keep one of them`}},
	{"section without a value", "rules:\nlog: {level: info}", []string{`1:1 "rules" has no value | give it a value, or leave the key out`}},
	{"null", "timeouts: ~", []string{`1:1 "timeouts" has no value | give it a value, or leave the key out`}},
	{"a list at the top", "- log", []string{`1:1 expected keys with values, found a list | the keys here are admin, groups, hide_address, include, ledger, limits, listeners, log, open_to_the_world, pac, resolver, rules, schedules, sets, ssh, timeouts, upstreams, users, virtual_ports`}},
	{"text at the top", "hello", []string{`1:1 expected keys with values, found "hello" | the keys here are admin, groups, hide_address, include, ledger, limits, listeners, log, open_to_the_world, pac, resolver, rules, schedules, sets, ssh, timeouts, upstreams, users, virtual_ports`}},
	{"admin page for everybody", "admin: {listen: 0.0.0.0:1088}", []string{`1:17 "0.0.0.0:1088" can be reached by others, and passwords would come to it in the clear | write ` + "`tls: {certificate: FILE, key: FILE}`" + ` beside it, or an address of this machine such as 127.0.0.1:1088`}},
	{"admin page without a port", "admin: {listen: 127.0.0.1}", []string{`1:17 "127.0.0.1" is not an address with a port | write 127.0.0.1:1080`}},
	{"admin page that asks for certificates", "admin: {tls: {certificate: c, key: k, tls_only: true}}", []string{`1:39 unknown key "tls_only" | the keys here are certificate, key`}},
	{"admin page, bad names", "admin: {hosts: [a.example, 'a b'], viewers: [[x]], file: [y]}", []string{
		`1:28 "a b" is not a host name | write a name such as www.example.com`, `1:46 expected text, found a list | `, `1:58 expected text, found a list | `,
	}},
	{"a virtual port where the usual listener is", "users: {file: f}\nvirtual_ports: {name: a, users: any, listen: ':1080'}", []string{
		"2:46 two listeners on the same address | the other one is the usual one, 127.0.0.1:1080, which is there where no `listeners` are written",
	}},
	{"a virtual port called as the usual listener", "users: {file: f}\nvirtual_ports: {name: default, users: any, listen: ':81'}", []string{
		`2:23 something is called "default" already | it is the usual one, 127.0.0.1:1080, which is there where no ` + "`listeners` are written",
	}},
	{"admin on", "admin: on", []string{"1:8 expected off or keys with values, found \"on\" | write `admin: off` or `admin: {listen: 127.0.0.1:1088}`"}},
	{"pac on", "pac: on", []string{"1:6 expected off or keys with values, found \"on\" | write `pac: off` or `pac: {direct: [private, \"*.corp.example\"]}`"}},
	{"pac of nothing", "pac: {}", []string{"1:6 `direct` is missing | write `pac: {direct: private}`, or leave `pac` out"}},
	{"pac, bad places", "pac: {direct: [any, loopback, '@ads', a_b!, 'x.example:80']}", []string{
		`1:16 "any" would leave the proxy nothing to do | what can stand here are host names, *.suffixes, networks and the word private; ` + "`pac: off`" + ` has no file at all`,
		"1:21 a browser always reaches its own machine directly | leave loopback out",
		"1:31 a set cannot stand here: browsers would have to read all of it | what can stand here are host names, *.suffixes, networks and the word private",
		`1:39 "a_b!" is not a host name | write a name such as www.example.com`,
		`1:45 "x.example:80" holds a port | write "x.example" here, and the port in ` + "`ports`",
	}},
	{"pac with too many places", "pac: {direct: [" + strings.Repeat("a.example, ", 1001) + "]}", []string{"1:15 over 1000 entries, which browsers read for each page | a suffix such as *.example.com or a network stands for many"}},
	{"admin without a socket", "admin: {socket: }", []string{`1:9 "socket" has no value | give it a value, or leave the key out`}},
	{"a socket's name that does not fit", "admin: {socket: /" + strings.Repeat("x", 100) + "}", []string{"1:17 the name of a socket has more than 100 bytes, or a NUL among them | write a shorter one"}},
	{"bool as yes", "hide_address: yes", []string{`1:15 expected true or false, found "yes" | write true, without quotes`}},
	{"bool in quotes", `hide_address: "false"`, []string{`1:15 expected true or false, found "false" | write false, without quotes`}},
	{"bool in capitals", "open_to_the_world: True", []string{`1:20 expected true or false, found "True" | write true, without quotes`}},
	{"bool as a list", "hide_address: [true]", []string{`1:15 expected true or false, found a list | `}},

	// Listeners.
	{"no listeners", "listeners: []", []string{`1:12 the list is empty | leave the key out, and the default holds`}},
	{"listener is an address", "listeners: 127.0.0.1:1080", []string{`1:12 expected keys with values, found "127.0.0.1:1080" | the keys here are advertise, bind_ports, during, hide_address, listen, map, name, open_to_the_world, protocols, proxy_protocol, tls, userid_max`}},
	{"listener without address", "listeners:\n  - name: lan", []string{"2:5 the listener has no address | write `listen: 127.0.0.1:1080`"}},
	{"empty listener", "listeners:\n  - \n", []string{`2:3 an entry without a value | `}},
	{"listener without its schedule", "listeners:\n  - listen: 127.0.0.1:1080\n    map: a:25\n    during: day", []string{
		`4:13 no schedule is called "day" | there are none in the settings`,
	}},
	{"everybody as a load balancer", "listeners:\n  - {listen: 127.0.0.1:1, proxy_protocol: any}\n  - {listen: 127.0.0.1:2, proxy_protocol: [private, internet]}\n  - {listen: 127.0.0.1:3, proxy_protocol: [0.0.0.0/1, 128.0.0.0/1]}", []string{
		`2:43 anybody could say that he is any client | list only the load balancers: they are believed`,
		`3:43 anybody could say that he is any client | list only the load balancers: they are believed`,
		`4:43 anybody could say that he is any client | list only the load balancers: they are believed`,
	}},
	{"proxy_protocol as a switch", "listeners: {listen: 127.0.0.1:1, proxy_protocol: true}", []string{`1:50 expected text, found true | write "true" if the word is meant`}},
	{"load balancers that are no networks", "listeners: {listen: 127.0.0.1:1, proxy_protocol: [10.0.0.1/8, lb.example, '@lbs']}", []string{
		`1:51 the network 10.0.0.1/8 has bits set behind its length | write 10.0.0.0/8 for the network, or 10.0.0.1 for the one address`,
		"1:63 \"lb.example\" is not an IP address | what can stand here are addresses, networks, and the words any, internet, loopback, private",
		`1:75 a set cannot stand here | write the networks out`,
	}},
	{"open behind a load balancer", "listeners: {listen: 127.0.0.1:1, proxy_protocol: loopback}\nrules: {allow: all}", []string{
		"1:21 \"127.0.0.1:1\" is open to the world: the rule \"all\" does not limit who may use it | limit the rule with `from`, or with `proof: password`; if it is meant, write `open_to_the_world: true`",
	}},
	{"listen: only a port", "listeners: {listen: 1080}", []string{`1:21 "1080" is not an address with a port | write :1080 for all addresses, or 127.0.0.1:1080 for this machine`}},
	{"listen: no port", "listeners: {listen: 127.0.0.1}", []string{`1:21 "127.0.0.1" is not an address with a port | write 127.0.0.1:1080`}},
	{"listen: IPv6 without brackets", "listeners: {listen: ::1:1080}", []string{`1:21 "::1:1080" is not an address with a port | write an IPv6 address in brackets: "[::1]:1080"`}},
	{"listen: IPv6 without port", "listeners: {listen: '[::1]'}", []string{`1:21 "[::1]" is not an address with a port | write "[::1]:1080"`}},
	{"listen: IPv4 in brackets", "listeners: {listen: '[127.0.0.1]:80'}", []string{`1:21 brackets are for IPv6 addresses | write 127.0.0.1:80`}},
	{"listen: port too high", "listeners: {listen: 127.0.0.1:65536}", []string{`1:21 "65536" is not a port | write a number from 0 to 65535; 0 is any free port`}},
	{"listen: port by name", "listeners: {listen: 127.0.0.1:socks}", []string{`1:21 "socks" is not a port | write a number from 0 to 65535; 0 is any free port`}},
	{"listen: short IPv4", "listeners: {listen: 127.1:1080}", []string{`1:21 "127.1" is not an IP address | write all four numbers of an IPv4 address`}},
	{"listen: no such name", "listeners: {listen: lo_cal-:1080}", []string{`1:21 "lo_cal-" is not a host name | write a name such as www.example.com`}},
	{"listen: udp", "listeners: {listen: udp/127.0.0.1:53}", []string{"1:21 a listener for UDP is a port mapping | write `map: HOST:PORT`; the UDP of SOCKS 5 needs no listener of its own"}},
	{"listen: in a list", "listeners: {listen: [127.0.0.1:1080, 127.0.0.2:x, 127.0.0.1:1080]}", []string{
		`1:38 "x" is not a port | write a number from 0 to 65535; 0 is any free port`,
		`1:51 two listeners on the same address | the other one is in line 1`,
	}},
	{"listen: ranges", "listeners: [{name: a, listen: 127.0.0.1:9-8}, {name: b, listen: 127.0.0.1:0-8}, {name: c, listen: 127.0.0.1:80-90}, {name: d, listen: 127.0.0.1:85-95}]", []string{
		`1:31 the range 9-8 has no two ports | write the lower port first`,
		`1:65 a range of ports begins at 1 | `,
		`1:135 two listeners on the same address | the other one is in line 1`,
	}},
	{"listen: too large a range", "listeners: [{name: a, listen: 127.0.0.1:1-999}, {name: b, listen: [127.0.0.2:1, 127.0.0.1:1000-2000]}, {listen: 127.0.0.1:1-65535}]", []string{
		`1:81 over 1000 listeners, a range of ports counted as many | `,
		`1:113 over 1000 listeners, a range of ports counted as many | `,
	}},
	{"listen: a socket without a name", "listeners: {listen: 'unix:'}", []string{`1:21 the socket has no name | write unix:/run/service.sock`}},
	{"listen twice on one socket", "listeners: [{name: a, listen: unix:/s}, {name: b, listen: 'unix:/s'}]", []string{`1:59 two listeners on the same address | the other one is in line 1`}},
	{"map: nothing", "listeners: {listen: 127.0.0.1:1, map: {choose: random}}", []string{"1:39 the port mapping has no target | write `to: mail.example.com:25`"}},
	{"map: targets", "listeners: {listen: 127.0.0.1:1, map: [a, a:b, 'a:0', 1.2.3:4, 0.0.0.0:1, a:2, A.:2, a_!:1, 'unix:']}", []string{
		`1:40 "a" is not a host with a port | write a target such as mail.example.com:25, or unix:/run/service.sock`,
		`1:43 "b" is not a port | write a number from 0 to 65535; 0 is any free port`,
		`1:48 port 0 leads nowhere | write a number from 1 to 65535`,
		`1:55 "1.2.3" is not an IP address | write all four numbers of an IPv4 address`,
		`1:64 0.0.0.0 is not the address of a machine | write an address such as 192.168.1.9`,
		`1:80 the same target stands here twice | keep one of them`,
		`1:86 "a_!" is not a host name | write a name such as www.example.com`,
		`1:93 the socket has no name | write unix:/run/service.sock`,
	}},
	{"map: words", "listeners: {listen: 127.0.0.1:1, map: {to: 'a:1', choose: fastest, check: 1ms, proxy_protocol: v3, tls: gw.pem, idle: 1s}}", []string{
		"1:39 `idle` is for a mapping of UDP | `timeouts: {idle: ...}` holds for connections",
		`1:59 "fastest" is not a way to choose | a way to choose is one of first alive, round robin, random, by client, least sessions`,
		`1:75 a time must be over zero: every wait has a limit | at most 30d`,
		`1:96 "v3" is not a version of the PROXY protocol | did you mean "v1"?`,
		`1:105 expected true or false, found "gw.pem" | `,
	}},
	{"map: what is about protocols", "listeners: {listen: 127.0.0.1:1, map: 'a:1', protocols: socks5, hide_address: true, userid_max: 9}", []string{
		`1:46 a port mapping speaks no protocol: "protocols" says nothing here | leave it out`,
		`1:65 a port mapping speaks no protocol: "hide_address" says nothing here | leave it out`,
		`1:85 a port mapping speaks no protocol: "userid_max" says nothing here | leave it out`,
	}},
	{"map: unlike ranges", "listeners: {listen: 127.0.0.1:1-3, map: ['a:1-3', 'b:7', 'c:1-2']}", []string{
		`1:21 the listener has 3 ports, and its target c has 2 | write ranges of as many ports, or one port as the target`,
	}},
	{"map: UDP", "listeners: {listen: [udp/127.0.0.1:1, 127.0.0.1:1], proxy_protocol: loopback, map: {to: [a:1, unix:/s], tls: true}}", []string{
		`1:39 the listener is for UDP and for TCP | make two of it`,
		`1:53 "proxy_protocol" is for connections, and this is UDP | leave it out`,
		"1:84 `tls` and `proxy_protocol` are for connections, and this is UDP | leave them out",
	}},
	{"map: UDP, checks", "listeners: {listen: udp/127.0.0.1:1, map: {to: a:1, check: 1m}}", []string{
		"1:43 `check` is for connections: of UDP nobody can tell whether it is served | leave it out",
	}},
	{"map: UDP on all addresses", "listeners: {listen: [udp/:5, 'udp/[::]:6', udp/0.0.0.0:7], map: a:1}", []string{
		`1:22 a listener for UDP has an address of its own, from which its answers come | write udp/192.168.1.1:53; several make a list`,
		`1:30 a listener for UDP has an address of its own, from which its answers come | write udp/192.168.1.1:53; several make a list`,
		`1:44 a listener for UDP has an address of its own, from which its answers come | write udp/192.168.1.1:53; several make a list`,
	}},
	{"map: UDP, a socket", "listeners: {listen: udp/127.0.0.1:1, map: {to: unix:/s}}", []string{
		`1:43 a unix socket takes connections, and this is UDP | write HOST:PORT`,
	}},
	{"map: to itself", "listeners: [{name: a, listen: 127.0.0.1:5, map: ['b:1', 127.0.0.1:5]}, {name: u, listen: udp/127.0.0.1:6, map: 127.0.0.1:6}, {name: s, listen: unix:/s, map: ['127.0.0.1:6', unix:/s]}]", []string{
		`1:57 this target is the listener "a": what goes there comes back here | name another target`,
		`1:112 this target is the listener "u": what goes there comes back here | name another target`,
		`1:174 this target is the listener "s": what goes there comes back here | name another target`,
	}},
	{"map: a rule that cannot match", "listeners: {name: m, listen: 127.0.0.1:1, map: 'a:1'}\nrules: [{allow: a, listeners: m, protocols: socks5}, {allow: b, listeners: m, commands: bind}, {allow: c, protocols: map, proof: password}]\nusers: {file: users}", []string{
		`2:45 the rule can never match: no listener of it speaks this | let one speak it, or take the rule out`,
		`2:89 the rule can never match: no protocol of it has this command | bind is a command of socks4, socks4a, socks5 and ssh, udp of socks5 and map; this rule is for map`,
		`2:130 the rule can never match: no protocol of it shows this | a password is shown by socks5, http and ssh, a key by ssh, a claimed userid by socks4 and socks4a; this rule is for map`,
	}},
	{"listen twice on one address", "listeners:\n  - {name: a, listen: 127.0.0.1:1080}\n  - {name: b, listen: '[::ffff:127.0.0.1]:1080'}", []string{`3:23 two listeners on the same address | the other one is in line 2`}},
	{"listen on all and on one", "listeners:\n  - {name: a, listen: 127.0.0.1:1080}\n  - {name: b, listen: :1080, open_to_the_world: true}", []string{`3:23 two listeners on the same address | the other one is in line 2`}},
	{"a listener twice", "listeners:\n  - {name: a, listen: 127.0.0.1:1080}\n  - {name: a, listen: 127.0.0.1:1080}\n  - listen: :81\n  - listen: :81", []string{
		`3:12 two listeners are called "a" | the other one is in line 2`,
		`3:23 two listeners on the same address | the other one is in line 2`,
		`5:13 two listeners on the same address | the other one is in line 4`,
	}},
	{"listener name twice", "listeners:\n  - {name: a, listen: 127.0.0.1:1080}\n  - {name: a, listen: 127.0.0.1:1081}", []string{`3:12 two listeners are called "a" | the other one is in line 2`}},
	{"listener name as another's default", "listeners:\n  - {listen: 127.0.0.1:1080}\n  - {name: 127.0.0.1:1080, listen: 127.0.0.1:1081}", []string{`3:12 two listeners are called "127.0.0.1:1080" | the other one is in line 2`}},
	{"https is http and tls", "listeners: {listen: 127.0.0.1:1080, protocols: https}", []string{`1:48 "https" is not a protocol | did you mean "http"?`}},
	{"tls as a file", "listeners: {listen: 127.0.0.1:1080, tls: gw.pem}", []string{`1:42 expected keys with values, found "gw.pem" | the keys here are certificate, client_ca, key, tls_only`}},
	{"tls without a key", "listeners: {listen: 127.0.0.1:1080, tls: {certificate: gw.pem}}", []string{"1:42 TLS needs a certificate and its key | write `tls: {certificate: FILE, key: FILE}`; both may be in one file"}},
	{"tls without a certificate", "listeners: {listen: 127.0.0.1:1080, tls: {key: gw.pem, tls_only: on}}", []string{
		"1:42 TLS needs a certificate and its key | write `tls: {certificate: FILE, key: FILE}`; both may be in one file",
		`1:66 expected true or false, found "on" | write true, without quotes`,
	}},
	{"unknown protocol", "listeners: {listen: 127.0.0.1:1080, protocols: sock4}", []string{`1:48 "sock4" is not a protocol | did you mean "socks4"?`}},
	{"no protocols", "listeners: {listen: 127.0.0.1:1080, protocols: []}", []string{`1:48 the list is empty | leave the key out, and the default holds`}},
	{"advertise nothing", "listeners: {listen: 127.0.0.1:1080, advertise: 0.0.0.0}", []string{`1:48 0.0.0.0 is not the address of a machine | write an address such as 203.0.113.7`}},
	{"advertise a name", "listeners: {listen: 127.0.0.1:1080, advertise: gw.example.com}", []string{`1:48 "gw.example.com" is not an IP address | write an address such as 203.0.113.7`}},
	{"bind port too low", "listeners: {listen: 127.0.0.1:1080, bind_ports: 1023-2000}", []string{`1:49 port 1023 is too low | the lowest is 1024`}},
	{"bind ports backwards", "listeners: {listen: 127.0.0.1:1080, bind_ports: 40999-40000}", []string{`1:49 the range 40999-40000 runs backwards | write 40000-40999`}},
	{"bind ports with blanks", "listeners: {listen: 127.0.0.1:1080, bind_ports: 4000 - 4001}", []string{`1:49 "4000 - 4001" is not a port or a range of ports | write a port such as 443, or a range such as 8000-8999; the highest is 65535`}},
	{"userid_max in quotes", `listeners: {listen: 127.0.0.1:1080, userid_max: "20"}`, []string{`1:49 expected a number, found "20" | write a number from 1 to 1024, without quotes`}},
	{"userid_max too high", "listeners: {listen: 127.0.0.1:1080, userid_max: 1025}", []string{`1:49 "1025" is not a number from 1 to 1024 | `}},
	{"userid_max in hex", "listeners: {listen: 127.0.0.1:1080, userid_max: 0x10}", []string{`1:49 "0x10" is not a number from 1 to 1024 | `}},

	// Resolver.
	{"resolver as an address", "resolver: 192.0.2.53", []string{`1:11 expected keys with values, found "192.0.2.53" | the keys here are cache, servers`}},
	{"no name servers", "resolver: {servers: []}", []string{`1:21 the list is empty | leave the key out, and the default holds`}},
	{"name servers that are none", "resolver: {servers: [ns.example, 192.0.2.53:0, 192.0.2.53:x, '[192.0.2.53]:53', '[::1]', 'fe80::1%eth0', 0.0.0.0, 'ff02::fb']}", []string{
		`1:22 "ns.example" is not the address of a name server | write 192.0.2.53, "192.0.2.53:5353", "2001:db8::53" or "[2001:db8::53]:5353"`,
		`1:34 "192.0.2.53:0" is not the address of a name server | write 192.0.2.53, "192.0.2.53:5353", "2001:db8::53" or "[2001:db8::53]:5353"`,
		`1:48 "192.0.2.53:x" is not the address of a name server | write 192.0.2.53, "192.0.2.53:5353", "2001:db8::53" or "[2001:db8::53]:5353"`,
		`1:62 "[192.0.2.53]:53" is not the address of a name server | write 192.0.2.53, "192.0.2.53:5353", "2001:db8::53" or "[2001:db8::53]:5353"`,
		`1:81 "[::1]" is not the address of a name server | write 192.0.2.53, "192.0.2.53:5353", "2001:db8::53" or "[2001:db8::53]:5353"`,
		`1:90 "fe80::1%eth0" is not the address of a name server | write 192.0.2.53, "192.0.2.53:5353", "2001:db8::53" or "[2001:db8::53]:5353"`,
		`1:106 "0.0.0.0" is not the address of a machine | write 192.0.2.53, "192.0.2.53:5353", "2001:db8::53" or "[2001:db8::53]:5353"`,
		`1:115 "ff02::fb" is not the address of a machine | write 192.0.2.53, "192.0.2.53:5353", "2001:db8::53" or "[2001:db8::53]:5353"`,
	}},
	{"a name server twice", "resolver: {servers: [192.0.2.53, '[::ffff:192.0.2.53]:53']}", []string{`1:34 the name server 192.0.2.53:53 stands here twice | keep one of them`}},
	{"over 8 name servers", "resolver: {servers: [::1, ::2, ::3, ::4, ::5, ::6, ::7, ::8, ::9]}", []string{`1:21 over 8 name servers | `}},
	{"cache without a unit", "resolver: {cache: 30}", []string{`1:19 "30" has no unit | write 30s for seconds`}},
	{"cache too long", "resolver: {cache: 1h1s}", []string{`1:19 "1h1s" is too long: who keeps the names may change them | at most 1h`}},
	{"negative cache", "resolver: {cache: -1s}", []string{`1:19 a time cannot be negative | 0s is the least`}},

	// Groups.
	{"key without text", "groups: {~: [a], '': b}", []string{
		`1:10 a key is plain text, not no value | `,
		`1:18 a group without a name | `,
	}},
	{"group in a group", "groups: {a: [x], b: ['@a', any]}", []string{
		`1:22 "@a" cannot be in a group | a group holds the names of users`,
		`1:28 "any" cannot be in a group | a group holds the names of users`,
	}},
	{"group with its sign", "groups: {'@staff': [x]}", []string{`1:10 the name of a group starts with @ only where it is used | write "staff" here`}},
	{"group twice", "groups:\n  a: x\n  a: y", []string{`3:3 the key "a" stands here twice | keep one of them`}},
	{"groups as a list", "groups: [a]", []string{`1:9 expected names with values, found a list | write a name of your own, a colon, and behind it what it stands for`}},
	{"NUL in a user", `groups: {a: ["x\0y"]}`, []string{`1:14 the name of a user cannot hold a NUL byte | `}},
	{"true as a user", "groups: {a: [true]}", []string{`1:14 expected text, found true | write "true" if the word is meant`}},

	// Rules.
	{"rule without a name", "rules: {from: any}", []string{"1:8 the rule neither allows nor denies | write `allow: NAME` or `deny: NAME`"}},
	{"rule that does both", "rules:\n  - allow: x\n    deny: y", []string{"3:11 a rule either allows or denies | keep one of `allow` and `deny`"}},
	{"empty name", "rules: {allow: ''}", []string{`1:16 expected text, found nothing | `}},
	{"rule twice", "rules:\n  - allow: x\n  - deny: x", []string{`3:11 two rules are called "x" | the other one is in line 2`}},
	{"unknown key in a rule", "rules:\n  - allow: x\n    form: 10.0.0.0/8", []string{`3:5 unknown key "form" | did you mean "from"?`}},
	{"names that lead nowhere", "rules: {allow: x, during: a, limits: b}", []string{
		`1:27 no schedule is called "a" | there are none in the settings`,
		`1:38 no limit is called "b" | there are none in the settings`,
	}},
	{"unknown listener", "rules: {allow: x, listeners: [defalt]}", []string{`1:31 no listener is called "defalt" | did you mean "default"?`}},
	{"unknown group", "groups: {staff: []}\nrules: {allow: x, users: ['@stuff', '@']}", []string{
		`2:27 no group is called "stuff" | did you mean "@staff"?`,
		`2:37 no group is called "" | `,
	}},
	{"unknown command", "rules: {allow: x, commands: [connect, udp, listen]}", []string{
		`1:44 "listen" is not a command | a command is one of connect, bind, udp`,
	}},
	{"not a proof", "rules: {allow: x, proof: [ident, certificate, indent]}", []string{
		`1:47 "indent" is not a proof | did you mean "ident"?`,
	}},
	{"password without users", "rules: [{allow: x, proof: [ident, password]}, {deny: y, proof: password}]", []string{
		"1:35 the rule asks for a password, and there are no users | write `users: {file: users}`; `sallyport user add NAME --file users` puts somebody into it",
		"1:64 the rule asks for a password, and there are no users | write `users: {file: users}`; `sallyport user add NAME --file users` puts somebody into it",
	}},

	// Users.
	{"users without a file", "users: {}\nrules: {allow: x, proof: password}", []string{"1:8 the users have no file | write `users: {file: users}`, or `users: {ledger: true}` if the ledger has them"}},
	{"users as a name", "users: users.txt", []string{`1:8 expected keys with values, found "users.txt" | the keys here are file, ledger`}},
	{"users: unknown key", "users: {files: u}", []string{
		"1:8 the users have no file | write `users: {file: users}`, or `users: {ledger: true}` if the ledger has them",
		`1:9 unknown key "files" | did you mean "file"?`,
	}},
	{"users: a list of files", "users: {file: [a, b]}", []string{`1:15 expected text, found a list | `}},
	{"users: NUL", `users: {file: "a\0b"}`, []string{`1:15 the name of a file cannot hold a NUL byte | `}},
	{"from nothing", "rules: {allow: x, from: []}", []string{`1:25 the list is empty | leave the key out, and the default holds`}},
	{"host bits", "rules: {allow: x, from: 10.0.0.1/8}", []string{`1:25 the network 10.0.0.1/8 has bits set behind its length | write 10.0.0.0/8 for the network, or 10.0.0.1 for the one address`}},
	{"prefix too long", "rules: {allow: x, from: 10.0.0.0/33}", []string{`1:25 "33" is not the length of a prefix | write a number from 0 to 32`}},
	{"netmask", "rules: {allow: x, from: 10.0.0.0/255.0.0.0}", []string{`1:25 "255.0.0.0" is not the length of a prefix | write 10.0.0.0/8`}},
	{"short address", "rules: {allow: x, from: 127.1}", []string{`1:25 "127.1" is not an IP address | write all four numbers of an IPv4 address`}},
	{"octal address", "rules: {allow: x, from: 010.0.0.1}", []string{`1:25 "010.0.0.1" is not an IP address | write the numbers without leading zeros: some programs read those as octal`}},
	{"zone", "rules: {allow: x, from: 'fe80::1%eth0'}", []string{`1:25 "fe80::1%eth0" holds a zone | write it without the zone, which starts at the %`}},
	{"zone in a prefix", "rules: {allow: x, from: 'fe80::%eth0/64'}", []string{`1:25 "fe80::%eth0/64" holds a zone | write it without the zone, which starts at the %`}},
	{"from a name", "rules: {allow: x, from: [www.example.com, locback]}", []string{
		"1:26 \"www.example.com\" is not an IP address | what can stand here are addresses, networks, and the words any, internet, loopback, private",
		`1:43 "locback" is not an IP address | did you mean "loopback"?`,
	}},
	{"from a set", "rules: {allow: x, from: '@blocked'}", []string{`1:25 no set is called "blocked" | there are none in the settings`}},
	{"to a set", "rules: {deny: x, to: '@blocked'}", []string{`1:22 no set is called "blocked" | there are none in the settings`}},
	{"to a host with port", "rules: {allow: x, to: ['www.example.com:80', 10.0.0.1:80, '[::1]:80']}", []string{
		"1:24 \"www.example.com:80\" holds a port | write \"www.example.com\" here, and the port in `ports`",
		"1:46 \"10.0.0.1:80\" holds a port | write \"10.0.0.1\" here, and the port in `ports`",
		"1:59 \"[::1]:80\" holds a port | write \"::1\" here, and the port in `ports`",
	}},
	{"to brackets", "rules: {allow: x, to: '[::1]'}", []string{`1:23 "[::1]" is not an IP address | an IPv6 address stands without brackets here, and ports are no part of it`}},
	{"to a URL", "rules: {allow: x, to: 'http://www.example.com/'}", []string{`1:23 "http://www.example.com/" is a URL | write only the host name`}},
	{"to a decimal address", "rules: {allow: x, to: [2130706433, 0x7f000001, 127.0.0.1.]}", []string{
		`1:24 "2130706433" is not an IP address | write all four numbers of an IPv4 address`,
		`1:36 "0x7f000001" is not an IP address | write an address such as 10.1.2.3 or 2001:db8::1, or a network such as 10.0.0.0/8`,
		`1:48 "127.0.0.1." is not an IP address | write all four numbers of an IPv4 address`,
	}},
	{"star alone", "rules: {allow: x, to: '*'}", []string{`1:23 "*" is not a host name | write any`}},
	{"star in the middle", "rules: {allow: x, to: ['www.*.com', '*.*.com', '*example.com']}", []string{
		`1:24 "www.*.com" has a * in a place where it cannot be | write *.example.com for all names below example.com`,
		`1:37 "*.*.com" has a * in a place where it cannot be | write *.example.com for all names below example.com`,
		`1:48 "*example.com" has a * in a place where it cannot be | write *.example.com for all names below example.com`,
	}},
	{"not host names", "rules: {allow: x, to: [a..b, -a.b, 'b ü', b_ü.de, '.']}", []string{
		`1:24 "a..b" is not a host name | write a name such as www.example.com`,
		`1:30 "-a.b" is not a host name | write a name such as www.example.com`,
		`1:36 "b ü" is not a host name | write a name such as www.example.com`,
		`1:43 "b_ü.de" is not a host name | write its ASCII form, which starts with xn--`,
		`1:51 "." is not a host name | write a name such as www.example.com`,
	}},
	{"a word misspelt", "rules: {deny: x, to: [privat, Internet, lopback]}", []string{
		`1:23 "privat" is not one of the words any, internet, loopback, private | did you mean "private"? A host of this name is written "privat."`,
		`1:31 "Internet" is not one of the words any, internet, loopback, private | did you mean "internet"? A host of this name is written "Internet."`,
		`1:41 "lopback" is not one of the words any, internet, loopback, private | did you mean "loopback"? A host of this name is written "lopback."`,
	}},
	{"ports", "rules: {allow: x, ports: [0, 80, 65536, http, 90-80, -1, 08, [1]]}", []string{
		`1:27 port 0 is too low | the lowest is 1`,
		`1:34 "65536" is not a port or a range of ports | write a port such as 443, or a range such as 8000-8999; the highest is 65535`,
		`1:41 "http" is not a port or a range of ports | write a port such as 443, or a range such as 8000-8999; the highest is 65535`,
		`1:47 the range 90-80 runs backwards | write 80-90`,
		`1:54 "-1" is not a port or a range of ports | write a port such as 443, or a range such as 8000-8999; the highest is 65535`,
		`1:58 "08" is not a port or a range of ports | write a port such as 443, or a range such as 8000-8999; the highest is 65535`,
		`1:62 expected a port or a range such as 8000-8999, found a list | `,
	}},
	{"bind terms", "rules: {allow: x, bind: {primary: maybe, any_peer: on, wait: true}}", []string{
		"1:35 \"maybe\" is not a word for `primary` | a word for `primary` is one of required, optional",
		`1:52 expected true or false, found "on" | write true, without quotes`,
		`1:56 unknown key "wait" | did you mean "wait_for_right_peer"?`,
	}},

	// Timeouts and log.
	{"time without unit", "timeouts: {connect: 120}", []string{`1:21 "120" has no unit | write 120s for seconds`}},
	{"not a time", "timeouts: {connect: soon, idle: 1h2d, bind: [1s], ident: 1d-2h}", []string{
		`1:21 "soon" is not a time | write 90s, 10m, 1h30m or 2d`,
		`1:33 "1h2d" is not a time | write 90s, 10m, 1h30m or 2d`,
		`1:45 expected a time such as 90s, found a list | `,
		`1:58 "1d-2h" is not a time | write 90s, 10m, 1h30m or 2d`,
	}},
	{"time out of range", "timeouts: {handshake: 0s, idle: 31d, drain: -1s, connect: 99999999d, ident: -3d}", []string{
		`1:23 a time must be over zero: every wait has a limit | at most 30d`,
		`1:33 "31d" is too long | at most 30d`,
		`1:45 a time cannot be negative | 0s is the least`,
		`1:59 "99999999d" is too long | at most 30d`,
		`1:77 a time must be over zero: every wait has a limit | at most 30d`,
	}},
	{"log", "log: {level: warning, format: xml, access_format: xml}", []string{
		`1:14 "warning" is not a log level | a log level is one of debug, info, warn, error`,
		`1:31 "xml" is not a log format | a log format is one of text, json`,
		"1:51 neither a format of the access log nor a template | write json, squid, or fields in braces such as '{time} {client} {user} {target} {up} {down} {reason}'",
	}},

	// Sets.
	{"sets as a list", "sets: [a]", []string{`1:7 expected names with values, found a list | write a name of your own, a colon, and behind it what it stands for`}},
	{"a set as a list", "sets: {ads: [a.example]}", []string{"1:13 expected keys with values, found a list | write `hosts: FILE`, `prefixes: FILE`, or `entries: [...]` for what is not in a file"}},
	{"an empty set", "sets: {ads: {}}", []string{"1:13 the set is empty | write `hosts: FILE`, `prefixes: FILE`, or `entries: [...]`"}},
	{"unknown key in a set", "sets: {ads: {host: a.txt, prefixes: []}}", []string{
		`1:14 unknown key "host" | did you mean "hosts"?`,
		`1:37 the list is empty | leave the key out, and the default holds`,
	}},
	{"set with its sign", "sets: {'@ads': {hosts: a.txt}, '': {hosts: a.txt}}", []string{
		`1:8 the name of a set starts with @ only where it is used | write "ads" here`,
		`1:32 a set without a name | `,
	}},
	{"set twice", "sets:\n  ads: {hosts: a}\n  ads: {hosts: b}", []string{`3:3 the key "ads" stands here twice | keep one of them`}},
	{"bad entries in a set", "sets: {ads: {entries: [10.0.0.1/8, 'a..b', '@other', private, 'x.example:80', '*']}}", []string{
		`1:24 the network 10.0.0.1/8 has bits set behind its length | write 10.0.0.0/8 for the network, or 10.0.0.1 for the one address`,
		`1:36 "a..b" is not a host name | write a name such as www.example.com`,
		`1:44 a set cannot hold another one | name both of them in the rule`,
		`1:54 a set cannot hold the word "private" | write it in the rule, beside the set`,
		"1:63 \"x.example:80\" holds a port | write \"x.example\" here, and the port in `ports`",
		`1:79 "*" is not a host name | write the word any in the rule`,
	}},
	{"unknown set", "sets: {ads: {hosts: a.txt}}\nrules: {deny: x, to: ['@adds', '@'], from: '@spies'}", []string{
		`2:23 no set is called "adds" | did you mean "@ads"?`,
		`2:32 no set is called "" | `,
		`2:44 no set is called "spies" | `,
	}},
	{"clients by host names", "sets: {ads: {hosts: a.txt, entries: b.example}, nets: {prefixes: n}}\nrules: {deny: x, from: ['@ads', '@nets']}", []string{"2:25 the set \"@ads\" holds only host names, and a client has none | give it `prefixes`, or networks in `entries`"}},

	// Schedules.
	{"schedule as text", "schedules: {day: 09:00-18:00}", []string{"1:18 expected keys with values, found \"09:00-18:00\" | write `{days: mon-fri, hours: 09:00-18:00}`"}},
	{"empty schedules", "schedules: {a: [], b: {}, c: {zone: UTC}, '': {days: mon}}", []string{
		"1:16 the schedule is empty: it would never hold | write `{days: mon-fri, hours: 09:00-18:00}`",
		"1:23 the schedule says neither days nor hours | write `{days: mon-fri, hours: 09:00-18:00}`",
		"1:30 the schedule says neither days nor hours | write `{days: mon-fri, hours: 09:00-18:00}`",
		`1:43 a schedule without a name | `,
	}},
	{"unknown key in a schedule", "schedules: {a: {day: mon, hours: 09:00-18:00}}", []string{`1:17 unknown key "day" | did you mean "days"?`}},
	{"days", "schedules: {a: {days: [monday, Mon-Fri, 'mon,wed', workdays, mon-, 1, weekday, mo - fr, mon-weekday, []]}}", []string{
		`1:24 "monday" is not a day of the week | did you mean "mon"?`,
		`1:32 "Mon-Fri" is not a day of the week | did you mean "mon-fri"?`,
		`1:41 "mon,wed" is not a day of the week | write a list: [mon, wed]`,
		`1:52 "workdays" is not a day of the week | did you mean "weekdays"?`,
		`1:62 "mon-" is not a day of the week | write mon, tue, wed, thu, fri, sat, sun, a range such as mon-fri, or one of daily, weekdays, weekends`,
		`1:68 "1" is not a day of the week | write mon, tue, wed, thu, fri, sat, sun, a range such as mon-fri, or one of daily, weekdays, weekends`,
		`1:71 "weekday" is not a day of the week | did you mean "weekdays"?`,
		`1:80 "mo - fr" is not a day of the week | did you mean "mon-fri"?`,
		`1:89 "mon-weekday" is not a day of the week | write mon, tue, wed, thu, fri, sat, sun, a range such as mon-fri, or one of daily, weekdays, weekends`,
		`1:102 expected text, found a list | `,
	}},
	{"no days", "schedules: {a: {days: []}}", []string{`1:23 the list is empty | leave the key out, and the default holds`}},
	{"hours", "schedules: {a: {hours: [9-18, 09:00, 25:00-26:00, 09:60-10:00, 24:00-06:00, 09:00-09:00, 9:00-18:00, 09:00-24:01, '09.00-18.00', [1]]}}", []string{
		`1:25 "9-18" is not a span of hours | write 09:00-18:00, or 22:00-06:00 for one that ends on the next day`,
		`1:31 "09:00" is not a span of hours | write 09:00-18:00, or 22:00-06:00 for one that ends on the next day`,
		`1:38 "25:00-26:00" is not a span of hours | write 09:00-18:00, or 22:00-06:00 for one that ends on the next day`,
		`1:51 "09:60-10:00" is not a span of hours | write 09:00-18:00, or 22:00-06:00 for one that ends on the next day`,
		`1:64 a span cannot begin at 24:00 | write 00:00, and the next day`,
		`1:77 the span 09:00-09:00 ends where it begins | write 00:00-24:00 for the whole day`,
		`1:90 "9:00-18:00" is not a span of hours | write 09:00-18:00, or 22:00-06:00 for one that ends on the next day`,
		`1:102 "09:00-24:01" is not a span of hours | write 09:00-18:00, or 22:00-06:00 for one that ends on the next day`,
		`1:115 "09.00-18.00" is not a span of hours | write 09:00-18:00, or 22:00-06:00 for one that ends on the next day`,
		`1:130 expected text, found a list | `,
	}},
	{"no hours", "schedules: {a: {days: mon, hours: []}}", []string{`1:35 the list is empty | leave the key out, and the default holds`}},
	{"zones", "schedules: {a: {days: mon, zone: Europe/Berln}, b: {days: mon, zone: Local}, c: {days: mon, zone: ../UTC}, d: {days: mon, zone: [UTC]}}", []string{
		`1:34 "Europe/Berln" is not a time zone | write its name in the IANA database, such as Europe/Berlin or UTC; leave it out for this machine's own`,
		`1:70 "Local" is not a time zone | write its name in the IANA database, such as Europe/Berlin or UTC; leave it out for this machine's own`,
		`1:99 "../UTC" is not a time zone | write its name in the IANA database, such as Europe/Berlin or UTC; leave it out for this machine's own`,
		`1:129 expected text, found a list | `,
	}},
	{"two zones", "schedules:\n  a:\n    - {days: mon, zone: UTC}\n    - {days: tue, zone: Europe/Berlin}\n", []string{`4:25 a schedule goes by one zone | the other one is in line 3; make two schedules, and two rules`}},
	{"schedule twice", "schedules:\n  a: {days: mon}\n  a: {days: tue}", []string{`3:3 the key "a" stands here twice | keep one of them`}},
	{"unknown schedule", "schedules: {work hours: {days: mon-fri}}\nlisteners: {listen: 127.0.0.1:1, during: work}\nrules: {allow: x, during: work hour}", []string{
		`2:42 no schedule is called "work" | did you mean "work hours"?`,
		`3:27 no schedule is called "work hour" | did you mean "work hours"?`,
	}},
	{"several schedules", "schedules: {a: {days: mon}, b: {days: tue}}\nrules: {allow: x, during: [a, b]}", []string{"2:27 expected the name of a schedule, found a list | a schedule may have several spans: `[{days: mon-fri, hours: 09:00-18:00}, {days: sat}]`"}},

	// Limits.
	{"limit as text", "limits: {a: 20 Mbit/s}", []string{`1:13 expected keys with values, found "20 Mbit/s" | the keys here are begins, burst, counts, down, every, new_sessions, per, quota, rate, rolling, sessions, shared, then, up, warn, zone`}},
	{"limit of nothing", "limits: {a: {}, b: {per: user}, c: {rate: 1 Mbit/s}, '': {rate: 1 Mbit/s, per: user}}", []string{
		"1:13 the limit does not say what is limited | write one of `rate`, `up` and `down`, `quota`, `sessions`, `new_sessions`",
		"1:20 the limit does not say what is limited | write one of `rate`, `up` and `down`, `quota`, `sessions`, `new_sessions`",
		"1:36 the limit does not say what it is counted by | write `per: user`, or one of session, source, user, group, rule, listener, server",
		`1:54 a limit without a name | `,
	}},
	{"unknown key in a limit", "limits: {a: {rates: 1 Mbit/s, per: user}}", []string{`1:14 unknown key "rates" | did you mean "rate"?`}},
	{"limit of two kinds", "limits: {a: {rate: 1 Mbit/s, quota: 1 GiB, every: day, per: user}, b: {up: 1 Mbit/s, rate: 2 Mbit/s, per: user}}", []string{
		`1:37 a limit is of one kind, and this one is a limit of the rate | make two limits: a rule may use both`,
		`1:92 a limit is of one kind, and this one is a limit of the rate by direction | make two limits: a rule may use both`,
	}},
	{"rates", "limits: {a: {rate: 20, per: user}, b: {rate: 20 Mbps, per: user}, c: {up: 20 mbit/s, down: fast, per: user}, d: {rate: 1 bit/s, per: user}, e: {rate: 2 Tbit/s, per: user}, f: {rate: -1 Mbit/s, per: user}, g: {rate: 1. Mbit/s, per: user}, h: {rate: [1 Mbit/s], per: user}, i: {rate: 20 MB, per: user}}", []string{
		`1:20 "20" has no unit | write a rate such as 20 Mbit/s`,
		`1:46 "Mbps" is not a unit of a rate | did you mean "Mbit/s"? The units are bit/s, kbit/s, Mbit/s, Gbit/s, Tbit/s, B/s, kB/s, MB/s, GB/s, TB/s, KiB/s, MiB/s, GiB/s, TiB/s`,
		`1:75 "mbit/s" is not a unit of a rate | did you mean "Mbit/s"? The units are bit/s, kbit/s, Mbit/s, Gbit/s, Tbit/s, B/s, kB/s, MB/s, GB/s, TB/s, KiB/s, MiB/s, GiB/s, TiB/s`,
		`1:92 "fast" is not a rate | write 20 Mbit/s`,
		`1:120 "1 bit/s" is too slow | at least 1 kbit/s`,
		`1:151 "2 Tbit/s" is too fast | at most 1 Tbit/s`,
		`1:183 "-1 Mbit/s" is not a rate | write 20 Mbit/s`,
		`1:216 "1. Mbit/s" is not a rate | write 20 Mbit/s`,
		`1:249 expected a rate such as 20 Mbit/s, found a list | `,
		`1:283 "MB" is not a unit of a rate | did you mean "MB/s"? The units are bit/s, kbit/s, Mbit/s, Gbit/s, Tbit/s, B/s, kB/s, MB/s, GB/s, TB/s, KiB/s, MiB/s, GiB/s, TiB/s`,
	}},
	{"sizes", "limits: {a: {quota: 5, every: day, per: user}, b: {quota: 5 gib, every: day, per: user}, c: {quota: 0 B, every: day, per: user}, d: {quota: 2000000 TiB, every: day, per: user}, e: {quota: 5 Gbit, every: day, per: user}}", []string{
		`1:21 "5" has no unit | write a size such as 5 GiB`,
		`1:59 "gib" is not a unit of a size | did you mean "GiB"? The units are B, kB, MB, GB, TB, KiB, MiB, GiB, TiB`,
		`1:101 "0 B" is less than a byte | a quota of nothing is a rule that denies`,
		`1:141 "2000000 TiB" is too much | at most 1048576 TiB`,
		`1:189 "Gbit" is not a unit of a size | write a size such as 5 GiB`,
	}},
	{"numbers of sessions", "limits: {a: {sessions: 0, per: user}, b: {sessions: many, per: user}, c: {new_sessions: 20, per: user}, d: {new_sessions: 20/day, per: user}, e: {new_sessions: 0/s, per: user}, f: {new_sessions: x/s, per: user}, g: {new_sessions: [20/s], per: user}}", []string{
		`1:24 "0" is not a number from 1 to 1000000 | `,
		`1:53 "many" is not a number from 1 to 1000000 | `,
		`1:89 "20" does not say in which time | write 20/s, 100/min or 1000/h; at most 1000000`,
		`1:123 "20/day" does not say in which time | write 20/s, 100/min or 1000/h; at most 1000000`,
		`1:161 0 is not a number from 1 to 1000000 | write 20/s, 100/min or 1000/h; at most 1000000`,
		`1:196 "x/s" is not a number in a time | write 20/s, 100/min or 1000/h; at most 1000000`,
		`1:231 expected a number in a time such as 20/s, found a list | `,
	}},
	{"periods", "limits: {a: {quota: 5 GiB, every: dayly, per: user}, b: {quota: 5 GiB, every: 0d, per: user}, c: {quota: 5 GiB, every: 400d, per: user}, d: {quota: 5 GiB, per: user}, e: {quota: 5 GiB, every: day, per: session}, f: {rate: 1 Mbit/s, every: day, per: user}}", []string{
		`1:35 "dayly" is not a period | a period is one of hour, day, week, month`,
		`1:79 "0d" is not a period | write 1d to 366d`,
		`1:120 "400d" is not a period | write 1d to 366d`,
		"1:141 the quota does not say when it begins anew | write `every: day`, or hour, week, month, 30d",
		"1:193 the quota of a session does not begin anew | leave `every` out, or write `per: user` or another",
		"1:240 `every` belongs to a quota | leave it out",
	}},
	{"then", "limits: {a: {quota: 5 GiB, every: day, then: stop, per: user}, b: {quota: 5 GiB, every: day, then: 1 Mbit, per: user}, c: {rate: 1 Mbit/s, then: deny, per: user}}", []string{
		`1:46 "stop" is not what can come then | write deny, or a rate such as 1 Mbit/s`,
		`1:100 "Mbit" is not a unit of a rate | did you mean "Mbit/s"? The units are bit/s, kbit/s, Mbit/s, Gbit/s, Tbit/s, B/s, kB/s, MB/s, GB/s, TB/s, KiB/s, MiB/s, GiB/s, TiB/s`,
		"1:146 `then` belongs to a quota | leave it out",
	}},
	{"quotas of time", "limits: {a: {quota: 1s, every: day, per: user}, b: {quota: 400d, every: day, per: user}, c: {quota: 2h, counts: up, every: day, per: user}, d: {quota: 2x, every: day, per: user}}", []string{
		`1:21 "1s" is out of bounds | from 1m to 366d`,
		`1:60 "400d" is out of bounds | from 1m to 366d`,
		`1:113 a quota of time counts neither up nor down | leave it out`,
		`1:152 "x" is not a unit of a size | did you mean "B"? The units are B, kB, MB, GB, TB, KiB, MiB, GiB, TiB`,
	}},
	{"what quotas count", "limits: {a: {quota: 1 GB, counts: sideways, every: day, per: user}, b: {rate: 1 Mbit/s, counts: up, warn: 80%, zone: UTC, per: user}}", []string{
		`1:35 "sideways" is not what a quota counts | what a quota counts is one of both, up, down`,
		"1:97 `counts` belongs to a quota | leave it out",
		"1:107 `warn` belongs to a quota | leave it out",
		"1:118 `zone` belongs to a quota | leave it out",
	}},
	{"when quotas begin", "limits: {a: {quota: 1 GB, every: week, begins: monday, per: user}, b: {quota: 1 GB, every: month, begins: 32, per: user}, c: {quota: 1 GB, every: 30d, begins: tomorrow, per: user}, d: {quota: 1 GB, every: day, begins: 6, per: user}, e: {quota: 1 GB, begins: 6, per: session}, f: {quota: 1 GB, every: day, zone: Mars, per: user}}", []string{
		`1:48 "monday" is not a day of the week | write one of sun, mon, tue, wed, thu, fri, sat`,
		`1:107 "32" is not a number from 1 to 31 | `,
		`1:160 "tomorrow" is not a date since 1970 | write a day on which one of the periods begins, such as 2026-11-30`,
		"1:219 an hour and a day begin by the clock | leave `begins` out, and say with `zone` by which",
		"1:237 the quota has no periods that could begin | leave `begins`, `rolling` and `zone` out",
		`1:312 "Mars" is not a time zone | write its name in the IANA database, such as Europe/Berlin or UTC; leave it out for this machine's own`,
	}},
	{"rolling quotas", "limits: {a: {quota: 1 GB, every: month, rolling: true, per: user}, b: {quota: 1 GB, every: week, rolling: true, begins: sun, per: user}, c: {quota: 1 GB, every: day, rolling: maybe, per: user}}", []string{
		"1:50 months are not as long as each other | write `every: 30d`",
		"1:107 what is rolling begins nowhere, in no zone | leave `begins` and `zone` out",
		`1:176 expected true or false, found "maybe" | `,
	}},
	{"warnings", "limits: {a: {quota: 1 GB, every: day, warn: [80, 100%, 50%, 50%, [1%]], per: user}}", []string{
		`1:46 "80" is not a part of a quota to warn at | write 80%, or a list such as [80%, 95%]; from 1% to 99%`,
		`1:50 "100%" is not a part of a quota to warn at | write 80%, or a list such as [80%, 95%]; from 1% to 99%`,
		`1:61 "50%" stands here twice | keep one of them`,
		`1:66 "" is not a part of a quota to warn at | write 80%, or a list such as [80%, 95%]; from 1% to 99%`,
	}},
	{"bursts", "limits: {a: {sessions: 5, burst: 1 MB, per: user}, b: {rate: 1 Mbit/s, burst: 0 B, per: user}, c: {up: 1 Mbit/s, burst: 1 Mbit/s, per: user}}", []string{
		"1:34 `burst` belongs to a rate | leave it out",
		`1:79 "0 B" is out of bounds | from 1 B to 1 TiB`,
		`1:121 "Mbit/s" is not a unit of a size | write a size such as 2 MiB`,
	}},
	{"per", "limits: {a: {rate: 1 Mbit/s, per: usr}, b: {sessions: 5, per: session}, c: {new_sessions: 5/s, per: session}}", []string{
		`1:35 "usr" is not what a limit is counted by | did you mean "user"?`,
		"1:63 sessions are not counted by session | write `per: source`, `per: user` or another",
		"1:101 sessions are not counted by session | write `per: source`, `per: user` or another",
	}},
	{"limit twice", "limits:\n  a: {sessions: 1, per: user}\n  a: {sessions: 2, per: user}", []string{`3:3 the key "a" stands here twice | keep one of them`}},
	{"unknown limit", "limits: {fair: {rate: 1 Mbit/s, per: user}}\nrules: {allow: x, limits: [fairy, fair, fair]}", []string{
		`2:28 no limit is called "fairy" | did you mean "fair"?`,
		`2:41 the limit "fair" stands here twice | keep one of them`,
	}},

	// Rules that can never match.
	{"behind a rule for all", "rules:\n  - {deny: all}\n  - {allow: web, ports: 80}\n  - {allow: mail, ports: 25}", []string{
		`3:13 the rule "web" can never match: whatever it matches, "all" matches first | "all" is in line 2; put it behind this one, or take one of them out`,
		`4:13 the rule "mail" can never match: whatever it matches, "all" matches first | "all" is in line 2; put it behind this one, or take one of them out`,
	}},
	{"behind a wider rule", "rules:\n  - {allow: lan, from: [10.0.0.0/8, '::/0'], to: any, ports: [1-1023]}\n  - {deny: cellar, from: [10.1.0.0/16, 2001:db8::/32], to: [10.9.0.0/16, a.example], ports: [80, 443]}", []string{`3:12 the rule "cellar" can never match: whatever it matches, "lan" matches first | "lan" is in line 2; put it behind this one, or take one of them out`}},
	{"behind a suffix", "rules:\n  - {deny: ads, to: '*.ads.example'}\n  - {deny: more, to: ['*.b.ads.example', a.ads.example]}", []string{`3:12 the rule "more" can never match: whatever it matches, "ads" matches first | "ads" is in line 2; put it behind this one, or take one of them out`}},
	{"behind a set", "sets: {s: {hosts: h}}\nrules:\n  - {deny: ads, to: ['@s', internet]}\n  - {deny: more, to: '@s', ports: 80}", []string{`4:12 the rule "more" can never match: whatever it matches, "ads" matches first | "ads" is in line 3; put it behind this one, or take one of them out`}},
	{"behind its users", "groups: {g: [a]}\nusers: {file: u}\nrules:\n  - {allow: one, users: [alice, '@g'], proof: [password, ident]}\n  - {allow: two, users: alice, proof: [ident, password], listeners: default}\n  - {deny: three, users: '@g', proof: [ident, password], to: internet}\n  - {allow: four, users: any, proof: [ident, password], to: internet}\n", []string{
		`5:13 the rule "two" can never match: whatever it matches, "one" matches first | "one" is in line 4; put it behind this one, or take one of them out`,
		`6:12 the rule "three" can never match: whatever it matches, "one" matches first | "one" is in line 4; put it behind this one, or take one of them out`,
	}},
	{"behind its schedule", "schedules: {s: {days: mon}}\nrules:\n  - {allow: one, during: s}\n  - {allow: two, during: s, commands: [bind, connect], bind: {}}", []string{`4:13 the rule "two" can never match: whatever it matches, "one" matches first | "one" is in line 3; put it behind this one, or take one of them out`}},
	{"commands without a protocol", "rules: [{allow: a, protocols: http, commands: bind}, {allow: b, protocols: [socks4, http], commands: udp}]", []string{
		`1:47 the rule can never match: no protocol of it has this command | bind is a command of socks4, socks4a, socks5 and ssh, udp of socks5 and map; this rule is for http`,
		`1:102 the rule can never match: no protocol of it has this command | bind is a command of socks4, socks4a, socks5 and ssh, udp of socks5 and map; this rule is for socks4, http`,
	}},
	{"proof without a protocol", "users: {file: u}\nrules: [{allow: a, protocols: [socks4, socks4a], proof: password}, {allow: b, protocols: [socks5, http], proof: claimed}]", []string{
		`2:57 the rule can never match: no protocol of it shows this | a password is shown by socks5, http and ssh, a key by ssh, a claimed userid by socks4 and socks4a; this rule is for socks4, socks4a`,
		`2:113 the rule can never match: no protocol of it shows this | a password is shown by socks5, http and ssh, a key by ssh, a claimed userid by socks4 and socks4a; this rule is for socks5, http`,
	}},
	{"protocol without a listener", "listeners: [{name: a, listen: 127.0.0.1:1, protocols: socks5}, {name: b, listen: 127.0.0.1:2, protocols: http}]\nrules: [{allow: x, protocols: [socks4]}, {allow: y, listeners: a, protocols: http}, {allow: z, listeners: b, commands: bind}]", []string{
		`2:31 the rule can never match: no listener of it speaks this | let one speak it, or take the rule out`,
		`2:78 the rule can never match: no listener of it speaks this | let one speak it, or take the rule out`,
		`2:120 the rule can never match: no protocol of it has this command | bind is a command of socks4, socks4a, socks5 and ssh, udp of socks5 and map; this rule is for http`,
	}},

	// Everything at once, in the order of the lines.
	{"many", "rules:\n  - allow: x\n    listeners: wan\n    to: 10.0.0.1/8\nlisteners:\n  - name: lan\n    listen: 127.0.0.1\nlog: {levl: info}\n", []string{
		`3:16 no listener is called "wan" | did you mean "lan"?`,
		`4:9 the network 10.0.0.1/8 has bits set behind its length | write 10.0.0.0/8 for the network, or 10.0.0.1 for the one address`,
		`7:13 "127.0.0.1" is not an address with a port | write 127.0.0.1:1080`,
		`8:7 unknown key "levl" | did you mean "level"?`,
	}},
	{"wide characters count one", "rules: {allow: 'größe 日本', to: 10.0.0.1/8}", []string{`1:32 the network 10.0.0.1/8 has bits set behind its length | write 10.0.0.0/8 for the network, or 10.0.0.1 for the one address`}},
	{"tabs count one", "log:\t\t{level:\tx}", []string{`1:15 "x" is not a log level | a log level is one of debug, info, warn, error`}},
	{"CRLF", "log:\r\n  level: x\r\n", []string{`2:10 "x" is not a log level | a log level is one of debug, info, warn, error`}},
	{"a byte order mark", "\ufefflog: {level: x}", []string{`1:14 "x" is not a log level | a log level is one of debug, info, warn, error`}},
	{"at an alias", "groups: {a: &a [[x], '@y'], b: *a}", []string{
		`1:17 expected text, found a list | `,
		`1:17 expected text, found a list | `,
		`1:22 "@y" cannot be in a group | a group holds the names of users`,
		`1:22 "@y" cannot be in a group | a group holds the names of users`,
	}},
}

func TestMistakes(t *testing.T) {
	for _, c := range mistakes {
		t.Run(c.name, func(t *testing.T) {
			checkFaults(t, c.file, Override{}, c.want)
		})
	}
}

// checkFaults parses a file that must have just these faults.
func checkFaults(t *testing.T, file string, o Override, want []string) {
	t.Helper()
	s, err := Parse("f.yaml", []byte(file), o)
	faults, ok := errors.AsType[Errors](err)
	if !ok || s != nil {
		t.Fatalf("no Errors: settings %v, error %v", s, err)
	}
	var got []string
	for _, f := range faults {
		got = append(got, fmt.Sprintf("%d:%d %s | %s", f.Line, f.Column, f.Problem, f.Hint))
		checkPlace(t, file, f)
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("faults of %q:\n%s\nwant:\n%s", file, g, w)
	}
}

// checkPlace checks that a fault shows the line that it stands in.
func checkPlace(t *testing.T, file string, f *Error) {
	t.Helper()
	if f.Line == 0 {
		return
	}
	file = strings.ReplaceAll(strings.TrimPrefix(file, "\ufeff"), "\r\n", "\n")
	lines := strings.Split(file, "\n")
	if f.File != "f.yaml" || f.Line > len(lines) || f.Text != veil(lines[f.Line-1]) {
		t.Fatalf("%s:%d shows %q, of a file of %d lines", f.File, f.Line, f.Text, len(lines))
	}
	if f.Column < 1 || f.Column > 1+len([]rune(f.Text)) {
		t.Fatalf("%d:%d is outside of the line %q", f.Line, f.Column, f.Text)
	}
}

// YAML itself.
func TestSyntax(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"no colon", "listeners\n  - listen: :1080\n", "1:1 a value that runs over several lines | is a colon, a dash or an indentation missing? Otherwise put it in quotes"},
		{"one blank too many", "rules:\n  - allow: x\n    from: any\n     to: any\n", "3:11 a value that runs over several lines | is a colon, a dash or an indentation missing? Otherwise put it in quotes"},
		{"one blank too few", "rules:\n  - allow: x\n   from: any\n", "3:4 this does not belong to what stands above it | entries that belong together start in the same column"},
		{"empty entry below its key", "rules:\n-\nadmin: off\n", "3:1 this does not belong to what stands above it | entries that belong together start in the same column"},
		{"value below its key", "rules:\n  - allow: x\n    to:\n    any\n", "4:5 this does not belong to what stands above it | entries that belong together start in the same column"},
		{"key and list mixed", "rules:\n  allow: x\n  - deny: y\n", "3:3 a key with a colon is missing here | write `key: value`"},
		{"list behind its key", "rules: - allow: x\n", "1:8 a list that starts on the line of its key | start the list on a line of its own, or write [one, two]"},
		{"two keys in a line", "log: level: info\n", "1:6 a second key on the same line | put a value that holds a colon and a space in quotes"},
		{"comma missing", "log: {level: info format: text}\n", "1:14 a second colon in one value | is a comma missing? Otherwise put the value in quotes"},
		{"blank missing", "log: {level:\"info\"}\n", "1:12 a blank is missing behind the colon | write `key: value`"},
		{"blank missing, too", "log: {level:info}\n", "1:7 unknown key \"level:info\" | write `key: value`, with a blank behind the colon"},
		{"brackets without quotes", "listeners:\n  - listen: [::1]:1080\n", "2:18 this stands right behind a quote or a bracket | put the whole value in quotes, such as \"[::1]:1080\""},
		{"brackets within braces", "listeners: {listen: [::1]:1080}\n", "1:26 this stands right behind a quote or a bracket | put the whole value in quotes, such as \"[::1]:1080\""},
		{"group without quotes", "rules: {allow: x, users: [bob, @staff]}\n", "1:32 a value that starts with @ stands in quotes | write \"@staff\""},
		{"suffix without quotes", "rules: {allow: x, to: [a.b, *.example.com]}\n", "1:29 no anchor called \".example.com\" stands above this | for a name that starts with * write \"*.example.com\""},
		{"tab in front", "rules:\n\t- allow: x\n", "2:1 a tab in the indentation | indent with spaces"},
		{"tab behind blanks", "rules:\n  - allow: x\n  \tto: any\n", "3:3 a tab in the indentation | indent with spaces"},
		{"tab in a value", "rules:\n  - allow: x\ty\n", "2:12 a tab within a value | write spaces, or put the value in quotes"},
		{"list not closed", "rules:\n  - allow: x\n    to: [any\n", "3:9 this [ is never closed | close the list with ]"},
		{"mapping not closed", "log: {level: info\n", "1:6 this { is never closed | close the mapping with }"},
		{"quote not closed", "rules:\n  - allow: \"x\n    to: \"any\"\n", "2:12 this quote is not closed on its line | "},
		{"single quote not closed", "rules: {allow: 'it''s}", "1:16 this quote is not closed on its line | "},
		{"text behind a quote", "rules: {allow: 'it's'}", "1:20 this stands right behind a quote or a bracket | put the whole value in quotes, such as \"[::1]:1080\""},
		{"text behind a value", "rules: {allow: 'it' s}", "1:21 a comma or } is missing before this | "},
		{"escape", `rules: {allow: "x\q"}`, `1:18 this is not an escape of YAML | write \\ for a backslash, "\x01" for a byte, "\u00e9" for a character`},
		{"escape without digits", `rules: {allow: "\xzz"}`, `1:17 this is not an escape of YAML | write \\ for a backslash, "\x01" for a byte, "\u00e9" for a character`},
		{"half of a surrogate pair", `rules: {allow: "\ud800"}`, `1:17 this is not an escape of YAML | write \\ for a backslash, "\x01" for a byte, "\u00e9" for a character`},
		{"block text", "rules: {}\nlog: |\n  x\n", "2:6 a block of text is used nowhere in settings | put the value in quotes"},
		{"second document, with an end", "[a]\n...\n[b]\n", "3:1 a second document | settings are one document, without a line of --- or ... in it"},
		{"second document", "admin: off\n---\nadmin: off\n", "2:1 a second document | settings are one document, without a line of --- or ... in it"},
		{"directive", "%YAML 1.2\n---\nadmin: off\n", "1:1 % starts a directive here, and settings do without | leave it out, or put the value in quotes"},
		{"merge key", "log:\n  <<: {level: info}\n", "2:3 merge keys are not supported | write the keys out"},
		{"alias before its anchor", "rules: [*x, &x {allow: y}]\n", "1:9 no anchor called \"x\" stands above this | for a name that starts with * write \"*x\""},
		{"alias within itself", "groups: {a: &x [*x]}\n", "1:17 no anchor called \"x\" stands above this | for a name that starts with * write \"*x\""},
		{"tag", "log: {level: !level info}\n", "1:14 the tag \"!level\" is not used in settings | leave it out"},
		{"tag without a value", "groups: {a: !!str , b: c}\n", "1:13 expected text, found nothing | "},
		{"tag of nothing", "groups:\n  a: !!str\n", "2:6 !!str is for a single value | "},
		{"key with a question mark", "? log\n: {level: info}\n", "1:1 a key that starts with ? is not used in settings | write `key: value`"},
		{"not base64", "groups: {a: !!binary x}\n", "1:22 this is not base64 | "},
		{"control character", "admin: off\nlog: {level: \x1b[31m}\n", "2:14 a control character stands in the text | between double quotes it may be written as an escape, such as \"\\x01\""},
		{"carriage return alone", "admin: off\rlog: {}\n", "1:11 a control character stands in the text | between double quotes it may be written as an escape, such as \"\\x01\""},
		{"Latin 1", "admin: off\nrules: {allow: caf\xe9}\n", "2:19 this is not UTF-8 text | save the file as UTF-8"},
		{"UTF-16", "\xff\xfea\x00", "1:1 this is not UTF-8 text | save the file as UTF-8"},
		{"lone brace", "}", "1:1 expected keys with values, found \"}\" | the keys here are admin, groups, hide_address, include, ledger, limits, listeners, log, open_to_the_world, pac, resolver, rules, schedules, sets, ssh, timeouts, upstreams, users, virtual_ports"},
		{"lone colon", ":", "1:1 this cannot be a key | write `key: value`"},
		{"list as a key", "[a]: b", "1:4 a key is missing before the colon | put a value that holds a colon and a space in quotes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkFaults(t, c.file, Override{}, []string{c.want})
		})
	}
}
