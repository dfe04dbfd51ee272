package admin

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"sync"
)

// The dashboard: pages made here, that do without scripts. A small script of ours
// keeps the part of a page that is called live up to date (live_page.go). What is
// shown and done goes by the same interfaces as the API.

//go:embed web
var files embed.FS

// screen is one page of the dashboard.
type screen struct {
	Name  string // of its template
	Path  string
	Title string // in English
	Live  bool   // its part "live" is sent anew while somebody looks at it
	show  func(d *desk, r *http.Request, s *sight) error
}

// screens are the pages, in the order of the menu.
func screens() []screen {
	return []screen{
		{"now", "/", "Now", true, (*desk).showNow},
		{"sessions", "/sessions", "Sessions", true, (*desk).showSessions},
		{"users", "/users", "Users", false, (*desk).showUsers},
		{"rules", "/rules", "Rules", false, (*desk).showRules},
		{"limits", "/limits", "Limits", false, (*desk).showLimits},
		{"history", "/history", "History", false, (*desk).showHistory},
		{"health", "/health", "Health", false, (*desk).showHealth},
	}
}

// desk makes pages.
type desk struct {
	*Panel
	guard    *guard
	watching chan struct{} // one for each page that is kept up to date
}

// sight is what a template is given.
type sight struct {
	*tongue
	Who    Visitor
	Screen screen
	Menu   []screen
	Query  url.Values // of the request
	Done   string     // what was done just now, in English; empty: nothing
	Fault  string     // why it was not, likewise
	Data   any        // the screen's own
}

// MayChange tells whether buttons are shown that change something.
func (s *sight) MayChange() bool { return s.Who.Role == Administrator }

// Proofs, Protocols and Commands are the words of a [Question].
func (s *sight) Proofs() []string {
	return []string{"claimed", "ident", "password", "certificate", "key"}
}

// Protocols are likewise.
func (s *sight) Protocols() []string {
	return []string{"socks4", "socks4a", "socks5", "http", "ssh", "map"}
}

// Commands are likewise.
func (s *sight) Commands() []string { return []string{"connect", "bind", "udp"} }

// Has reports whether one is in a list.
func (s *sight) Has(list []string, one string) bool { return slices.Contains(list, one) }

// Place is the number of an entry, from 1.
func (s *sight) Place(index int) int { return index + 1 }

// Live is where the part that is live is sent from. What else was asked for on the
// page is answered once.
func (s *sight) Live() string {
	query := url.Values{}
	for _, key := range []string{"filter", "sort", "offset"} {
		if value := s.Query.Get(key); value != "" {
			query.Set(key, value)
		}
	}
	return (&url.URL{Path: "/live/" + s.Screen.Name, RawQuery: query.Encode()}).String()
}

// With is the page's own address with one value of the query changed; empty: left out.
func (s *sight) With(key, value string) string {
	query := url.Values{}
	for k, v := range s.Query {
		query[k] = v
	}
	query.Del("done")
	if query.Del(key); value != "" {
		query.Set(key, value)
	}
	return (&url.URL{Path: s.Screen.Path, RawQuery: query.Encode()}).String()
}

// templates are the pages of each language, parsed once.
var templates = sync.OnceValue(func() map[string]map[string]*template.Template {
	all := make(map[string]map[string]*template.Template)
	for _, t := range tongues() {
		of := make(map[string]*template.Template)
		for _, name := range append(names(screens()), "sign-in") {
			of[name] = template.Must(template.New("").ParseFS(files, "web/layout.html", "web/"+name+".html"))
		}
		all[t.Code] = of
	}
	return all
})

func names(all []screen) (names []string) {
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names
}

