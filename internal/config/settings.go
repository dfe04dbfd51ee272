// Package config reads the settings file: one strict YAML document. It fills
// in the defaults, checks every value and every reference, and reports all
// faults of a file at once, each with its place.
//
// A file is read in three steps. The YAML library makes a tree of nodes out of
// the text (parse.go); the trees of included files are put into it (include.go).
// The decoder walks the tree and knows, at every value, where it stands; it
// collects faults instead of stopping at the first (decode.go). Each section has
// a function that turns its node into values and checks them there (listeners.go,
// tls.go, rules.go, upstreams.go, users.go, groups.go, sets.go, schedules.go,
// limitspec.go, resolver.go, sections.go). Last come the checks that need all
// sections: names that must exist (read.go), files (files.go), open proxies by
// accident (open.go), and rules that can never match (shadow.go). What the decoder
// takes, the schema describes for editors (schema.go).
//
// Nothing here knows the server: values leave this package as plain data.
package config

import (
	"net/netip"
	"slices"
	"time"
)

// Override is what the command line says in place of the file. The zero value
// overrides nothing.
type Override struct {
	Listen string // the address of the only listener, which keeps its name; empty: the file's
	Admin  string // where the admin page listens; "off": nowhere, and there is no socket; empty: as the file says
}

// Settings is everything that a file says, with every default filled in. The
// slices are the caller's own.
type Settings struct {
	Listeners []Listener // at least one
	Users     Users
	Groups    map[string][]string // by group name: the user names in it
	// LedgerGroups are those of Groups whose members the ledger has; there they have none.
	LedgerGroups []string
	Upstreams    []Upstream          // in the order of the file
	Sets         map[string]Set      // by name, without the @
	Schedules    map[string]Schedule // by name
	Limits       map[string]Limit    // by name
	Rules        []Rule              // in the order of the file; empty denies everything
	VirtualPorts []VirtualPort       // in the order of the file
	SSH          SSH
	Resolver     Resolver
	Timeouts     Timeouts
	Log          Log
	Admin        Admin
	PAC          PAC
	Ledger       Ledger
}

// Listener is an address that clients come to. One that was written with several
// addresses, or a range of ports, is as many.
type Listener struct {
	Name           string     // unique, but for those that were written as one; the default is Listen, and "default" without a file
	Listen         string     // "host:port", ":port", "udp/host:port" or "unix:/path", as written, but for ranges. Port 0 is any free one; the host may be an interface
	Protocols      []string   // of "socks4", "socks4a", "socks5", "http", "ssh"; never empty. Of a port mapping just "map"
	Map            *Map       // where all clients are led to; nil: it is no port mapping
	TLS            TLS        // of the proxy itself
	ProxyProtocol  []Network  // load balancers, which must say who the client is: prefixes, "loopback", "private"
	Advertise      netip.Addr // what BIND and UDP replies say, behind NAT; zero: none
	BindPorts      PortRange  // where BIND listens; zero: any free port
	HideAddress    bool       // replies to CONNECT carry zeros
	OpenToTheWorld bool       // may serve everybody on a public address
	UserIDMax      int        // bytes of a userid, 1 to 1024; the default is 255
	During         string     // the schedule by which it serves; it exists. Empty: always
}

// Map says where the clients of a listener are led to: each to one of the targets.
type Map struct {
	Targets       []MapTarget   // at least one
	Choose        string        // "first alive", "round robin", "random", "by client", "least sessions"
	Check         time.Duration // from one check of each target to the next, 1s at the least; 0: none is checked
	TLS           MapTLS        // with the targets
	ProxyProtocol int           // 1 or 2: the version of the PROXY header that a target gets; 0: none
	Idle          time.Duration // of UDP: how long a client may be silent; 0: it is not UDP
}

// MapTarget is where a port mapping leads to: Host and Port, or Socket.
type MapTarget struct {
	Host   string // an address, or a name in lower case without the trailing dot
	Port   uint16 // 1 or more
	Socket string // the path of a unix socket; a relative name starts at the settings file's folder
	last   uint16 // while it is read: of a range of ports that begins with Port; 0: it is none
}

// MapTLS says that, and how, targets are spoken to over TLS. The zero value: they
// are not.
type MapTLS struct {
	On   bool
	CA   string // PEM: who signs the targets' certificates; empty: whom the system trusts
	Name string // what the certificate must be for; empty: the target's host
}

// TLS lets clients speak to a listener over TLS. The zero value does not. The
// files are as the settings name them, but that relative names start at the
// settings file's folder.
type TLS struct {
	Certificate string // PEM, the server's certificate first; empty: no TLS
	Key         string // PEM; set where Certificate is
	ClientCA    string // PEM: who signs the clients' certificates; empty: they are not asked for any
	Only        bool   // tls_only: true: plain clients are turned away
}

