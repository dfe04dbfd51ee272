package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// parse returns the settings of a file without faults, in which the schema finds
// none either.
func parse(t *testing.T, file string) *Settings {
	t.Helper()
	s, err := Parse("f.yaml", []byte(file), Override{})
	if err != nil {
		t.Fatalf("%v", err)
	}
	if err := schemaFault(t, file); err != nil {
		t.Errorf("the schema refuses %.300q: %v", file, err)
	}
	return s
}

// byDefault is what DESIGN promises without a file.
func byDefault() *Settings {
	return &Settings{
		Listeners: []Listener{{Name: "default", Listen: "127.0.0.1:1080", Protocols: defaultProtocols(), UserIDMax: 255}},
		Groups:    map[string][]string{},
		Sets:      map[string]Set{},
		Schedules: map[string]Schedule{},
		Limits:    map[string]Limit{},
		Rules:     []Rule{{Name: "this machine", From: []Network{{Word: "loopback"}}, To: []Target{{Word: "any"}}}},
		Timeouts: Timeouts{
			Association: 5 * time.Minute,
			Handshake:   10 * time.Second, Connect: 2 * time.Minute, Bind: 2 * time.Minute, Ident: 5 * time.Second,
			Idle: 24 * time.Hour, HalfClosed: 10 * time.Minute, Drain: 30 * time.Second, Upgrade: 24 * time.Hour,
		},
		Resolver: Resolver{Cache: 30 * time.Second},
		Log:      Log{Level: "info", Format: "text", AccessFormat: AccessJSON},
		Ledger:   Ledger{Flush: time.Second, Apart: LedgerApart{1000, 1000, 1000}, Keep: LedgerKeep{48 * time.Hour, 1440 * time.Hour, 26280 * time.Hour}},
	}
}

func TestDefault(t *testing.T) {
	s, err := Default(Override{})
	if err != nil {
		t.Fatal(err)
	}
	if want := byDefault(); !reflect.DeepEqual(s, want) {
		t.Errorf("Default:\n%+v\nwant:\n%+v", s, want)
	}
}

func TestEmptyFiles(t *testing.T) {
	for _, file := range []string{
		"", "\n\n", "# nothing\n", "---\n", "---\n...\n", "~\n", "{}\n", "\ufeff", "\r\n", "  \n\t\n", "admin: {}",
		"groups: {}", "timeouts: {}", "log: {}", "hide_address: false", "rules: {allow: this machine, from: loopback, to: any}",
	} {
		if s, want := parse(t, file), byDefault(); !reflect.DeepEqual(s, want) {
			t.Errorf("%q:\n%+v\nwant:\n%+v", file, s, want)
		}
	}
}

const whole = `
# A file that says all there is to say.
hide_address: true
open_to_the_world: true
listeners:
  - name: lan
    listen: 192.168.1.1:1080
    protocols: [socks4a]
    advertise: ::ffff:203.0.113.7
    bind_ports: 40000-40999
    hide_address: false
    open_to_the_world: false
    userid_max: 1
    tls: {certificate: pem/gw.pem, key: /etc/gw.key, client_ca: staff.pem, tls_only: true}
  - {listen: ":0", bind_ports: 5000, userid_max: 1024}
  - listen: '[2001:db8::1]:1080'
    protocols: [socks4, socks5, http]
    tls: {certificate: gw.pem, key: gw.pem}
    proxy_protocol: [10.0.0.0/8, "2001:db8::7", loopback, private]
    during: opening
sets:
  blocked: {hosts: [ads.txt, /srv/spies.txt], prefixes: nets.txt, entries: [Ads.example., "*.spy.example", 192.0.2.0/24]}
  none: {entries: []}
schedules:
  work hours: {days: mon-fri, hours: 09:00-18:00, zone: Europe/Berlin}
  nights: {hours: [22:00-06:00, 12:00-24:00]}
  opening:
    - {days: [weekdays, sun], hours: 08:30-12:00, zone: UTC}
    - {days: fri-mon}
limits:
  fair: {rate: 20 Mbit/s, per: user}
  slow: {up: 64 kbit/s, down: 1.5 MiB/s, per: session}
  daily: {quota: 5 GiB, every: day, per: group, then: deny}
  monthly: {quota: 0.5TB, every: 30d, per: source, then: 1Mbit/s}
  once: {quota: 1 MB, per: session}
  first: {quota: 1 TB, every: month, begins: 15, zone: Europe/Berlin, warn: [95%, 80%], counts: down, per: user}
  weekly: {quota: 10h, every: week, per: user}
  fortnight: {quota: 1 GB, every: 14d, begins: 2026-11-30, per: user}
  lately: {quota: 1 GB, every: week, rolling: true, per: user}
  bursts: {rate: 1 Mbit/s, burst: 5 MB, per: user}
  few: {sessions: 200, per: listener}
  calm: {new_sessions: 100/min, per: server}
resolver: {servers: [192.0.2.53, "192.0.2.54:5353", "2001:db8::53", "[2001:db8::54]:5353", "::ffff:192.0.2.55"], cache: 1h}
users: {file: users}
groups:
  staff: [alice, bob, 1234]
  none: []
  one: carol
rules:
  - deny: nothing bad
    to: ["@blocked", 169.254.0.0/16, "*.Corp.example.", Host.example.COM., localhost, privat., my_host, 2001:DB8::/32, 10.1.2.3]
  - allow: staff on the web
    listeners: [lan, ":0"]
    protocols: socks4
    commands: [connect, bind, udp]
    from: [192.168.1.0/24, "::1", "::ffff:10.0.0.0/104", private, loopback, "@blocked"]
    users: ["@staff", '@none', 77, any, "\x01é", !!binary /w==, !!str true]
    proof: [ident, password, certificate, key]
    to: [internet, private, loopback, any]
    ports: [80, "443", 8000-8999]
    during: work hours
    limits: [fair, daily]
    bind: {primary: optional, any_peer: true, wait_for_right_peer: true}
timeouts: {association: 30s, handshake: 1s, connect: 1m30s, bind: 0.5d, ident: 1500ms, idle: 30d, half_closed: 2d12h, drain: 0, upgrade: 12h}
log: {level: error, format: json}
admin: off
ledger: {store: "sqlite:used.db", flush: 2s, hosts: 500, names: 60, sources: 70, keep: {minutes: 1d, hours: 2d, days: 3660d}}
`

