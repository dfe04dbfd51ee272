package config

import (
	"path/filepath"
	"strconv"
	"strings"
)

// isOff tells whether n is off, which YAML of old reads as false.
func (n *node) isOff() bool {
	return n.kind == scalar && (n.text == "off" || n.plain && n.text == "false")
}

// decodeAdmin takes off or the keys.
func (d *decoder) decodeAdmin(n *node) {
	a := &d.settings.Admin
	if n.isOff() {
		a.Off = true
		return
	}
	if n.kind == scalar {
		d.fail(n, "expected off or keys with values, found "+n.describe(), "write `admin: off` or `admin: {listen: 127.0.0.1:1088}`")
		return
	}
	var listen *node
	d.mapping(n, fields{
		"socket":        func(v *node) { a.Socket = d.socketPath(v) },
		"listen":        func(v *node) { listen, a.Listen = v, d.adminListen(v) },
		"tls":           func(v *node) { a.TLS = d.adminTLS(v) },
		"hosts":         func(v *node) { a.Hosts = d.hostNames(v) },
		"file":          func(v *node) { a.File = d.newFile(v) },
		"metrics":       func(v *node) { a.OpenMetrics = d.metricsAreOpen(v) },
		"metrics_users": func(v *node) { a.MetricsUsers, _ = d.number(v, 0, mostMetricsUsers) },
		"viewers":       func(v *node) { d.each(v, func(item *node) { a.Viewers = append(a.Viewers, d.viewer(item)...) }) },
	})
	if addr, m := parseListen(a.Listen); m == nil && listen != nil && !addr.loopback() && a.TLS.Certificate == "" && !n.has("tls") {
		d.fail(listen, quote(a.Listen)+" can be reached by others, and passwords would come to it in the clear",
			"write `tls: {certificate: FILE, key: FILE}` beside it, or an address of this machine such as 127.0.0.1:1088")
	}
}

// adminListen returns n as the address of the admin page, or off.
func (d *decoder) adminListen(n *node) string {
	if n.isOff() {
		return "off"
	}
	text, _, _ := d.listen(n)
	return text
}

// adminTLS returns n as the terms for TLS of the admin page, which asks nobody for
// a certificate and is spoken in no other way.
func (d *decoder) adminTLS(n *node) TLS {
	var t TLS
	d.mapping(n, t.pair(d))
	d.pairIsWhole(n)
	return t
}

// hostNames returns n as names that this machine is called by.
func (d *decoder) hostNames(n *node) []string {
	var names []string
	d.each(n, func(item *node) {
		text, ok := d.text(item)
		if !ok {
			return
		}
		if name, m := parseHost(text); d.take(item, m) {
			names = append(names, name)
		}
	})
	return names
}

// mostMetricsUsers is how many counts by user there may be: each is two lines that
// whoever keeps metrics keeps for months.
const mostMetricsUsers = 1000

func metricsReaders() words {
	return words{what: "a word for who may read metrics", known: []string{"token", "open"}}
}

// metricsAreOpen returns n, which says who may read metrics.
func (d *decoder) metricsAreOpen(n *node) bool {
	word, _ := d.word(n, metricsReaders())
	return word == "open"
}

// viewer returns n as the name of somebody who may look and not touch.
func (d *decoder) viewer(n *node) []string {
	name, ok := d.text(n)
	if !ok {
		return nil
	}
	return []string{name}
}

// overrideAdmin puts the command line in the place of the file.
func (d *decoder) overrideAdmin(flag string) {
	a := &d.settings.Admin
	if flag == "off" {
		*a = Admin{Off: true}
		return
	}
	addr, m := parseListen(flag)
	switch {
	case m != nil:
		d.failFlag("--admin", m.problem, m.hint)
	case !addr.loopback() && a.TLS.Certificate == "":
		d.failFlag("--admin", quote(flag)+" can be reached by others, and passwords would come to it in the clear", "write `admin: {tls: ...}` into the settings, or an address of this machine such as 127.0.0.1:1088")
	default:
		a.Off, a.Listen = false, flag
	}
}

// maxSocketPath is what fits into the address of a unix socket everywhere, in
// bytes.
const maxSocketPath = 100

// socketPath returns n as the name of a socket; a relative one starts at the
// settings file's folder.
func (d *decoder) socketPath(n *node) string {
	name, ok := d.text(n)
	if !ok {
		return ""
	}
	return d.socketFile(n, name)
}

// socketFile is socketPath for a name that n has among other things.
func (d *decoder) socketFile(n *node, name string) string {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(n.src.file), path)
	}
	if len(path) > maxSocketPath || strings.Contains(path, "\x00") {
		d.fail(n, "the name of a socket has more than "+strconv.Itoa(maxSocketPath)+" bytes, or a NUL among them", "write a shorter one")
		return ""
	}
	return path
}
