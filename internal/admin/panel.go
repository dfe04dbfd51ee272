package admin

import "net/http"

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
	mux := http.NewServeMux()
	handleAPI(mux, p)
	handleProbes(mux, p)
	return asOwner(mux)
}

// Page returns the dashboard and the API for all who can sign in, and for
// nobody else. Secure says that it is spoken to over TLS. It may be served once.
func (p *Panel) Page(secure bool) http.Handler {
	g := &guard{panel: p, secure: secure, visits: newVisits()}
	mux := http.NewServeMux()
	handleAPI(mux, p)
	handleProbes(mux, p)
	handlePages(mux, p, g)
	return g.watch(mux)
}
