package config

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// The schema is for editors: it says which keys there are, what they mean, and
// what a value looks like. It takes whatever the decoder takes, and a little
// more: names that lead nowhere, numbers that are too large, rules that can never
// match. The words and units are the decoder's own; a test compares the keys.

// Schema returns the JSON Schema (2020-12) of the settings file, indented, with
// a newline at its end.
func Schema() ([]byte, error) {
	text, err := json.MarshalIndent(settingsSchema(), "", "  ")
	return append(text, '\n'), err
}

func settingsSchema() *jsonschema.Schema {
	s := object("", properties{
		"listeners":         oneOrMany("where clients come to; default: 127.0.0.1:1080", listenerSchema()),
		"users":             usersSchema(),
		"groups":            named("users by the name of a group; a rule writes it with an @", groupSchema()),
		"sets":              named("lists of host names and networks; a rule writes the name with an @", setSchema()),
		"schedules":         named("when something holds", oneOrMany("", spanSchema())),
		"upstreams":         named("other proxies that rules can send sessions through", upstreamSchema()),
		"limits":            named("how fast, how much, how many", limitSchema()),
		"rules":             oneOrNone("the first that matches decides; where none does the request is denied", ruleSchema()),
		"virtual_ports":     oneOrNone("names that clients of ssh may offer a service under", virtualPortSchema()),
		"ssh":               object("the ssh that listeners speak", properties{"host_key": text("a file with the private key of this server; it is made if it is not there")}),
		"resolver":          resolverSchema(),
		"timeouts":          timeoutsSchema(),
		"log":               logSchema(),
		"admin":             adminSchema(),
		"pac":               pacSchema(),
		"ledger":            ledgerSchema(),
		"include":           oneOrMany("more settings files: a file, a folder, or a pattern such as conf.d/*.yaml", text("")),
		"hide_address":      truth("replies to CONNECT carry zeros instead of the outgoing address; for all listeners that do not say"),
		"open_to_the_world": truth("listeners that do not say may serve anybody on a public address"),
	})
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.Title = "The settings of Sallyport"
	s.Type, s.Types = "", []string{"object", "null"} // an empty file has no value
	return s
}

func listenerSchema() *jsonschema.Schema {
	return object("", properties{
		"listen":            oneOrMany("host:port, :port, interface:port, host:4000-4010, udp/host:port, unix:/path", pattern(".*:.+")),
		"map":               mapSchema(),
		"name":              text("what rules and the log call it; default: the address"),
		"protocols":         oneOrMany("what clients may speak; default: all but ssh", oneOf(protocols().known)),
		"tls":               tlsSchema(),
		"proxy_protocol":    oneOrMany("load balancers that say who the client is", text("")),
		"advertise":         text("the address that BIND and UDP replies give, behind NAT"),
		"bind_ports":        ports("the ports that BIND and UDP may use"),
		"hide_address":      truth("replies to CONNECT carry zeros instead of the outgoing address"),
		"userid_max":        number("the longest userid, in bytes", 1, maxUserIDMax),
		"open_to_the_world": truth("may serve anybody on a public address"),
		"during":            text("the schedule by which it serves; default: always"),
	}, "listen")
}

func mapSchema() *jsonschema.Schema {
	targets := oneOrMany("host:port or unix:/path; each as good as the other", pattern(".+:.+"))
	choose := oneOf(mapChoices().known)
	choose.Description = "which is tried first of those that are alive; default: first alive"
	check := duration("from one check of each target to the next, or off; default: 30s")
	check.AnyOf = append(check.AnyOf, &jsonschema.Schema{Enum: []any{"off", false}})
	keys := object("", properties{
		"to":     targets,
		"choose": choose,
		"check":  check,
		"tls": {Description: "TLS with the targets", AnyOf: []*jsonschema.Schema{
			object("", properties{
				"ca":   text("a PEM file with the certificates of who signs those of targets; default: the system's"),
				"name": text("what their certificates must be for; default: the target's host"),
			}),
			{Type: "boolean"},
		}},
		"proxy_protocol": oneOf(proxyVersions().known),
		"idle":           duration("of UDP: how long a client may be silent; default: 2m"),
	}, "to")
	return &jsonschema.Schema{
		Description: "a port mapping: where all clients of the listener are led to",
		AnyOf:       append([]*jsonschema.Schema{keys}, targets.CloneSchemas().AnyOf...),
	}
}

