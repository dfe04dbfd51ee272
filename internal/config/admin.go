package config

import (
	"path/filepath"
	"strconv"
	"strings"
)

// decodeAdmin takes off, which YAML of old reads as false, or the keys.
func (d *decoder) decodeAdmin(n *node) {
	if n.kind == scalar && (n.text == "off" || n.plain && n.text == "false") {
		d.settings.Admin.Off = true
		return
	}
	if n.kind == scalar {
		d.fail(n, "expected off or keys with values, found "+n.describe(), "write `admin: off` or `admin: {socket: /run/sallyport/admin.sock}`")
		return
	}
	d.mapping(n, fields{
		"socket": func(v *node) { d.settings.Admin.Socket = d.socketPath(v) },
	}, "listen")
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
