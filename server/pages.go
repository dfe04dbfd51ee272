package server

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// PageRequest is a request to the proxy itself, as to a web server: nothing that it
// says is proven, and nobody has signed in.
type PageRequest struct {
	Path     string         // begins with a slash; without what stands behind a question mark
	Host     string         // as the client calls this server: a host with or without a port. Empty: it does not say
	Client   netip.AddrPort // who asks
	Local    netip.AddrPort // what the client has connected to
	Relayed  bool           // that was at a load balancer
	Listener string
	TLS      bool // it came over TLS
}

// Page is the answer to one.
type Page struct {
	Type string // of its content, such as "text/plain"
	Body []byte
}

// parsePage reads the head of a GET or HEAD to the proxy itself.
func parsePage(head []byte) (*httpRequest, error) {
	return parseHead(head, (*httpRequest).parsePageTarget)
}

// parsePageTarget reads a target in origin-form, or an address of https, for which a
// proxy would be asked by CONNECT.
func (r *httpRequest) parsePageTarget(target string) error {
	if r.method != http.MethodGet && r.method != http.MethodHead || strings.Contains(target, "#") {
		return errOrigin
	}
	r.authority, r.path = r.fields.get("Host"), target
	if scheme, address, absolute := strings.Cut(target, "://"); absolute && isWord(scheme, "https") {
		authority, path, _ := strings.Cut(address, "/")
		if _, err := parseAuthority(authority, "443"); err != nil {
			return err
		}
		r.authority, r.path = authority, "/"+path
	}
	if !strings.HasPrefix(r.path, "/") {
		return errOrigin
	}
	r.path, _, _ = strings.Cut(r.path, "?")
	return nil
}

// page is the answer to a request that parseRequest has refused as one for a web
// server. ok is false where there is none.
func (h *httpConn) page(head []byte, refusal error) (r *httpRequest, p Page, ok bool) {
	if h.server.Pages == nil || !errors.Is(refusal, errOrigin) && !(errors.Is(refusal, errScheme) && h.session.TLS) {
		return nil, Page{}, false
	}
	r, err := parsePage(head)
	if err != nil {
		return nil, Page{}, false
	}
	h.ask(&Request{Protocol: HTTP, Replier: h.replier}) // which finds out where it has come from
	p, ok = h.server.Pages(PageRequest{
		Path: r.path, Host: r.authority, Client: h.request.Client, Local: h.request.Local, Relayed: h.request.Relayed, Listener: h.request.Listener, TLS: h.session.TLS,
	})
	return r, p, ok
}

// showPage answers with a page.
func (h *httpConn) showPage(r *httpRequest, p Page) (more bool, reason error) {
	b := []byte("HTTP/1.1 200 OK\r\n")
	b = appendField(b, "Content-Type", p.Type)
	b = appendField(b, "Content-Length", strconv.Itoa(len(p.Body)))
	b = appendField(b, "Cache-Control", "no-cache")
	b = appendField(b, "X-Content-Type-Options", "nosniff")
	more = !r.closes() && !r.hasBody()
	if !more {
		b = appendField(b, "Connection", "close")
	}
	b = append(b, "\r\n"...)
	if r.method != http.MethodHead {
		b = append(b, p.Body...)
	}
	h.session.meter.Add(0, int64(len(b)))
	reason = fmt.Errorf("%w: the page %s", Closed, r.path)
	if !more {
		h.say(b)
		return false, reason
	}
	return h.write(b) == nil, reason
}