func virtualPortSchema() *jsonschema.Schema {
	return object("", properties{
		"name":   &jsonschema.Schema{Description: "what clients ask for, and offer", Type: "string", Pattern: entire("[A-Za-z0-9._-]+")},
		"listen": oneOrMany("where visitors come to, as of a listener; default: nowhere, only clients of the proxy reach it", text("")),
		"users":  oneOrMany("names, @groups, or any: who may offer it over ssh", text("")),
	}, "name", "users")
}

func tlsSchema() *jsonschema.Schema {
	return object("clients may speak TLS to the proxy itself", properties{
		"certificate": text("a PEM file: the server's certificate, then those that lead to its root"),
		"key":         text("a PEM file with its private key; may be the same"),
		"client_ca":   text("a PEM file with the certificates of who signs those of clients"),
		"tls_only":    truth("turn away clients that do not speak TLS"),
	}, "certificate", "key")
}

func setSchema() *jsonschema.Schema {
	s := object("", properties{
		"hosts":    oneOrMany("files of host names, one a line", text("")),
		"prefixes": oneOrMany("files of networks, one a line", text("")),
		"entries":  oneOrNone("host names, *.suffixes and networks, written here", text("")),
	})
	s.MinProperties = jsonschema.Ptr(1)
	return s
}

func spanSchema() *jsonschema.Schema {
	day := "(" + strings.Join(dayNames(), "|") + ")"
	clock := "([01][0-9]|2[0-3]):[0-5][0-9]"
	s := object("", properties{
		"days":  oneOrMany("mon, mon-fri, daily, weekdays, weekends; default: daily", pattern(day+"(-"+day+")?|"+strings.Join(slices.Sorted(maps.Keys(dayWords())), "|"))),
		"hours": oneOrMany("09:00-18:00, or 22:00-06:00 for a span that ends on the next day; default: the whole day", pattern(clock+"-("+clock+"|24:00)")),
		"zone":  text("a name of the IANA database, such as Europe/Berlin; default: this machine's own"),
	})
	s.AnyOf = []*jsonschema.Schema{{Required: []string{"days"}}, {Required: []string{"hours"}}}
	return s
}

func limitSchema() *jsonschema.Schema {
	s := object("", properties{
		"rate":         rate("both directions together, such as 20 Mbit/s"),
		"up":           rate("from the client to the target"),
		"down":         rate("from the target to the client"),
		"burst":        {Description: "with a rate: how much may come at once after a silence, such as 2 MiB", Type: "string", Pattern: sizePattern()},
		"shared":       truth("the rate is that of all servers of the ledger together; default: false"),
		"quota":        {Description: "how much, such as 5 GiB; or how long, such as 2h: the time with an open session", Type: "string", Pattern: entire(sizePattern() + "|[0-9.dhms]+")},
		"counts":       described("what of a quota in bytes counts; default: both", oneOf(directions().known)),
		"every":        {Description: "when a quota begins anew: hour, day, week, month, or 30d", AnyOf: []*jsonschema.Schema{oneOf(periods().known), pattern("[0-9]+d")}},
		"begins":       {Description: "when the periods begin: of a week mon to sun, of a month 1 to 31, of days a date", Types: []string{"string", "integer"}},
		"rolling":      truth("what was used counts for as long as `every` says, and does not end at once"),
		"zone":         text("by whose clocks a quota begins anew, such as Europe/Berlin; default: this machine's own"),
		"warn":         oneOrMany("percents of a quota at which the log warns, such as 80%", pattern("[1-9][0-9]?%")),
		"then":         {Description: "what comes beyond a quota: deny (the default), or a rate", AnyOf: []*jsonschema.Schema{oneOf([]string{"deny"}), rate("")}},
		"sessions":     number("at the same time", 1, mostSessions),
		"new_sessions": {Description: "in a time, such as 20/s", Type: "string", Pattern: entire("[0-9]+/(" + strings.Join(slices.Sorted(maps.Keys(frequencyUnits())), "|") + ")")},
		"per":          described("whose use is summed up", oneOf(pers().known)),
	}, "per")
	s.DependentRequired = make(map[string][]string)
	for _, key := range ofQuotas() {
		s.DependentRequired[key] = []string{"quota"}
	}
	for _, kind := range []string{"rate", "quota", "sessions", "new_sessions"} {
		s.OneOf = append(s.OneOf, &jsonschema.Schema{Required: []string{kind}})
	}
	s.OneOf = append(s.OneOf, &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Required: []string{"up"}}, {Required: []string{"down"}}}})
	return s
}