// handlePages adds the dashboard to mux.
func handlePages(mux *http.ServeMux, p *Panel, g *guard) {
	d := &desk{Panel: p, guard: g, watching: make(chan struct{}, mostWatching)}
	for _, s := range screens() {
		path := s.Path
		if path == "/" {
			path = "/{$}"
		}
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { d.render(w, r, s, nil) })
		if s.Live {
			mux.HandleFunc("GET /live/"+s.Name, func(w http.ResponseWriter, r *http.Request) { d.keepLive(w, r, s) })
		}
	}
	mux.HandleFunc("GET /history.csv", d.historyCSV)
	mux.HandleFunc("GET /sign-in", func(w http.ResponseWriter, r *http.Request) { d.signInPage(w, r, http.StatusOK, nil) })
	mux.HandleFunc("POST /sign-in", d.signIn)
	mux.HandleFunc("POST /sign-out", d.signOut)
	d.handleDeeds(mux)
	assets, err := fs.Sub(files, "web/assets")
	if err != nil {
		panic(err) // they are part of the program
	}
	mux.Handle("GET /assets/", http.StripPrefix("/assets/", cached(http.FileServerFS(assets))))
}

// cached lets a browser keep what changes only with the program.
func cached(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private, max-age=300")
		next.ServeHTTP(w, r)
	})
}

// look makes what a template is given.
func (d *desk) look(r *http.Request, s screen) (*sight, error) {
	v := &sight{tongue: tongueOf(r.Header.Get("Accept-Language")), Who: visitor(r.Context()), Screen: s, Menu: screens(), Query: r.URL.Query()}
	if done := v.Query.Get("done"); slices.Contains(deeds(), done) {
		v.Done = done
	}
	return v, s.show(d, r, v)
}

// render answers with a page. A fault is why what was asked for was not done.
func (d *desk) render(w http.ResponseWriter, r *http.Request, s screen, fault error) {
	v, err := d.look(r, s)
	code := http.StatusOK
	if fault != nil {
		v.Fault, code = fault.Error(), statusOf(fault)
	} else if err != nil {
		v.Fault = err.Error()
		if !errors.Is(err, ErrBadQuestion) && !errors.Is(err, ErrNoLedger) {
			code = http.StatusServiceUnavailable
		}
	}
	d.write(w, v, code)
}

// write makes the page whole before any of it is sent.
func (d *desk) write(w http.ResponseWriter, v *sight, code int) {
	var b bytes.Buffer
	if err := templates()[v.Code][v.Screen.Name].ExecuteTemplate(&b, "layout", v); err != nil {
		http.Error(w, "this page cannot be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Vary", "Accept-Language, Cookie")
	w.WriteHeader(code)
	_, _ = b.WriteTo(w) // who has left sees nothing
}

// statusOf is the status of an answer about a fault.
func statusOf(err error) int {
	type withStatus interface{ GetStatus() int }
	if p, ok := asProblem(err).(withStatus); ok {
		return p.GetStatus()
	}
	return http.StatusServiceUnavailable
}

// signInScreen is the page of those who have not signed in.
func signInScreen() screen { return screen{Name: "sign-in", Path: "/sign-in", Title: "Sign in"} }

func (d *desk) signInPage(w http.ResponseWriter, r *http.Request, code int, fault error) {
	v := &sight{tongue: tongueOf(r.Header.Get("Accept-Language")), Screen: signInScreen(), Query: url.Values{}}
	if fault != nil {
		v.Fault = fault.Error()
	}
	d.write(w, v, code)
}

// signIn begins a visit. A visit before it ends.
func (d *desk) signIn(w http.ResponseWriter, r *http.Request) {
	who, err := d.Doorkeeper.SignIn(r.Context(), clientOf(r), r.PostFormValue("name"), r.PostFormValue("password"))
	switch {
	case errors.Is(err, ErrWrongLogin):
		d.signInPage(w, r, http.StatusUnauthorized, err)
		return
	case err != nil:
		d.signInPage(w, r, http.StatusServiceUnavailable, err)
		return
	}
	d.guard.seeOut(w, r)
	w.Header().Del("Set-Cookie")
	d.guard.letIn(w, who)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (d *desk) signOut(w http.ResponseWriter, r *http.Request) {
	d.guard.seeOut(w, r)
	http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
}
