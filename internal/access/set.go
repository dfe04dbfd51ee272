package access

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gaissmai/bart"

	"github.com/sallyport/sallyport/socks"
)

// entries are what one file of a set holds: host names and networks. They are
// not changed once they are read; safe for concurrent use.
type entries struct {
	hosts    hosts
	networks *bart.Lite
}

func newEntries() *entries { return &entries{networks: &bart.Lite{}} }

// add takes in what the settings wrote out.
func (e *entries) add(d Destination) {
	switch {
	case d.Name != "" && d.Suffix:
		e.hosts.add(d.Name, below)
	case d.Name != "":
		e.hosts.add(d.Name, itself)
	case d.Class == "" && d.Prefix.IsValid():
		e.networks.Insert(d.Prefix.Masked())
	}
}

const (
	maxSetFile    = 128 << 20 // bytes
	maxSetLine    = 4096      // bytes, without the end of the line
	maxSetEntries = 5_000_000 // a range counts as the prefixes that it is made of
)

var (
	errLineTooLong    = fmt.Errorf("it has over %d bytes", maxSetLine)
	errTooManyEntries = fmt.Errorf("there are over %d entries", maxSetEntries)
)

// parseEntries reads a file of a set: one entry a line, and behind a # what is
// for people. An entry is
//
//	example.com                  a host
//	*.example.com                all hosts below it
//	.example.com                 the host, and all below it
//	192.0.2.1, 192.0.2.0/24      an address, a prefix
//	192.0.2.10-192.0.2.20        a range of addresses
//	0.0.0.0 a.example b.example  hosts, as hosts files block them
//
// The error is a LineFaults.
func parseEntries(data []byte) (*entries, error) {
	p := &setParser{entries: newEntries()}
	var faults LineFaults
	number := 0
	for line := range bytes.Lines(data) {
		number++
		err := p.line(line)
		if err == nil {
			continue
		}
		faults = append(faults, setFault(number, line, err))
		if len(faults) == maxFileFaults || errors.Is(err, errTooManyEntries) {
			break
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	// In their order, what is looked for next is what the processor has at hand.
	slices.SortFunc(p.prefixes, netip.Prefix.Compare)
	for _, prefix := range p.prefixes {
		p.entries.networks.Insert(prefix)
	}
	return p.entries, nil
}

// setFault shows a bad line, or the beginning of a long one.
func setFault(number int, line []byte, err error) *LineFault {
	const most = 200 // characters
	text := []rune(strings.ToValidUTF8(strings.TrimRight(string(line[:min(len(line), 4*most)]), "\r\n"), "\ufffd"))
	text = text[:min(len(text), most)]
	trimmed := strings.TrimLeft(string(text), " \t")
	before := len(text) - utf8.RuneCountInString(trimmed)
	entry, _, _ := strings.Cut(trimmed, "#")
	return &LineFault{
		Line: number, Column: before + 1, Width: utf8.RuneCountInString(strings.TrimRight(entry, " \t")),
		Text: string(text), Problem: err.Error(),
	}
}

// setParser reads the lines of one file.
type setParser struct {
	entries  *entries
	prefixes []netip.Prefix
	count    int
}

func (p *setParser) line(line []byte) error {
	line = bytes.TrimRight(line, "\r\n")
	if len(line) > maxSetLine {
		return errLineTooLong
	}
	line, _, _ = bytes.Cut(line, []byte("#"))
	first, rest, _ := strings.Cut(strings.Trim(string(line), " \t"), " ")
	if first, tabbed, ok := strings.Cut(first, "\t"); ok {
		return p.entry(first, tabbed+" "+rest)
	}
	return p.entry(first, rest)
}

// entry takes a line without its comment: what stands first, and all behind it.
func (p *setParser) entry(first, rest string) error {
	switch {
	case first == "":
		return nil
	case strings.Trim(rest, " \t") != "":
		return p.hostsLine(first, rest)
	case strings.ContainsAny(first, ":/") || isNumeric(first):
		return p.network(first)
	}
	return p.host(first)
}

// isNumeric tells addresses and ranges of them from host names: the last label of
// those is not a number.
func isNumeric(text string) bool {
	last := strings.TrimSuffix(text[strings.LastIndexByte(text, '.')+1:], "-")
	return last != "" && strings.Trim(last, "0123456789") == ""
}

func (p *setParser) network(text string) error {
	if from, to, isRange := strings.Cut(text, "-"); isRange {
		return p.addressRange(text, from, to)
	}
	var prefix netip.Prefix
	a, err := netip.ParseAddr(text)
	if err == nil && a.Zone() == "" {
		prefix = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
	} else if prefix, err = netip.ParsePrefix(text); err != nil || prefix.Addr().Is4In6() {
		return fmt.Errorf("%s is not an address, a prefix or a range", quoted(text))
	}
	if prefix != prefix.Masked() {
		return fmt.Errorf("%s has bits behind its length: write %s", quoted(text), prefix.Masked())
	}
	return p.insert(prefix)
}

func (p *setParser) addressRange(text, from, to string) error {
	first, err := netip.ParseAddr(from)
	last, err2 := netip.ParseAddr(to)
	first, last = first.Unmap(), last.Unmap()
	switch {
	case err != nil, err2 != nil, first.BitLen() != last.BitLen(), first.Zone() != "", last.Zone() != "":
		return fmt.Errorf("%s is not a range of addresses", quoted(text))
	case last.Less(first):
		return fmt.Errorf("the range %s ends before it begins", quoted(text))
	}
	for _, prefix := range rangePrefixes(first, last) {
		if err := p.insert(prefix); err != nil {
			return err
		}
	}
	return nil
}

func (p *setParser) insert(prefix netip.Prefix) error {
	if p.count++; p.count > maxSetEntries {
		return errTooManyEntries
	}
	p.prefixes = append(p.prefixes, prefix)
	return nil
}

func (p *setParser) host(text string) error {
	name, covers := text, byte(itself)
	if suffix, ok := strings.CutPrefix(text, "*."); ok {
		name, covers = suffix, below
	} else if suffix, ok := strings.CutPrefix(text, "."); ok {
		name, covers = suffix, itself|below
	}
	a, err := socks.NewAddr(name, 0)
	if err != nil || a.Name == "" {
		return fmt.Errorf("%s is not a host name; one is written in ASCII, as in xn--", quoted(text))
	}
	if p.count++; p.count > maxSetEntries {
		return errTooManyEntries
	}
	p.entries.hosts.add(a.Name, covers)
	return nil
}

// hostsLine takes a line as hosts files have them: an address that leads nowhere
// and the names that are to be blocked. What such files say of the machine that
// they are on is left out.
func (p *setParser) hostsLine(address, names string) error {
	bare, _, _ := strings.Cut(address, "%")
	a, err := netip.ParseAddr(bare)
	if err != nil {
		return fmt.Errorf("%s stands before other words on its line: one entry a line", quoted(address))
	}
	for name := range strings.FieldsSeq(names) {
		switch {
		case ofTheMachine(name):
			continue
		case !a.IsUnspecified() && !a.IsLoopback():
			return fmt.Errorf("%s is not an address by which hosts files block, such as 0.0.0.0; one entry a line", quoted(address))
		}
		if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "*") {
			return fmt.Errorf("%s is not a host name", quoted(name))
		}
		if err := p.host(name); err != nil {
			return err
		}
	}
	return nil
}

// ofTheMachine reports whether a name is one of those that every hosts file
// begins with.
func ofTheMachine(name string) bool {
	switch name = strings.ToLower(name); name {
	case "localhost", "localhost.localdomain", "local", "broadcasthost", "0.0.0.0":
		return true
	}
	return strings.HasPrefix(name, "ip6-")
}

// quoted makes a word from a file fit for a message.
func quoted(text string) string {
	if len(text) > 80 {
		text = text[:80] + "..."
	}
	return fmt.Sprintf("%q", text)
}

// hasAddr reports whether an address is; so is an IPv6 address that leads to
// an IPv4 address that is.
func (e *entries) hasAddr(a netip.Addr) bool {
	if e.networks.Contains(a) {
		return true
	}
	c := carried(a)
	return c != a && e.networks.Contains(c)
}

// rangePrefixes returns the fewest prefixes that make up a range of addresses of
// one family.
func rangePrefixes(first, last netip.Addr) (all []netip.Prefix) {
	for {
		p := widest(first, last)
		all = append(all, p)
		end := lastOf(p)
		if end == last {
			return all
		}
		first = end.Next()
	}
}

// widest returns the widest prefix that begins at first and does not go over last.
func widest(first, last netip.Addr) netip.Prefix {
	p := netip.PrefixFrom(first, first.BitLen())
	for bits := first.BitLen() - 1; bits >= 0; bits-- {
		wider := netip.PrefixFrom(first, bits)
		if wider.Masked() != wider || last.Less(lastOf(wider)) {
			break
		}
		p = wider
	}
	return p
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