func described(what string, s *jsonschema.Schema) *jsonschema.Schema {
	s.Description = what
	return s
}

func sizePattern() string { return entire("[0-9]+([.][0-9]+)? ?(" + unitNames(byteUnits()) + ")") }

func ruleSchema() *jsonschema.Schema {
	port := ports("")
	port.AnyOf[0].Minimum = jsonschema.Ptr(1.0)
	s := object("", properties{
		"allow":     text("the name of a rule that allows"),
		"deny":      text("the name of a rule that denies"),
		"listeners": oneOrMany("requests to these listeners; default: all", text("")),
		"protocols": oneOrMany("default: all; map: port mappings", oneOf(ruleProtocols().known)),
		"commands":  oneOrMany("default: all", oneOf(commands().known)),
		"from":      oneOrMany("the client's address: networks, @sets, any, internet, private, loopback; default: anywhere", text("")),
		"users":     oneOrMany("names, @groups, or any: whoever shows a name; default: anybody, known or not", text("")),
		"proof":     oneOrMany("how the name must be shown; default of a rule that allows: all but claimed", oneOf(proofs().known)),
		"to":        oneOrMany("the target: networks, host names, *.suffixes, @sets, any, internet, private, loopback; default: internet, of a rule that denies any", text("")),
		"ports":     oneOrMany("the target's port; default: all", port),
		"during":    text("the schedule by which the rule holds; default: always"),
		"limits":    oneOrMany("limits by their names", text("")),
		"via":       text("the upstream that its sessions leave through; default: straight to the target"),
		"outgoing":  text("the address of this machine, or the interface, that its sessions leave by; default: any"),
		"mark":      number("of the packets of its sessions, for routing and firewalls (Linux)", 1, math.MaxInt32),
		"bind": object("the terms for BIND", properties{
			"primary":             oneOf(primaries().known),
			"any_peer":            truth("a BIND for 0.0.0.0 is allowed: whoever connects is the peer"),
			"wait_for_right_peer": truth("a stranger who connects does not end the BIND"),
		}),
	})
	s.OneOf = []*jsonschema.Schema{{Required: []string{"allow"}}, {Required: []string{"deny"}}}
	return s
}

func upstreamSchema() *jsonschema.Schema {
	choose := oneOf(choices().known)
	choose.Description = "in which order they are asked; default: first alive"
	return object("", properties{
		"proxies":        oneOrMany("URLs such as socks5h://gw:1080; several with commas between are a chain", text("")),
		"choose":         choose,
		"check":          duration("from one check of each proxy to the next; default: 30s"),
		"login":          object("who signs in to them", properties{"file": text("a file with one line, user:password")}, "file"),
		"proxy_protocol": oneOf(proxyVersions().known),
	}, "proxies")
}

func adminSchema() *jsonschema.Schema {
	return &jsonschema.Schema{
		Description: "the dashboard, and how `sallyport reload` comes to the server",
		AnyOf: []*jsonschema.Schema{
			object("", properties{
				"socket": text("the path of a unix socket for commands; default: in the folder for such files"),
				"listen": {Description: "host:port of the dashboard, or off; default: 127.0.0.1:1088", AnyOf: []*jsonschema.Schema{text(""), {Enum: []any{false}}}},
				"tls": object("the dashboard is spoken to over TLS; needed where others than this machine can reach it", properties{
					"certificate": text("a PEM file: the certificate, then those that lead to its root"),
					"key":         text("a PEM file with its private key; may be the same"),
				}, "certificate", "key"),
				"hosts":         oneOrMany("names that the dashboard may be called by besides localhost", text("")),
				"file":          text("who may sign in: a file with a line NAME:HASH for each; default: administrators in the folder for what a service keeps"),
				"viewers":       oneOrMany("of those, who may look and not touch", text("")),
				"metrics":       described("who may read /metrics: token, those who can sign in (the default); open, everybody", oneOf(metricsReaders().known)),
				"metrics_users": number("how many users have counts of their own in /metrics; default: 0", 0, mostMetricsUsers),
			}),
			{Enum: []any{"off", false}},
		},
	}
}