// wholeListeners are those of whole.
func wholeListeners() []Listener {
	v4 := netip.MustParsePrefix
	return []Listener{
		{
			Name: "lan", Listen: "192.168.1.1:1080", Protocols: []string{"socks4a"}, Advertise: netip.MustParseAddr("203.0.113.7"),
			BindPorts: PortRange{40000, 40999}, UserIDMax: 1,
			TLS: TLS{Certificate: "/etc/sallyport/pem/gw.pem", Key: "/etc/gw.key", ClientCA: "/etc/sallyport/staff.pem", Only: true},
		},
		{
			Name: ":0", Listen: ":0", Protocols: defaultProtocols(), BindPorts: PortRange{5000, 5000},
			HideAddress: true, OpenToTheWorld: true, UserIDMax: 1024,
		},
		{
			Name: "[2001:db8::1]:1080", Listen: "[2001:db8::1]:1080", Protocols: []string{"socks4", "socks5", "http"},
			HideAddress: true, OpenToTheWorld: true, UserIDMax: 255,
			TLS: TLS{Certificate: "/etc/sallyport/gw.pem", Key: "/etc/sallyport/gw.pem"},
			ProxyProtocol: []Network{
				{Prefix: v4("10.0.0.0/8")}, {Prefix: v4("2001:db8::7/128")}, {Word: "loopback"}, {Word: "private"},
			},
			During: "opening",
		},
	}
}

// wholeSets are those of whole.
func wholeSets() map[string]Set {
	v4 := netip.MustParsePrefix
	return map[string]Set{
		"blocked": {
			Hosts: []string{"/etc/sallyport/ads.txt", "/srv/spies.txt"}, Prefixes: []string{"/etc/sallyport/nets.txt"},
			Entries: []Target{{Name: "ads.example"}, {Name: "spy.example", Suffix: true}, {Prefix: v4("192.0.2.0/24")}},
		},
		"none": {Entries: []Target{}},
	}
}

// wholeLimits are those of whole.
func wholeLimits(t *testing.T) map[string]Limit {
	t.Helper()
	return map[string]Limit{
		"fair":    {Rate: 20_000_000, Per: "user"},
		"slow":    {Up: 64_000, Down: 8 * 3 << 19, Per: "session"},
		"daily":   {Quota: 5 << 30, Every: Period{Unit: "day"}, Per: "group"},
		"monthly": {Quota: 500_000_000_000, Every: Period{Days: 30}, Then: 1_000_000, Per: "source"},
		"once":    {Quota: 1_000_000, Per: "session"},
		"first": {
			Quota: 1_000_000_000_000, Every: Period{Unit: "month", Date: 15, Zone: berlin(t)}, Warn: []int{80, 95}, Counts: "down", Per: "user",
		},
		"weekly":    {QuotaTime: 10 * time.Hour, Every: Period{Unit: "week", Weekday: time.Monday}, Per: "user"},
		"fortnight": {Quota: 1_000_000_000, Every: Period{Days: 14, Anchor: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)}, Per: "user"},
		"lately":    {Quota: 1_000_000_000, Every: Period{Unit: "week", Rolling: true}, Per: "user"},
		"bursts":    {Rate: 1_000_000, Burst: 5_000_000, Per: "user"},
		"few":       {Sessions: 200, Per: "listener"},
		"calm":      {NewSessions: 100, NewPer: time.Minute, Per: "server"},
	}
}

