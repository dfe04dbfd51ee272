package config

// tls returns n as the terms for TLS. What is in the files is for whoever
// builds the listener to judge.
func (d *decoder) tls(n *node) TLS {
	var t TLS
	all := t.pair(d)
	all["client_ca"] = func(v *node) { t.ClientCA = d.file(v, "") }
	all["tls_only"] = func(v *node) { t.Only = d.bool(v) }
	d.mapping(n, all)
	d.pairIsWhole(n)
	return t
}

// pair are the keys for the certificate and its key.
func (t *TLS) pair(d *decoder) fields {
	return fields{
		"certificate": func(v *node) { t.Certificate = d.file(v, "") },
		"key":         func(v *node) { t.Key = d.file(v, "") },
	}
}

// pairIsWhole refuses terms without one of the two.
func (d *decoder) pairIsWhole(n *node) {
	if n.kind == mapping && (!n.has("certificate") || !n.has("key")) {
		d.fail(n, "TLS needs a certificate and its key", "write `tls: {certificate: FILE, key: FILE}`; both may be in one file")
	}
}
