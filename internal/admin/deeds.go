package admin

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
)

// What the buttons of the pages do. Each does it by the interfaces that the API goes
// by, and then shows the page that it stands on.

// Words for what was done, as the page then says it.
const (
	doneEnded    = "The session was ended."
	doneSlowed   = "The session has another speed limit."
	doneAdded    = "The user was added."
	donePassword = "The password was changed."
	doneDisabled = "The user cannot sign in any more."
	doneEnabled  = "The user can sign in again."
	doneRemoved  = "The user was removed."
	doneGroups   = "The groups were changed."
	doneGranted  = "More was allowed."
	doneRate     = "The rate was changed, until the settings are read anew."
	doneReloaded = "The settings were read anew and are in force."
)

// deeds are all of them: nothing else is shown as done, whatever a link says.
func deeds() []string {
	return []string{doneEnded, doneSlowed, doneAdded, donePassword, doneDisabled, doneEnabled, doneRemoved, doneGroups, doneGranted, doneRate, doneReloaded}
}

var errNotConfirmed = errors.New("tick the box to confirm it")

func (d *desk) handleDeeds(mux *http.ServeMux) {
	d.handleDeed(mux, "POST /sessions/{id}/end", "sessions", doneEnded, func(_ context.Context, r *http.Request) error {
		id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
		if err != nil {
			return ErrNoSession
		}
		return d.Live.EndSession(id)
	})
	d.handleDeed(mux, "POST /sessions/{id}/slow", "sessions", doneSlowed, func(_ context.Context, r *http.Request) error {
		id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
		if err != nil {
			return ErrNoSession
		}
		return d.Live.SlowSession(id, strings.TrimSpace(r.PostFormValue("rate")))
	})
	d.handleDeed(mux, "POST /users/add", "users", doneAdded, func(ctx context.Context, r *http.Request) error {
		return d.Users.AddUser(ctx, r.PostFormValue("name"), r.PostFormValue("password"))
	})
	d.handleDeed(mux, "POST /users/password", "users", donePassword, func(ctx context.Context, r *http.Request) error {
		return d.Users.SetPassword(ctx, r.PostFormValue("name"), r.PostFormValue("password"))
	})
	d.handleDeed(mux, "POST /users/disable", "users", doneDisabled, func(ctx context.Context, r *http.Request) error {
		return d.Users.EnableUser(ctx, r.PostFormValue("name"), false)
	})
	d.handleDeed(mux, "POST /users/enable", "users", doneEnabled, func(ctx context.Context, r *http.Request) error {
		return d.Users.EnableUser(ctx, r.PostFormValue("name"), true)
	})
	d.handleDeed(mux, "POST /users/remove", "users", doneRemoved, func(ctx context.Context, r *http.Request) error {
		if r.PostFormValue("sure") == "" {
			return errNotConfirmed
		}
		return d.Users.RemoveUser(ctx, r.PostFormValue("name"))
	})
	d.handleDeed(mux, "POST /users/groups", "users", doneGroups, func(ctx context.Context, r *http.Request) error {
		name := r.PostFormValue("name") // which has the form read
		return d.Users.SetGroups(ctx, name, r.PostForm["group"])
	})
	for _, page := range []string{"users", "limits"} {
		d.handleDeed(mux, "POST /"+page+"/grant", page, doneGranted, func(ctx context.Context, r *http.Request) error {
			_, err := d.Daemon.Grant(ctx, Grant{
				Limit: r.PostFormValue("limit"), Key: r.PostFormValue("key"), Claimed: r.PostFormValue("claimed") != "", Amount: r.PostFormValue("amount"),
			})
			return conflict(err)
		})
	}
	d.handleDeed(mux, "POST /limits/rate", "limits", doneRate, func(_ context.Context, r *http.Request) error {
		return conflict(d.Daemon.SetRate(Rate{
			Limit: r.PostFormValue("limit"), Rate: r.PostFormValue("rate"), Up: r.PostFormValue("up"), Down: r.PostFormValue("down"),
		}))
	})
	d.handleDeed(mux, "POST /reload", "health", doneReloaded, func(ctx context.Context, _ *http.Request) error {
		return d.Daemon.Reload(ctx)
	})
}

// handleDeed adds a button of a page.
func (d *desk) handleDeed(mux *http.ServeMux, pattern, page, done string, do func(context.Context, *http.Request) error) {
	var on screen
	for _, s := range screens() {
		if s.Name == page {
			on = s
		}
	}
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := do(r.Context(), r); err != nil {
			d.render(w, r, on, err)
			return
		}
		v := &sight{Screen: on, Query: r.URL.Query()}
		http.Redirect(w, r, v.With("done", done), http.StatusSeeOther)
	})
}