func pacSchema() *jsonschema.Schema {
	return &jsonschema.Schema{
		Description: "the proxy auto-configuration file of browsers, /proxy.pac and /wpad.dat of listeners that speak HTTP",
		AnyOf: []*jsonschema.Schema{
			object("", properties{
				"direct": oneOrNone("what browsers reach directly: host names, *.suffixes, networks, and private for all that is local; default: what is local, but for what rules name", text("")),
			}, "direct"),
			{Enum: []any{"off", false}},
		},
	}
}

func usersSchema() *jsonschema.Schema {
	s := object("who can sign in", properties{
		"file":   text("a file with a line NAME:HASH for each user, as `sallyport user add` writes it"),
		"ledger": inLedger("the ledger has them"),
	})
	s.MinProperties, s.MaxProperties = jsonschema.Ptr(1), jsonschema.Ptr(1)
	return s
}

func groupSchema() *jsonschema.Schema {
	s := oneOrNone("", text("the name of a user"))
	s.AnyOf = append(s.AnyOf, object("", properties{"ledger": inLedger("the ledger has its members")}, "ledger"))
	return s
}

func inLedger(description string) *jsonschema.Schema {
	return &jsonschema.Schema{Description: description, Enum: []any{true}}
}

func ledgerSchema() *jsonschema.Schema {
	store := func(description string) *jsonschema.Schema {
		return &jsonschema.Schema{Description: description, AnyOf: []*jsonschema.Schema{pattern("sqlite:.+|postgres(ql)?://.+"), {Enum: []any{"off", false}}}}
	}
	lost := oneOf(lostWords().known)
	lost.Description = "while the database is away, for who has used up what was leased of a quota; default: allow"
	return &jsonschema.Schema{
		Description: "where what was used is kept, for `sallyport usage`",
		AnyOf: []*jsonschema.Schema{
			store("").AnyOf[0],
			store("").AnyOf[1],
			object("", properties{
				"store":     store("sqlite: and the name of a file, a URL of PostgreSQL, or off; default: ledger.db in the folder for what a service keeps"),
				"node":      text("what this server is called among those that share the database; default: the name of the machine"),
				"when_lost": lost,
				"hosts":     number("how many target hosts of a user are counted apart in a day; default: 1000", 1, mostApart),
				"names":     number("how many names of a source that it has not proved are counted apart in a day; default: 1000", 1, mostApart),
				"sources":   number("how many addresses of an IPv6 /64 are counted apart in a day; default: 1000", 1, mostApart),
				"flush":     duration("from one write to the next, 100ms to 1m; default: 1s"),
				"keep": object("for how long", properties{
					"minutes": duration("use by minute; default: 2d"),
					"hours":   duration("use by hour; default: 60d"),
					"days":    duration("use by day; default: 1095d"),
				}),
			}),
		},
	}
}

func resolverSchema() *jsonschema.Schema {
	servers := oneOrMany("name servers to ask, up to 8; default: the system's", text(""))
	servers.AnyOf[1].MaxItems = jsonschema.Ptr(maxNameServers)
	return object("how names are looked up", properties{
		"servers": servers,
		"cache":   duration("how long an answer is remembered, up to 1h; default: 30s"),
	})
}

func timeoutsSchema() *jsonschema.Schema {
	return object("every wait has a limit", properties{
		"handshake":   duration("from accept to a whole request; default: 10s"),
		"connect":     duration("deciding and connecting to the target; default: 120s"),
		"bind":        duration("waiting for the peer of a BIND; default: 120s"),
		"ident":       duration("one question to identd; default: 5s"),
		"association": duration("an association of UDP in which nothing moves; default: 5m"),
		"idle":        duration("a relay in which nothing moves; default: 24h"),
		"half_closed": duration("the same after one side has ended; default: 10m"),
		"drain":       duration("what open sessions get when the server stops; default: 30s"),
		"upgrade":     duration("what open sessions get when another process has taken over; default: 24h"),
	})
}