// Users says where passwords are kept. The zero value: nowhere, and no rule
// asks for one.
type Users struct {
	File   string // as the settings name it, but that a relative name starts at the settings file's folder
	Ledger bool   // the ledger has them; File is empty
}

// Set is a list of host names and networks that rules call @name. What is in
// the files is not looked at here.
type Set struct {
	Hosts    []string // files of host names: as the settings name them, but that relative names start at the settings file's folder
	Prefixes []string // files of networks, the same
	Entries  []Target // what is written in the settings themselves: prefixes and names
}

// HasNetworks reports whether anything of the set can be where a client is:
// host names cannot.
func (s Set) HasNetworks() bool {
	return len(s.Prefixes) > 0 || slices.ContainsFunc(s.Entries, func(t Target) bool { return t.Prefix.IsValid() })
}

// Schedule is when something holds: in any of its spans.
type Schedule struct {
	Spans []Span         // at least one
	Zone  *time.Location // whose clocks it goes by; never nil
}

// Span is a part of the day, on some days of the week. Never empty.
type Span struct {
	Days     [7]bool // by time.Weekday: where it begins. At least one
	From, To int     // minutes from midnight: From 0 to 1439, To 0 to 1440. To <= From: it ends on the next day
}

// Limit is how fast, how much, or how many. Just one of Rate, Up or Down,
// Quota or QuotaTime, Sessions and NewSessions is over zero.
type Limit struct {
	Rate        int64         // bits a second, both directions together
	Up, Down    int64         // bits a second, each direction by itself; 0: not limited
	Burst       int64         // of a rate: bytes that may be moved at once when nothing moved before; 0: the usual
	Quota       int64         // bytes
	QuotaTime   time.Duration // with an open session
	Counts      string        // of a Quota: "up" or "down"; "both" and empty: the sum
	Every       Period        // when a quota begins anew; zero: never (of a session's quota)
	Then        int64         // of a quota: bits a second beyond it; 0: deny
	Warn        []int         // of a quota: percents at which to warn, 1 to 99, the least first
	Shared      bool          // a rate is that of all servers of the ledger together
	Sessions    int           // at the same time
	NewSessions int           // in NewPer
	NewPer      time.Duration // a second, a minute or an hour
	Per         string        // whose use is summed up: "session", "source", "user", "group", "rule", "listener", "server"
}

// IsQuota reports whether the limit is one of how much.
func (l Limit) IsQuota() bool { return l.Quota > 0 || l.QuotaTime > 0 }

// Period is a unit of the calendar, or else so many days. The zero value is
// none.
type Period struct {
	Unit    string         // "hour", "day", "week", "month"
	Days    int            // 1 to 366
	Weekday time.Weekday   // on which a week begins
	Date    int            // on which a month begins, 1 to 31; 0: the first
	Anchor  time.Time      // a day on which one of so many days begins, as 0:00 UTC; zero: any
	Rolling bool           // it has no beginning: what was used counts for as long as this. Of no month
	Zone    *time.Location // by whose clocks; nil: this machine's
}

// Resolver says how names are looked up.
type Resolver struct {
	Servers []netip.AddrPort // name servers in the place of the operating system's; empty: those
	Cache   time.Duration    // how long an answer is remembered, up to an hour; 0: not at all
}

// PortRange is the ports from First to Last, both in it. The zero value stands
// for no range.
type PortRange struct{ First, Last uint16 }

// Rule allows or denies the requests that match everything it says. An empty
// list matches everything, but for To.
type Rule struct {
	Name      string // unique, never empty
	Deny      bool
	Listeners []string  // names of listeners that exist
	Protocols []string  // of "socks4", "socks4a", "socks5", "http", "ssh"
	Commands  []string  // of "connect", "bind", "udp"
	From      []Network // where the client is
	Users     []string  // names (any bytes but NUL), "@group" (it exists), "any"
	Proof     []string  // of "claimed", "ident", "password", "certificate", "key"; empty is the default
	To        []Target  // never empty: the default is the word internet, of a deny rule the word any
	Ports     []PortRange
	During    string     // a schedule that exists; empty: always
	Limits    []string   // limits that exist
	Via       string     // the name of an upstream that exists; empty: straight to the target
	Outgoing  netip.Addr // the address of this machine to leave by; zero: any
	Interface string     // the interface to leave by; empty: any
	Mark      uint32     // of the packets that leave; 0: none
	Bind      Bind
}

