package config

import (
	"path/filepath"
	"strings"
)

// SSH is about all listeners that speak it.
type SSH struct {
	HostKey string // the file of the private key; a relative name starts at the settings file's folder. Empty: the usual one
}

// decodeSSH fills in s.SSH.
func (d *decoder) decodeSSH(n *node) {
	d.mapping(n, fields{"host_key": func(v *node) { d.settings.SSH.HostKey = d.newFile(v) }})
}

// newFile returns n as the name of a file that may not be there yet.
func (d *decoder) newFile(n *node) string {
	text, ok := d.text(n)
	switch {
	case !ok:
		return ""
	case strings.Contains(text, "\x00"):
		d.fail(n, "the name of a file cannot hold a NUL byte", "")
		return ""
	case filepath.IsAbs(text):
		return text
	}
	return filepath.Join(filepath.Dir(n.src.file), text)
}
