//go:build amd64 || arm64

package intercept

import (
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/sallyport/sallyport/socks"
)

// standInTTL is for how many seconds a program may remember an address of ours.
const standInTTL = 60

// Kinds of records that programs ask for beside addresses, and do without
// (RFC 2782, RFC 9460).
const (
	typeSRV   dnsmessage.Type = 33
	typeSVCB  dnsmessage.Type = 64
	typeHTTPS dnsmessage.Type = 65
)

// answerQuery answers a question of DNS (RFC 1035, section 4.1): for an IPv4 address of a
// host, with the one that stands for it; backwards, with its name. Of other addresses and
// hints there are none, and whatever else is asked for is refused, as nobody here
// knows. What is no question gets no answer: nil.
func answerQuery(n *names, query []byte) []byte {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil || head.Response {
		return nil
	}
	answer := dnsmessage.Header{ID: head.ID, Response: true, OpCode: head.OpCode, RecursionDesired: head.RecursionDesired, RecursionAvailable: true}
	q, err := p.Question()
	switch {
	case err != nil:
		answer.RCode = dnsmessage.RCodeFormatError
		return buildAnswer(answer, nil, nil)
	case head.OpCode != 0:
		answer.RCode = dnsmessage.RCodeNotImplemented
		return buildAnswer(answer, &q, nil)
	case q.Class != dnsmessage.ClassINET:
		answer.RCode = dnsmessage.RCodeRefused
		return buildAnswer(answer, &q, nil)
	}
	var body dnsmessage.ResourceBody
	answer.RCode, body = lookUp(n, q)
	return buildAnswer(answer, &q, body)
}

// lookUp is what there is for a question.
func lookUp(n *names, q dnsmessage.Question) (dnsmessage.RCode, dnsmessage.ResourceBody) {
	switch q.Type {
	case dnsmessage.TypeA, dnsmessage.TypeAAAA, typeSRV, typeSVCB, typeHTTPS:
	case dnsmessage.TypePTR:
		return lookUpBackwards(n, q.Name.String())
	default:
		return dnsmessage.RCodeRefused, nil
	}
	host, err := socks.NewAddr(q.Name.String(), 0)
	switch {
	case err != nil || host.IP.IsValid():
		return dnsmessage.RCodeNameError, nil
	case q.Type != dnsmessage.TypeA:
		return dnsmessage.RCodeSuccess, nil
	case host.Name == "localhost" || strings.HasSuffix(host.Name, ".localhost"): // RFC 6761, section 6.3
		return dnsmessage.RCodeSuccess, &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}
	}
	return dnsmessage.RCodeSuccess, &dnsmessage.AResource{A: n.standIn(host.Name).As4()}
}

// lookUpBackwards is the name for an address (RFC 1035, section 3.5).
func lookUpBackwards(n *names, name string) (dnsmessage.RCode, dnsmessage.ResourceBody) {
	labels := strings.Split(strings.ToLower(name), ".")
	if len(labels) != 7 || strings.Join(labels[4:], ".") != "in-addr.arpa." {
		return dnsmessage.RCodeNameError, nil
	}
	var ip [4]byte
	for i := range ip {
		part, err := strconv.ParseUint(labels[3-i], 10, 8)
		if err != nil {
			return dnsmessage.RCodeNameError, nil
		}
		ip[i] = byte(part)
	}
	found, ok := n.behind(netip.AddrFrom4(ip))
	if !ok {
		return dnsmessage.RCodeNameError, nil
	}
	pointer, err := dnsmessage.NewName(found + ".")
	if err != nil {
		return dnsmessage.RCodeNameError, nil
	}
	return dnsmessage.RCodeSuccess, &dnsmessage.PTRResource{PTR: pointer}
}

// buildAnswer writes an answer of at most one record.
func buildAnswer(head dnsmessage.Header, q *dnsmessage.Question, body dnsmessage.ResourceBody) []byte {
	m := dnsmessage.Message{Header: head}
	if q != nil {
		m.Questions = []dnsmessage.Question{*q}
	}
	if body != nil {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: standInTTL}, Body: body}}
	}
	packed, err := m.Pack()
	if err != nil {
		return nil // it was taken apart by the same package
	}
	return packed
}
