package admin

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// The API: operations of which the OpenAPI description is made. It is the same on
// the unix socket and on the page; who may call what, the guard decides by the
// method: GET only shows.

// handleAPI adds the API to mux, below /api/v1.
func handleAPI(mux *http.ServeMux, p *Panel) {
	config := huma.DefaultConfig("Sallyport", p.Version)
	config.OpenAPI.Info.Description = "The administration of a running Sallyport. Sign in with the header `Authorization: Bearer NAME:PASSWORD`; on the server's unix socket there is no need to."
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	config.Security = []map[string][]string{{"token": {}}}
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "/api/v1/openapi", "", ""
	config.CreateHooks = nil // which would add a link to each answer
	api := humago.New(mux, config)
	a := apiOf{p}
	operation(api, http.MethodGet, "status", "How the server is", a.status)
	operation(api, http.MethodPost, "reload", "Read the settings anew", a.reload, http.StatusUnprocessableEntity, http.StatusServiceUnavailable)
	operation(api, http.MethodPost, "upgrade", "Have another process take over", a.upgrade, http.StatusServiceUnavailable)
	operation(api, http.MethodGet, "now", "What moves at this moment", a.now)
	operation(api, http.MethodGet, "sessions", "The open sessions", a.sessions)
	operation(api, http.MethodDelete, "sessions/{id}", "End a session", a.endSession, http.StatusNotFound)
	operation(api, http.MethodPut, "sessions/{id}/rate", "Slow a session down, or let it go", a.slowSession, http.StatusNotFound)
	operation(api, http.MethodGet, "users", "The users", a.users)
	operation(api, http.MethodPost, "users", "Add a user", a.addUser, http.StatusConflict)
	operation(api, http.MethodPut, "users/{name}/password", "Set a user's password", a.setPassword, http.StatusNotFound)
	operation(api, http.MethodPut, "users/{name}/enabled", "Let a user sign in, or not any more", a.enableUser, http.StatusNotFound)
	operation(api, http.MethodPut, "users/{name}/groups", "Set which of the ledger's groups a user is in", a.setGroups, http.StatusNotFound)
	operation(api, http.MethodDelete, "users/{name}", "Remove a user", a.removeUser, http.StatusNotFound)
	operation(api, http.MethodGet, "rules", "The rules, and what each has decided", a.rules)
	operation(api, http.MethodGet, "limits", "The limits", a.limits)
	operation(api, http.MethodPut, "limits/{name}/rate", "Change a limit's rate until the settings are read anew", a.setRate, http.StatusConflict)
	operation(api, http.MethodGet, "quotas", "How all stand with the quotas", a.quotas)
	operation(api, http.MethodPost, "grants", "Allow somebody more than a quota", a.grant, http.StatusConflict)
	operation(api, http.MethodGet, "explain", "What the rules make of a request", a.explain)
	operation(api, http.MethodGet, "usage", "What was used", a.usage, http.StatusNotFound)
	operation(api, http.MethodGet, "health", "How the server and what it needs are", a.health)
}

// operation adds one.
func operation[I, O any](api huma.API, method, path, summary string, do func(context.Context, *I) (*O, error), faults ...int) {
	huma.Register(api, huma.Operation{
		OperationID: huma.GenerateOperationID(method, "/"+path, (*O)(nil)),
		Method:      method, Path: "/api/v1/" + path, Summary: summary, Errors: faults, MaxBodyBytes: maxBody,
	}, do)
}

// apiOf has a method for each operation.
type apiOf struct{ *Panel }

type (
	none        struct{}
	body[T any] struct{ Body T }
)

func (a apiOf) status(context.Context, *none) (*body[Status], error) {
	return &body[Status]{a.Daemon.Status()}, nil
}

func (a apiOf) reload(ctx context.Context, _ *none) (*none, error) {
	return nil, asProblem(a.Daemon.Reload(ctx))
}

// upgrade goes on if whoever asked for it leaves: half an upgrade is none.
func (a apiOf) upgrade(ctx context.Context, _ *none) (*body[Upgrade], error) {
	done, err := a.Daemon.Upgrade(context.WithoutCancel(ctx))
	return &body[Upgrade]{done}, asProblem(err)
}

func (a apiOf) now(context.Context, *none) (*body[Now], error) {
	return &body[Now]{a.Live.Now()}, nil
}

type sessionsInput struct {
	Filter string `query:"filter" doc:"What must be in the user, client, target, rule, listener or protocol"`
	Sort   string `query:"sort" enum:"speed,bytes,newest,oldest,user,client,target,rule" default:"speed"`
	Offset int    `query:"offset" minimum:"0"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50"`
}

func (a apiOf) sessions(_ context.Context, in *sessionsInput) (*body[SessionPage], error) {
	return &body[SessionPage]{a.Live.Sessions(SessionQuery(*in))}, nil
}

func (a apiOf) endSession(_ context.Context, in *struct {
	ID uint64 `path:"id"`
},
) (*none, error) {
	return nil, asProblem(a.Live.EndSession(in.ID))
}

