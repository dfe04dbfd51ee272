package admin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// guard stands before the page and the API. What it lets pass has the right Host
// (no foreign name was made to lead here), comes from no other site's page, and is
// of somebody who may do it.
type guard struct {
	panel  *Panel
	secure bool // over TLS
	visits *visits
}

const cookieName = "sallyport"

// whoKey is the key of the Visitor in a request's context.
type whoKey struct{}

// visitor returns who asks; the zero value: nobody.
func visitor(ctx context.Context) Visitor {
	who, _ := ctx.Value(whoKey{}).(Visitor)
	return who
}

// asOwner lets everybody do everything: for a socket that only the owner reaches.
func asOwner(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := context.WithValue(r.Context(), whoKey{}, Visitor{Role: Administrator})
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// csp lets a page have what this server serves, nothing inline, and be in no frame.
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// setHeaders sets what holds for every answer.
func (g *guard) setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", csp)
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	h.Set("Cache-Control", "no-store")
	if g.secure {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// watch returns the handler behind the guard.
func (g *guard) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.setHeaders(w.Header())
		if !g.knows(r.Host) {
			http.Error(w, "This server is not called that. Names that it may be called by are set by admin.hosts.", http.StatusMisdirectedRequest)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		who, proof, err := g.identify(r)
		switch {
		case errors.Is(err, ErrWrongLogin):
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "wrong token", http.StatusUnauthorized)
			return
		case err != nil:
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		case !isSafe(r.Method) && proof != byToken && !g.sameOrigin(r):
			http.Error(w, "This request comes from another site's page, or from a browser that does not say so.", http.StatusForbidden)
			return
		}
		if !g.mayPass(w, r, who) {
			return
		}
		if who.Role != "" {
			isKnown(r.Context())
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), whoKey{}, who)))
	})
}

// mayPass answers a request that must not.
func (g *guard) mayPass(w http.ResponseWriter, r *http.Request, who Visitor) bool {
	switch api := strings.HasPrefix(r.URL.Path, "/api/") || r.URL.Path == "/metrics"; {
	case g.isOpen(r.URL.Path):
		return true
	case who.Role == "" && !api && isSafe(r.Method):
		http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
	case who.Role == "":
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "sign in first", http.StatusUnauthorized)
	case !isSafe(r.Method) && who.Role != Administrator && r.URL.Path != "/sign-out":
		http.Error(w, "you may look, and not change anything", http.StatusForbidden)
	default:
		return true
	}
	return false
}

// isOpen tells what is there for whoever has not signed in.
func (g *guard) isOpen(path string) bool {
	switch path {
	case "/sign-in", "/healthz", "/readyz":
		return true
	case "/metrics":
		return g.panel.OpenMetrics
	}
	return strings.HasPrefix(path, "/assets/")
}

func isSafe(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// knows reports whether the host is this server. A page elsewhere whose name is
// made to lead here has another host (DNS rebinding); an address is no name.
func (g *guard) knows(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "localhost" || slices.Contains(g.panel.Hosts, host)
}

// sameOrigin reports whether a browser says that the request is from a page of ours.
func (g *guard) sameOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin != "" {
		from, err := url.Parse(origin)
		if err != nil || !strings.EqualFold(from.Host, r.Host) {
			return false
		}
	}
	site := r.Header.Get("Sec-Fetch-Site")
	return site == "same-origin" || site == "" && origin != ""
}

// proof is how a request shows who asks.
type proof int

const (
	byNothing proof = iota
	byCookie
	byToken // which no browser sends by itself
)

// identify finds out who asks. A token is a name, a colon and a password.
func (g *guard) identify(r *http.Request) (Visitor, proof, error) {
	if kind, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(kind, "Bearer") {
		name, password, _ := strings.Cut(token, ":")
		who, err := g.panel.Doorkeeper.SignIn(r.Context(), clientOf(r), name, password)
		return who, byToken, err
	}
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return Visitor{}, byNothing, nil
	}
	who, ok := g.visits.find(cookie.Value, time.Now())
	if ok {
		who, ok = g.panel.Doorkeeper.Still(who)
	}
	if !ok {
		return Visitor{}, byNothing, nil
	}
	return who, byCookie, nil
}

func clientOf(r *http.Request) netip.AddrPort {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// letIn begins a visit.
func (g *guard) letIn(w http.ResponseWriter, who Visitor) {
	g.setCookie(w, g.visits.begin(who, time.Now()), int(visitTime/time.Second))
}

// seeOut ends the visit of whoever asks.
func (g *guard) seeOut(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie(cookieName); err == nil {
		g.visits.end(cookie.Value)
	}
	g.setCookie(w, "", -1)
}

func (g *guard) setCookie(w http.ResponseWriter, value string, age int) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: value, Path: "/", MaxAge: age,
		HttpOnly: true, Secure: g.secure, SameSite: http.SameSiteStrictMode,
	})
}
