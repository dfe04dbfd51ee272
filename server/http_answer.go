package server

import (
	"errors"
	"fmt"
	"html"
	"math"
	"net/http"
	"net/netip"
	"strconv"
)

// replierHTTP answers with status codes and a page that says in a sentence what
// happened. A program reads the fields Sallyport-Reason and Sallyport-Rule.
type replierHTTP struct {
	session  *Session // its rule is named
	bodiless bool     // the answer is to HEAD
	login    bool     // no password was shown, and one could open more
	stays    bool     // the connection stays open behind a refusal
}

func (r *replierHTTP) AppendGrant(b []byte, _ netip.AddrPort) []byte {
	return append(b, "HTTP/1.1 200 Connection established\r\n\r\n"...)
}

func (r *replierHTTP) AppendDeny(b []byte, reason error, _ netip.AddrPort) []byte {
	status := statusOf(reason)
	if r.login && status == http.StatusForbidden {
		status = http.StatusProxyAuthRequired
	}
	page := r.page(status, reason)
	b = append(b, fmt.Sprintf("HTTP/1.1 %d %s\r\n", status, http.StatusText(status))...)
	if status == http.StatusProxyAuthRequired {
		b = appendField(b, "Proxy-Authenticate", `Basic realm="sallyport", charset="UTF-8"`)
	}
	b = appendField(b, "Sallyport-Reason", string(ReasonOf(reason)))
	if r.session.Rule != "" {
		b = appendField(b, "Sallyport-Rule", quoted(r.session.Rule))
	}
	if status == http.StatusTooManyRequests {
		b = appendRetryAfter(b, reason)
	}
	b = appendField(b, "Cache-Control", "no-store")
	b = appendField(b, "Content-Type", "text/html; charset=utf-8")
	b = appendField(b, "Content-Length", strconv.Itoa(len(page)))
	if !r.stays {
		b = appendField(b, "Connection", "close")
	}
	b = append(b, "\r\n"...)
	if r.bodiless {
		return b
	}
	return append(b, page...)
}

// appendRetryAfter says when a client may come again, in seconds (RFC 9110, section
// 10.2.3). Where a limit on sessions at once is reached it is not known when others leave. A
// quota is not over so soon.
func appendRetryAfter(b []byte, reason error) []byte {
	seconds := 1
	if later, ok := errors.AsType[*LaterError](reason); ok {
		seconds = max(seconds, int(math.Ceil(later.After.Seconds())))
	} else if ReasonOf(reason) == Quota {
		return b
	}
	return appendField(b, "Retry-After", strconv.Itoa(seconds))
}

// page is what a person sees.
func (r *replierHTTP) page(status int, reason error) string {
	sentence := sentenceFor(status, reason)
	if r.session.Rule != "" {
		sentence += fmt.Sprintf(" The rule that decided is called %q.", r.session.Rule)
	}
	title := fmt.Sprintf("%d %s", status, http.StatusText(status))
	return fmt.Sprintf("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>%s</title></head>\n"+
		"<body><h1>%s</h1><p>%s</p><p>(Sallyport, %s)</p></body></html>\n",
		title, title, html.EscapeString(sentence), html.EscapeString(string(ReasonOf(reason))))
}

// statusOf puts a refusal into the code that comes nearest.
func statusOf(reason error) int {
	word := ReasonOf(reason)
	if word == BadRequest && errors.Is(reason, errHeadSize) {
		return http.StatusRequestHeaderFieldsTooLarge
	}
	if _, ok := errors.AsType[*LaterError](reason); ok {
		return http.StatusTooManyRequests
	}
	switch word {
	case BadRequest, Garbage, ClientGone:
		return http.StatusBadRequest
	case BadLogin:
		return http.StatusProxyAuthRequired
	case Denied, Schedule, Revoked, Ended, NoIdentd, OtherUser, Loop:
		return http.StatusForbidden
	case NoName, Refused, Unreachable, TargetReset, BadReply, UpstreamFailed:
		return http.StatusBadGateway
	case TimedOut, Idle, HalfClosed:
		return http.StatusGatewayTimeout
	case HandshakeSlow:
		return http.StatusRequestTimeout
	case Unsupported:
		return http.StatusNotImplemented
	case TooMany, TooFast, Quota:
		return http.StatusTooManyRequests
	case Busy, Shutdown, NoLedger:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// sentenceFor says what happened, without what only the log should know.
func sentenceFor(status int, reason error) string {
	if errors.Is(reason, errOrigin) {
		return "This is a proxy and no web server: its address belongs in the proxy settings of a browser or another program. It takes requests for whole http:// addresses, and CONNECT."
	}
	if errors.Is(reason, errScheme) {
		return "The proxy takes requests for http:// addresses, and CONNECT for all else."
	}
	if word := ReasonOf(reason); word == BadLogin && status == http.StatusTooManyRequests {
		return "Too many wrong passwords came from you, or from those who share your address. Try again in a while."
	}
	if s, ok := sentences[ReasonOf(reason)]; ok && status != http.StatusProxyAuthRequired {
		return s
	}
	switch status {
	case http.StatusProxyAuthRequired:
		return "The proxy wants a user name and a password, and the ones that were sent, if any, are not good for this."
	case http.StatusRequestHeaderFieldsTooLarge:
		return "The head of the request is too large for the proxy."
	case http.StatusBadRequest:
		return "The proxy cannot read the request in one way only, so it does not pass it on."
	case http.StatusServiceUnavailable:
		return "The proxy has too much to do at the moment, or is about to stop. Try again in a while."
	}
	return "The proxy cannot serve this request."
}

var sentences = map[Reason]string{
	Denied:         "The proxy does not let this request through.",
	Schedule:       "The proxy does not let this request through at this hour.",
	Revoked:        "The proxy does not let this request through any more.",
	Ended:          "The proxy's administrator has ended this.",
	TooMany:        "You, or those who are counted with you, have as many connections as the proxy allows.",
	TooFast:        "You, or those who are counted with you, ask for connections faster than the proxy allows.",
	Quota:          "You, or those who are counted with you, have used as much as the proxy allows for now.",
	NoLedger:       "The proxy cannot find out at the moment how much you, or those who are counted with you, may still use.",
	NoIdentd:       "The proxy asked your machine who you are, and got no answer.",
	OtherUser:      "The proxy asked your machine who you are, and it named somebody else.",
	Loop:           "The request leads back to the proxy itself.",
	NoName:         "The host name has no address.",
	Refused:        "The server refused the connection.",
	Unreachable:    "There is no way to the server.",
	UpstreamFailed: "The proxy reaches the server through another proxy, and that one failed.",
	TargetReset:    "The server ended the connection before it had answered.",
	BadReply:       "The server's answer is not HTTP, or could be read in two ways.",
	TimedOut:       "The server did not answer in time.",
	Idle:           "The server did not answer in time.",
	HalfClosed:     "The server did not answer in time.",
	HandshakeSlow:  "The request did not arrive in time.",
	Unsupported:    "The proxy does not do what was asked for.",
}

// quoted writes s as a quoted-string (RFC 9110, section 5.6.4) of printable
// ASCII, at most 255 bytes of s: whatever it holds, it cannot end the field.
func quoted(s string) string {
	return strconv.QuoteToASCII(s[:min(len(s), 255)])
}
