package admin

import (
	"net/http"
	"sync"
)

// Panel is what the API and the dashboard show and steer.
type Panel struct {
	Daemon     Daemon
	Live       Live
	Users      Users
	Rules      Rules
	History    History
	Health     Health
	Doorkeeper Doorkeeper
	Meters     Meters
	Version    string   // of the program
	Hosts      []string // names that the page may be called by besides localhost, in lower case
	// OpenMetrics says that metrics are for whoever asks, and not only for who signs in.
	OpenMetrics bool
}

// Here returns what is served to whoever the server runs as, on a unix socket:
// nobody has to sign in.
func (p *Panel) Here() http.Handler {
	return asOwner(whenAsked(func(mux *http.ServeMux) {
		handleAPI(mux, p)
		handleProbes(mux, p)
	}))
}

// whenAsked is a handler that is made with the first request: of most servers nobody
// asks anything, and what the API and the pages are made of is some megabytes.
func whenAsked(handle func(mux *http.ServeMux)) http.Handler {
	made := sync.OnceValue(func() http.Handler {
		mux := http.NewServeMux()
		handle(mux)
		return mux
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { made().ServeHTTP(w, r) })
}

// Page returns the dashboard and the API for all who can sign in, and for
// nobody else. Secure says that it is spoken to over TLS. It may be served once.
func (p *Panel) Page(secure bool) http.Handler {
	g := &guard{panel: p, secure: secure, visits: newVisits()}
	return g.watch(whenAsked(func(mux *http.ServeMux) {
		handleAPI(mux, p)
		handleProbes(mux, p)
		handlePages(mux, p, g)
	}))
}
