package admin

import (
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Meters is what the metrics are of. Its methods may be called from many goroutines at
// once.
type Meters interface {
	// Measures returns the counters as they are. What it costs does not depend on how
	// many sessions are open. It may wait for a reload to end.
	Measures() Measures
	// Ready returns nil while new clients are served, else why they are not.
	Ready() error
}

// Measures are counters since the server began, and gauges of this moment.
type Measures struct {
	Doors          []DoorMeasures
	Rules          map[string]uint64 // sessions that each has decided
	Users          map[string]Use    // bytes, where they are counted by user; "" is all others. Names are escaped as in the log
	Accepting      bool              // new clients are served
	Paused         bool              // accepting waits for connections to end
	Connections    int
	MaxConnections int
	Handshakes     int
	MaxHandshakes  int
	Quotas         []QuotaCounts
	LogLinesLost   map[string]int64 // by the log that they were of
}

// DoorMeasures are those of one listener and protocol.
type DoorMeasures struct {
	Listener, Protocol string // the protocol is empty where none was told
	Opened             uint64
	Open               int
	Up, Down           int64
	Refused, Ended     map[string]uint64 // by reason
}

// family is a metric's name, and how it grows.
type family struct {
	*prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) family {
	return family{prometheus.NewDesc("sallyport_"+name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) family {
	return family{prometheus.NewDesc("sallyport_"+name, help, labels, nil), prometheus.GaugeValue}
}

// families are all metrics of ours. What deploy/ and docs/observing.md name is among
// them.
type families struct {
	info, accepting, paused, connections, maxConnections, handshakes, maxHandshakes family
	opened, open, ended, refused, bytes, userBytes, ruleHits                        family
	quotaWarnings, quotaRefused, quotaEnded                                         family
	ledgerUp, ledgerWrites, ledgerFailed                                            family
	upstreamUp, certificateExpiry, reloadGood, reloadAt, linesLost                  family
}

func newFamilies() families {
	return families{
		info:              gauge("build_info", "1, of this version.", "version", "go"),
		accepting:         gauge("accepting", "1 while new clients are served, 0 while the server drains."),
		paused:            gauge("accepting_paused", "1 while no place is free for another connection."),
		connections:       gauge("connections", "Places that are taken: connections, streams of HTTP/2, channels of SSH, and one for the next client of each listener."),
		maxConnections:    gauge("connections_max", "How many places there are."),
		handshakes:        gauge("handshakes", "Connections without a whole request yet."),
		maxHandshakes:     gauge("handshakes_max", "How many there may be; one more ends the oldest."),
		opened:            counter("sessions_opened_total", "Sessions whose request was known.", "listener", "protocol"),
		open:              gauge("sessions_open", "Sessions that are open.", "listener", "protocol"),
		ended:             counter("sessions_ended_total", "Sessions that were relayed and are over, by the reason of their end.", "listener", "protocol", "reason"),
		refused:           counter("sessions_refused_total", "Sessions that came to nothing, by the reason.", "listener", "protocol", "reason"),
		bytes:             counter("bytes_total", "Bytes that were moved, from clients to targets (up) or back (down).", "listener", "protocol", "direction"),
		userBytes:         counter("user_bytes_total", "The same by user, for the first of admin.metrics_users; all others, and claimed names, are the user without a name.", "user", "direction"),
		ruleHits:          counter("rule_hits_total", "Sessions that a rule has decided.", "rule"),
		quotaWarnings:     counter("quota_warnings_total", "Times that somebody had used as much of a quota as to be warned of.", "limit"),
		quotaRefused:      counter("quota_refused_sessions_total", "Sessions that a quota refused.", "limit"),
		quotaEnded:        counter("quota_ended_sessions_total", "Sessions that a quota ended.", "limit"),
		ledgerUp:          gauge("ledger_up", "1 while the ledger can be written."),
		ledgerWrites:      counter("ledger_writes_total", "Writes to the ledger that were well."),
		ledgerFailed:      counter("ledger_failed_writes_total", "Writes to the ledger that failed, and are tried again."),
		upstreamUp:        gauge("upstream_up", "1 while a proxy of an upstream is well, as far as is known.", "upstream", "proxy"),
		certificateExpiry: gauge("certificate_expiry_timestamp_seconds", "When a certificate expires; 0 of one that cannot be read.", "listener", "file"),
		reloadGood:        gauge("last_reload_successful", "1 if the settings that were read last are in force."),
		reloadAt:          gauge("last_reload_timestamp_seconds", "When the settings were last read anew."),
		linesLost:         counter("log_lines_lost_total", "Lines that were lost because a log's disk was full, or its reader too slow.", "log"),
	}
}

// collector makes metrics of what a Panel knows, whenever somebody asks.
type collector struct {
	panel *Panel
	families
}

// Describe implements [prometheus.Collector]. Which metrics there are depends on the
// settings, which change; a collector without descriptions may do that.
func (*collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(to chan<- prometheus.Metric) {
	e := emitter{to, make(map[string]bool)}
	m := c.panel.Meters.Measures()
	e.send(c.info, 1, c.panel.Version, runtime.Version())
	e.send(c.accepting, one(m.Accepting))
	e.send(c.paused, one(m.Paused))
	e.send(c.connections, float64(m.Connections))
	e.send(c.maxConnections, float64(m.MaxConnections))
	e.send(c.handshakes, float64(m.Handshakes))
	e.send(c.maxHandshakes, float64(m.MaxHandshakes))
	for _, d := range m.Doors {
		c.sendDoor(e, d)
	}
	for rule, hits := range m.Rules {
		e.send(c.ruleHits, float64(hits), rule)
	}
	for user, use := range m.Users {
		e.send(c.userBytes, float64(use.Up), user, "up")
		e.send(c.userBytes, float64(use.Down), user, "down")
	}
	for _, q := range m.Quotas {
		e.send(c.quotaWarnings, float64(q.Warned), q.Limit)
		e.send(c.quotaRefused, float64(q.Refused), q.Limit)
		e.send(c.quotaEnded, float64(q.Ended), q.Limit)
	}
	for log, lost := range m.LogLinesLost {
		e.send(c.linesLost, float64(lost), log)
	}
	c.sendHealth(e, c.panel.Health.Health())
}

func (c *collector) sendDoor(e emitter, d DoorMeasures) {
	protocol := d.Protocol
	if protocol == "" {
		protocol = "none"
	}
	e.send(c.opened, float64(d.Opened), d.Listener, protocol)
	e.send(c.open, float64(d.Open), d.Listener, protocol)
	e.send(c.bytes, float64(d.Up), d.Listener, protocol, "up")
	e.send(c.bytes, float64(d.Down), d.Listener, protocol, "down")
	for reason, n := range d.Ended {
		e.send(c.ended, float64(n), d.Listener, protocol, reason)
	}
	for reason, n := range d.Refused {
		e.send(c.refused, float64(n), d.Listener, protocol, reason)
	}
}

func (c *collector) sendHealth(e emitter, h HealthReport) {
	if h.Ledger != nil {
		e.send(c.ledgerUp, one(!h.Ledger.Lost))
		e.send(c.ledgerWrites, float64(h.Ledger.Writes))
		e.send(c.ledgerFailed, float64(h.Ledger.Failed))
	}
	for _, u := range h.Upstreams {
		e.send(c.upstreamUp, one(u.Up), u.Name, u.Proxy)
	}
	for _, cert := range h.Certificates {
		at := 0.0
		if cert.Fault == "" {
			at = float64(cert.Expires.Unix())
		}
		e.send(c.certificateExpiry, at, cert.Listener, cert.File)
	}
	if h.Reload == nil {
		e.send(c.reloadGood, 1)
		return
	}
	e.send(c.reloadGood, one(h.Reload.Faults == ""))
	e.send(c.reloadAt, float64(h.Reload.At.Unix()))
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// emitter sends metrics, each but once: two would make the whole answer void. Listeners
// with many addresses have one name and certificate, and an upstream may be several ways.
type emitter struct {
	to   chan<- prometheus.Metric
	sent map[string]bool
}

func (e emitter) send(f family, value float64, labels ...string) {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "\uFFFD")
	}
	key := f.String() + "\x00" + strings.Join(labels, "\x00")
	if e.sent[key] {
		return
	}
	e.sent[key] = true
	e.to <- prometheus.MustNewConstMetric(f.Desc, f.kind, value, labels...)
}
