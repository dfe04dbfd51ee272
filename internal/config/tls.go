package config

// tls returns n as the terms for TLS. What is in the files is for whoever
// builds the listener to judge.
func (d *decoder) tls(n *node) TLS {
	var t TLS
	d.mapping(n, fields{
		"certificate": func(v *node) { t.Certificate = d.file(v, "") },
		"key":         func(v *node) { t.Key = d.file(v, "") },
		"client_ca":   func(v *node) { t.ClientCA = d.file(v, "") },
		"tls_only":    func(v *node) { t.Only = d.bool(v) },
	})
	if n.kind == mapping && (!n.has("certificate") || !n.has("key")) {
		d.fail(n, "TLS needs a certificate and its key", "write `tls: {certificate: FILE, key: FILE}`; both may be in one file")
	}
	return t
}