func berlin(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// wholeSchedules are those of whole.
func wholeSchedules(t *testing.T) map[string]Schedule {
	t.Helper()
	daily := [7]bool{true, true, true, true, true, true, true}
	return map[string]Schedule{
		"work hours": {[]Span{{[7]bool{1: true, 2: true, 3: true, 4: true, 5: true}, 540, 1080}}, berlin(t)},
		"nights":     {[]Span{{daily, 1320, 360}, {daily, 720, 1440}}, time.Local},
		"opening": {[]Span{
			{[7]bool{true, true, true, true, true, true, false}, 510, 720},
			{[7]bool{0: true, 1: true, 5: true, 6: true}, 0, 1440},
		}, time.UTC},
	}
}

func TestWholeFile(t *testing.T) {
	v4 := netip.MustParsePrefix
	want := &Settings{
		Listeners: wholeListeners(), Users: Users{File: "/etc/sallyport/users"},
		Groups:    map[string][]string{"staff": {"alice", "bob", "1234"}, "none": {}, "one": {"carol"}},
		Sets:      wholeSets(),
		Schedules: wholeSchedules(t),
		Limits:    wholeLimits(t),
		Rules: []Rule{
			{Name: "nothing bad", Deny: true, To: []Target{
				{Set: "blocked"},
				{Prefix: v4("169.254.0.0/16")},
				{Name: "corp.example", Suffix: true},
				{Name: "host.example.com"},
				{Name: "localhost"},
				{Name: "privat"},
				{Name: "my_host"},
				{Prefix: v4("2001:db8::/32")},
				{Prefix: v4("10.1.2.3/32")},
			}},
			{
				Name: "staff on the web", Listeners: []string{"lan", ":0"}, Protocols: []string{"socks4"}, Commands: []string{"connect", "bind", "udp"},
				From: []Network{
					{Prefix: v4("192.168.1.0/24")},
					{Prefix: v4("::1/128")},
					{Prefix: v4("10.0.0.0/8")},
					{Word: "private"},
					{Word: "loopback"},
					{Set: "blocked"},
				},
				Users:  []string{"@staff", "@none", "77", "any", "\x01é", "\xff", "true"},
				Proof:  []string{"ident", "password", "certificate", "key"},
				To:     []Target{{Word: "internet"}, {Word: "private"}, {Word: "loopback"}, {Word: "any"}},
				Ports:  []PortRange{{80, 80}, {443, 443}, {8000, 8999}},
				During: "work hours", Limits: []string{"fair", "daily"},
				Bind: Bind{PrimaryOptional: true, AnyPeer: true, WaitForRightPeer: true},
			},
		},
		Timeouts: Timeouts{
			Association: 30 * time.Second,
			Handshake:   time.Second, Connect: 90 * time.Second, Bind: 12 * time.Hour, Ident: 1500 * time.Millisecond,
			Idle: 30 * 24 * time.Hour, HalfClosed: 60 * time.Hour, Drain: 0, Upgrade: 12 * time.Hour,
		},
		Resolver: Resolver{
			Servers: []netip.AddrPort{
				netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("192.0.2.54:5353"),
				netip.MustParseAddrPort("[2001:db8::53]:53"), netip.MustParseAddrPort("[2001:db8::54]:5353"),
				netip.MustParseAddrPort("192.0.2.55:53"),
			},
			Cache: time.Hour,
		},
		Log: Log{Level: "error", Format: "json", AccessFormat: AccessJSON}, Admin: Admin{Off: true},
		Ledger: Ledger{Path: "/etc/sallyport/used.db", Flush: 2 * time.Second, Apart: LedgerApart{500, 60, 70}, Keep: LedgerKeep{24 * time.Hour, 48 * time.Hour, 3660 * 24 * time.Hour}},
	}
	parse(t, whole)
	for _, file := range []string{whole, strings.ReplaceAll(whole, "\n", "\r\n"), "---\n" + whole + "...\n"} {
		s, err := Parse("/etc/sallyport/sallyport.yaml", []byte(file), Override{})
		if err != nil || !reflect.DeepEqual(s, want) {
			t.Errorf("%v\n%+v\nwant:\n%+v", err, s, want)
		}
	}
}

// A list of one stands without brackets, everywhere.
func TestListOfOne(t *testing.T) {
	short := parse(t, `
listeners: {listen: ":0", name: a, protocols: socks4}
groups: {g: u}
rules: {allow: x, listeners: a, protocols: socks4, commands: bind, from: "::1", users: "@g", proof: ident, to: a.example, ports: 80}
`)
	long := parse(t, `
listeners: [{listen: ":0", name: a, protocols: [socks4]}]
groups: {g: [u]}
rules:
- allow: x
  listeners: [a]
  protocols:
  - socks4
  commands: [bind]
  from:
    - ::1
  users: ["@g"]
  proof: [ ident ]
  to: [
    a.example, # the only one
  ]
  ports: [80]
`)
	if !reflect.DeepEqual(short, long) {
		t.Errorf("\n%+v\n%+v", short, long)
	}
}

func TestNoRules(t *testing.T) {
	if s := parse(t, "rules: []"); len(s.Rules) != 0 {
		t.Errorf("rules %+v, want none: everything is denied", s.Rules)
	}
}

// Silence about where to is taken on the safe side, whichever that is.
func TestDefaultTargets(t *testing.T) {
	s := parse(t, "rules: [{allow: a}, {deny: b}]")
	for i, want := range []string{"internet", "any"} {
		if to := s.Rules[i].To; len(to) != 1 || to[0] != (Target{Word: want}) {
			t.Errorf("rule %q goes to %+v, want %s", s.Rules[i].Name, to, want)
		}
	}
}

// Within braces the YAML library takes every colon for the end of a key.
func TestColonsWithinBraces(t *testing.T) {
	s := parse(t, `{"rules":[{"allow":x,"from":["::1",fd00::/8,2001:db8::,::2,127.0.0.1]},{allow: "y", from: ::3}]}`)
	var got []string
	for _, r := range s.Rules {
		for _, n := range r.From {
			got = append(got, n.Prefix.String())
		}
	}
	if g, w := strings.Join(got, " "), "::1/128 fd00::/8 2001:db8::/128 ::2/128 127.0.0.1/32 ::3/128"; g != w {
		t.Errorf("from %s, want %s", g, w)
	}
}

func TestAliases(t *testing.T) {
	s := parse(t, `
groups: {staff: &staff [alice, bob], more: *staff}
rules:
  - &web {allow: web, from: &lan [10.0.0.0/8, private], ports: &p 80}
  - allow: other
    from: *lan
    ports: [*p, 81]
`)
	if !reflect.DeepEqual(s.Groups["more"], []string{"alice", "bob"}) {
		t.Errorf("group %q", s.Groups["more"])
	}
	if !reflect.DeepEqual(s.Rules[1].From, s.Rules[0].From) || !reflect.DeepEqual(s.Rules[1].Ports, []PortRange{{80, 80}, {81, 81}}) {
		t.Errorf("rules %+v", s.Rules)
	}
}

func TestPortMappings(t *testing.T) {
	s := parse(t, `
listeners:
  - {name: mail, listen: 192.168.1.1:25, map: Mail.Example.com.:25}
  - name: shop
    listen: "[::1]:4000-4002"
    map: {to: [10.1.0.1:5000-5002, unix:/run/shop], choose: least sessions, check: off, tls: {name: shop.example}, proxy_protocol: v2}
  - {listen: udp/192.168.1.1:53, map: {to: 10.1.0.53:53, idle: 30s}}
  - {name: own, listen: [eth0.100:7, unix:own.sock], protocols: socks5}
`)
	mail := &Map{Targets: []MapTarget{{Host: "mail.example.com", Port: 25}}, Choose: "first alive"}
	shop := func(port uint16) *Map {
		return &Map{
			Targets: []MapTarget{{Host: "10.1.0.1", Port: port}, {Socket: "/run/shop"}},
			Choose:  "least sessions", TLS: MapTLS{On: true, Name: "shop.example"}, ProxyProtocol: 2,
		}
	}
	names := &Map{Targets: []MapTarget{{Host: "10.1.0.53", Port: 53}}, Choose: "first alive", Idle: 30 * time.Second}
	want := []struct {
		name, listen string
		m            *Map
	}{
		{"mail", "192.168.1.1:25", mail},
		{"shop", "[::1]:4000", shop(5000)},
		{"shop", "[::1]:4001", shop(5001)},
		{"shop", "[::1]:4002", shop(5002)},
		{"udp/192.168.1.1:53", "udp/192.168.1.1:53", names},
		{"own", "eth0.100:7", nil},
		{"own", "unix:own.sock", nil},
	}
	for i, w := range want {
		l := s.Listeners[i]
		if l.Name != w.name || l.Listen != w.listen || !reflect.DeepEqual(l.Map, w.m) {
			t.Errorf("listener %d: %+v, %+v", i, l, l.Map)
		}
	}
	if len(s.Listeners) != len(want) {
		t.Errorf("%d listeners, want %d", len(s.Listeners), len(want))
	}
}

func TestOverride(t *testing.T) {
	file := "listeners: {name: lan, listen: 192.168.1.1:1080, userid_max: 20}"
	s, err := Parse("f.yaml", []byte(file), Override{Listen: "localhost:0", Admin: "off"})
	if err != nil {
		t.Fatal(err)
	}
	want := Listener{Name: "lan", Listen: "localhost:0", Protocols: defaultProtocols(), UserIDMax: 20}
	if !reflect.DeepEqual(s.Listeners, []Listener{want}) {
		t.Errorf("listeners %+v, want %+v", s.Listeners, want)
	}
	if s, err = Default(Override{Listen: "0.0.0.0:9050"}); err != nil || s.Listeners[0].Listen != "0.0.0.0:9050" || s.Listeners[0].Name != "default" {
		t.Errorf("listeners %+v, error %v", s.Listeners, err)
	}
}

func TestOverrideMistakes(t *testing.T) {
	two := "listeners: [{listen: 127.0.0.1:1080}, {listen: 127.0.0.1:1081}]\n"
	for _, c := range []struct {
		name, file string
		o          Override
		want       []string
	}{
		{"several listeners", two, Override{Listen: ":1080"}, []string{"0:0 --listen: the file has 2 listeners, and this is for the only one | change their addresses in the file"}},
		{"no address", "", Override{Listen: "1080"}, []string{`0:0 --listen: "1080" is not an address with a port | write :1080 for all addresses, or 127.0.0.1:1080 for this machine`}},
		{"admin", "", Override{Admin: "192.0.2.1:1088"}, []string{`0:0 --admin: "192.0.2.1:1088" can be reached by others, and passwords would come to it in the clear | write ` + "`admin: {tls: ...}`" + ` into the settings, or an address of this machine such as 127.0.0.1:1088`}},
		{"open", "rules: {allow: all}", Override{Listen: ":1080"}, []string{
			"0:0 --listen: \":1080\" is open to the world: the rule \"all\" does not limit who may use it | limit the rule with `from`, or with `proof: password`; if it is meant, write `open_to_the_world: true`",
		}},
		{"with faults of the file", "rules: {allow: all, to: '*'}\n", Override{Listen: "x", Admin: "on"}, []string{
			`0:0 --admin: "on" is not an address with a port | write an address such as 127.0.0.1:1080, or :1080 for all addresses`,
			`0:0 --listen: "x" is not an address with a port | write an address such as 127.0.0.1:1080, or :1080 for all addresses`,
			`1:25 "*" is not a host name | write any`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkFaults(t, c.file, c.o, c.want)
		})
	}
	_, err := Default(Override{Listen: "x"})
	want := "--listen: \"x\" is not an address with a port\n  write an address such as 127.0.0.1:1080, or :1080 for all addresses"
	if err == nil || err.Error() != want {
		t.Errorf("Default: %v, want %s", err, want)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sallyport.yaml")
	if err := os.WriteFile(path, []byte("log: {level: debug}"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Load(path, Override{Listen: "127.0.0.1:0"})
	if err != nil || s.Log.Level != "debug" || s.Listeners[0].Listen != "127.0.0.1:0" {
		t.Errorf("Load: %+v, %v", s, err)
	}
}

func TestLoadMistakes(t *testing.T) {
	dir := t.TempDir()
	missing, large := filepath.Join(dir, "missing.yaml"), filepath.Join(dir, "large.yaml")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, maxSize+1); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		missing: missing + ": the settings cannot be read: no such file or directory",
		dir:     dir + ": the settings cannot be read: it is a folder",
		large:   large + ": the file is over 16 MiB",
	} {
		s, err := Load(path, Override{})
		if _, ok := errors.AsType[Errors](err); !ok || err.Error() != want || s != nil {
			t.Errorf("Load: %v, want %s", err, want)
		}
		if path == missing && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v is not fs.ErrNotExist", err)
		}
	}
}
