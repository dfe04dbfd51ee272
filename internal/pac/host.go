package pac

import (
	"net/netip"
	"strconv"
	"strings"
)

// maxName is the longest host name, in characters.
const maxName = 253

// Host reads how a client calls this server: the Host field of a request. It returns a
// host that can stand in a script, in lower case, and the port, 0 where none stands; ok
// is false for whatever is no address and no name of letters, digits, hyphens and dots.
func Host(field string) (host string, port uint16, ok bool) {
	host = field
	if i := strings.LastIndexByte(field, ':'); i >= 0 && !strings.HasSuffix(field, "]") && strings.Count(field, ":") == 1 || strings.Contains(field, "]:") {
		n, err := strconv.ParseUint(field[i+1:], 10, 16)
		if err != nil || n == 0 {
			return "", 0, false
		}
		host, port = field[:i], uint16(n)
	}
	if inner, isBracketed := strings.CutPrefix(host, "["); isBracketed {
		address, closed := strings.CutSuffix(inner, "]")
		ip, err := netip.ParseAddr(address)
		return ip.String(), port, closed && err == nil && ip.Is6() && ip.Zone() == ""
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.String(), port, ip.Is4()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host, port, isName(host)
}

// isName reports whether a host is a name that can be in the DNS or in a hosts file, and
// that nobody takes for an address.
func isName(host string) bool {
	labels := strings.Split(host, ".")
	last := labels[len(labels)-1]
	if len(host) > maxName || last == "" || last[0] >= '0' && last[0] <= '9' {
		return false
	}
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// hostPort joins what Host returns, as the files have it.
func hostPort(host string, port uint16) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.FormatUint(uint64(port), 10)
}