func (a apiOf) slowSession(_ context.Context, in *struct {
	ID   uint64 `path:"id"`
	Body struct {
		Rate string `json:"rate" doc:"Such as 1 Mbit/s, both directions together; empty: as fast as its limits allow"`
	}
},
) (*none, error) {
	return nil, asProblem(a.Live.SlowSession(in.ID, in.Body.Rate))
}

func (a apiOf) users(ctx context.Context, _ *none) (*body[UserList], error) {
	list, err := a.Users.Users(ctx)
	return &body[UserList]{list}, asProblem(err)
}

func (a apiOf) addUser(ctx context.Context, in *struct {
	Body struct {
		Name     string `json:"name"`
		Password string `json:"password"`
	}
},
) (*none, error) {
	return nil, asProblem(a.Users.AddUser(ctx, in.Body.Name, in.Body.Password))
}

func (a apiOf) setPassword(ctx context.Context, in *struct {
	Name string `path:"name"`
	Body struct {
		Password string `json:"password"`
	}
},
) (*none, error) {
	return nil, asProblem(a.Users.SetPassword(ctx, in.Name, in.Body.Password))
}

func (a apiOf) enableUser(ctx context.Context, in *struct {
	Name string `path:"name"`
	Body struct {
		Enabled bool `json:"enabled"`
	}
},
) (*none, error) {
	return nil, asProblem(a.Users.EnableUser(ctx, in.Name, in.Body.Enabled))
}

func (a apiOf) removeUser(ctx context.Context, in *struct {
	Name string `path:"name"`
},
) (*none, error) {
	return nil, asProblem(a.Users.RemoveUser(ctx, in.Name))
}

func (a apiOf) setGroups(ctx context.Context, in *struct {
	Name string `path:"name"`
	Body struct {
		Groups []string `json:"groups" doc:"All of them; an empty list: none" maxItems:"1000"`
	}
},
) (*none, error) {
	return nil, asProblem(a.Users.SetGroups(ctx, in.Name, in.Body.Groups))
}

func (a apiOf) rules(context.Context, *none) (*body[[]Rule], error) {
	return &body[[]Rule]{a.Rules.Rules()}, nil
}

func (a apiOf) limits(context.Context, *none) (*body[[]Limit], error) {
	return &body[[]Limit]{a.Rules.Limits()}, nil
}

// rateBody is a new rate of a limit.
type rateBody struct {
	Rate string `json:"rate,omitempty" doc:"Such as 20 Mbit/s"`
	Up   string `json:"up,omitempty" doc:"The same of one direction"`
	Down string `json:"down,omitempty" doc:"Likewise"`
}

func (a apiOf) setRate(_ context.Context, in *struct {
	Name string `path:"name"`
	Body rateBody
},
) (*none, error) {
	return nil, asProblem(conflict(a.Daemon.SetRate(Rate{Limit: in.Name, Rate: in.Body.Rate, Up: in.Body.Up, Down: in.Body.Down})))
}

func (a apiOf) quotas(context.Context, *none) (*body[Quotas], error) {
	return &body[Quotas]{a.Daemon.Quotas()}, nil
}

func (a apiOf) grant(ctx context.Context, in *body[Grant]) (*body[Quota], error) {
	q, err := a.Daemon.Grant(ctx, in.Body)
	return &body[Quota]{q}, asProblem(conflict(err))
}

func (a apiOf) explain(ctx context.Context, in *Question) (*body[*Explanation], error) {
	e, err := a.Rules.Explain(ctx, *in)
	return &body[*Explanation]{e}, asProblem(err)
}

func (a apiOf) usage(ctx context.Context, in *UsageQuery) (*body[*UsageReport], error) {
	r, err := a.History.Usage(ctx, *in)
	return &body[*UsageReport]{r}, asProblem(err)
}

func (a apiOf) health(context.Context, *none) (*body[HealthReport], error) {
	return &body[HealthReport]{a.Health.Health()}, nil
}

// conflicted is why something was not done that would have been in another state.
type conflicted struct{ error }

func (c conflicted) Unwrap() error { return c.error }

// conflict marks an error as that. No error is none.
func conflict(err error) error {
	if err == nil {
		return nil
	}
	return conflicted{err}
}

// asProblem gives an error the status that goes with it. No error is none.
func asProblem(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoSession), errors.Is(err, ErrNoUser), errors.Is(err, ErrNoLedger), errors.Is(err, ErrNoGroup):
		return huma.Error404NotFound(err.Error())
	case errors.Is(err, ErrUserExists), errors.Is(err, ErrNoUsers):
		return huma.Error409Conflict(err.Error())
	case errors.Is(err, ErrBadUser), errors.Is(err, ErrBadQuestion):
		return huma.Error422UnprocessableEntity(err.Error())
	}
	if _, ok := errors.AsType[conflicted](err); ok {
		return huma.Error409Conflict(err.Error())
	}
	if f, ok := errors.AsType[*Faults](err); ok {
		return huma.Error422UnprocessableEntity(f.Text)
	}
	return huma.Error503ServiceUnavailable(err.Error())
}