// Upstream is other proxies that rules can send sessions through.
type Upstream struct {
	Name          string
	Proxies       []string      // URLs as the client package reads them, chains too; at least one
	Choose        string        // "first alive", "round robin", "random", "by client"
	ProxyProtocol int           // 1 or 2: the version of the PROXY header that the first proxy gets; 0: none
	Check         time.Duration // from one check of each proxy to the next; 1s at the least
	LoginFile     string        // holds user:password for all proxies; none of them has a user then. Empty: none
}

// Network is where clients come from: one of Word, Prefix and Set.
type Network struct {
	Word   string       // "any", "loopback", "private", "internet"
	Prefix netip.Prefix // masked; an address is a prefix of its full length
	Set    string       // a set that exists and has networks, without its @; its networks are meant
}

// Target is where clients want to go: one of Word, Prefix, Name and Set.
type Target struct {
	Word   string       // "any", "loopback", "private", "internet"
	Prefix netip.Prefix // masked; an address is a prefix of its full length
	Name   string       // a host name in lower case, without the trailing dot
	Suffix bool         // any name below Name: written *.example.com
	Set    string       // a set that exists, without its @
}

// Bind is a rule's terms for BIND. The zero value is what the SOCKS 4 paper
// asks for.
type Bind struct {
	PrimaryOptional  bool // primary: optional
	AnyPeer          bool // any_peer: true
	WaitForRightPeer bool // wait_for_right_peer: true
}

// Timeouts bound every wait. All are over zero, but for Drain and Upgrade,
// which may be zero, and none is over 30 days.
type Timeouts struct {
	Handshake   time.Duration // from accept to a whole request
	Connect     time.Duration // until the target has answered
	Bind        time.Duration // until the peer of a BIND has come
	Ident       time.Duration // one question to a client's identd
	Association time.Duration // an association of UDP with no datagram either way
	Idle        time.Duration // a relay with nothing sent either way
	HalfClosed  time.Duration // a relay of which one side has ended
	Drain       time.Duration // what sessions get to end when the server stops
	Upgrade     time.Duration // the same when another process has taken over
}

// Log says what is logged and how.
type Log struct {
	Level  string // "debug", "info", "warn", "error"
	Format string // "text", "json"

	Access       string        // the file of the access log; a relative name starts at the settings file's folder; empty: none
	AccessFormat string        // "json", "squid", or a template that ParseAccessTemplate takes
	AccessSize   int64         // in bytes, at which another file is begun; 0: at none
	AccessAge    time.Duration // how much time a file is for; 0: for any
	AccessKeep   int           // how many files are kept besides the one that is written; 0: all
}

// Admin says where commands such as `sallyport reload` and browsers reach the server.
// The zero value: at the usual places.
type Admin struct {
	Off     bool     // neither a socket nor a page; nothing else is set then
	Socket  string   // of the file system; a relative name starts at the settings file's folder; empty: the usual one
	Listen  string   // where the page is, as written: "host:port", ":port" or "off"; empty: at the usual place, if that is free
	TLS     TLS      // of the page: Certificate and Key only; set where others than this machine can reach it
	Hosts   []string // names that the page may be called by besides localhost, in lower case
	File    string   // who may sign in: lines NAME:HASH. As the settings name it, but that a relative name starts at their folder; it need not exist. Empty: the usual one
	Viewers []string // of them, who may only look

	OpenMetrics  bool // everybody may read the metrics of the page, and not only who can sign in
	MetricsUsers int  // how many counts by user there are among them; 0: none
}

// maxTimeout is the longest that any timeout may be.
const maxTimeout = 30 * 24 * time.Hour

// defaults returns what an empty file says, but for the listeners and rules.
func defaults() *Settings {
	return &Settings{
		Groups:    map[string][]string{},
		Sets:      map[string]Set{},
		Schedules: map[string]Schedule{},
		Limits:    map[string]Limit{},
		Timeouts: Timeouts{
			Handshake:   10 * time.Second,
			Connect:     120 * time.Second,
			Bind:        120 * time.Second,
			Ident:       5 * time.Second,
			Association: 5 * time.Minute,
			Idle:        24 * time.Hour,
			HalfClosed:  10 * time.Minute,
			Drain:       30 * time.Second,
			Upgrade:     24 * time.Hour,
		},
		Resolver: Resolver{Cache: 30 * time.Second},
		Log:      Log{Level: "info", Format: "text", AccessFormat: AccessJSON},
		Ledger:   defaultLedger(),
	}
}

// PAC says what the proxy auto-configuration file is made of besides the rules.
type PAC struct {
	Off     bool     // there is none
	Written bool     // the fields below hold; else what is local is reached directly, but for what rules name
	Direct  []Target // names and networks that browsers reach directly; no sets, no words
	Private bool     // so is what else is local, but for the names and networks that rules name
}