func logSchema() *jsonschema.Schema {
	return object("what is logged, and how", properties{
		"level":  oneOf(logLevels().known),
		"format": oneOf(logFormats().known),

		"access":        text("a file with a line for each session; default: none"),
		"access_format": text("json (the default), squid, or a template such as {time} {client} {user} {target}"),
		"access_size":   {Description: "how large the file may be before another is begun, such as 100 MiB; default: any", Type: "string", Pattern: sizePattern()},
		"access_age":    duration("how much time a file is for, such as 1d; default: any"),
		"access_keep":   number("how many files are kept besides the one that is written; default: all", 1, mostAccessKeep),
	})
}

// properties are the keys of a mapping.
type properties map[string]*jsonschema.Schema

// object is a mapping with these keys and no others.
func object(description string, p properties, required ...string) *jsonschema.Schema {
	return &jsonschema.Schema{Description: description, Type: "object", Properties: p, Required: required, AdditionalProperties: nothing()}
}

// nothing takes no value.
func nothing() *jsonschema.Schema { return &jsonschema.Schema{Not: &jsonschema.Schema{}} }

// named is a mapping whose keys are names of the writer's own.
func named(description string, value *jsonschema.Schema) *jsonschema.Schema {
	return &jsonschema.Schema{Description: description, Type: "object", AdditionalProperties: value, PropertyNames: &jsonschema.Schema{MinLength: jsonschema.Ptr(1)}}
}

// oneOrMany is a list; a list of one may be written without brackets.
func oneOrMany(description string, item *jsonschema.Schema) *jsonschema.Schema {
	s := oneOrNone(description, item)
	s.AnyOf[1].MinItems = jsonschema.Ptr(1)
	return s
}

// oneOrNone is oneOrMany for a list that may be empty.
func oneOrNone(description string, item *jsonschema.Schema) *jsonschema.Schema {
	return &jsonschema.Schema{Description: description, AnyOf: []*jsonschema.Schema{item, {Type: "array", Items: item.CloneSchemas()}}}
}

// text is what the decoder takes as text: what looks like a number is text too.
func text(description string) *jsonschema.Schema {
	return &jsonschema.Schema{Description: description, Types: []string{"string", "number"}, MinLength: jsonschema.Ptr(1)}
}

func truth(description string) *jsonschema.Schema {
	return &jsonschema.Schema{Description: description, Type: "boolean"}
}

func number(description string, low, high float64) *jsonschema.Schema {
	return &jsonschema.Schema{Description: description, Type: "integer", Minimum: &low, Maximum: &high}
}

func oneOf(words []string) *jsonschema.Schema {
	s := &jsonschema.Schema{}
	for _, w := range words {
		s.Enum = append(s.Enum, w)
	}
	return s
}

// pattern is text that matches the expression as a whole.
func pattern(expression string) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: entire(expression)}
}

func entire(expression string) string { return "^(" + expression + ")$" }

func ports(description string) *jsonschema.Schema {
	return &jsonschema.Schema{Description: description, AnyOf: []*jsonschema.Schema{number("", lowestBindPort, 65535), pattern("[0-9]+(-[0-9]+)?")}}
}

func duration(description string) *jsonschema.Schema {
	return &jsonschema.Schema{Description: description, AnyOf: []*jsonschema.Schema{pattern("[-+]?([0-9.]+(d|h|m|s|ms|us|µs|μs|ns))+|[-+]?0"), number("", 0, 0)}}
}

func rate(description string) *jsonschema.Schema {
	return &jsonschema.Schema{Description: description, Type: "string", Pattern: entire("[0-9]+([.][0-9]+)? ?(" + unitNames(rateUnits()) + ")")}
}

// unitNames are the names of units, for an expression.
func unitNames(units []unit) string {
	var list []string
	for _, u := range units {
		list = append(list, u.name)
	}
	return strings.Join(list, "|")
}
