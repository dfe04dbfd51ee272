package admin

import (
	"context"
	"errors"
)

// Users are those who sign in to the proxy. The methods may block for as long as a
// file is written.
type Users interface {
	// Users returns all of them.
	Users(ctx context.Context) (UserList, error)
	// AddUser fails with ErrUserExists, or with ErrBadUser where the name or the
	// password cannot be had.
	AddUser(ctx context.Context, name, password string) error
	// SetPassword fails with ErrNoUser, or ErrBadUser. Open sessions that the old
	// password opened end.
	SetPassword(ctx context.Context, name, password string) error
	// EnableUser lets the user sign in again, or not any more. It fails with
	// ErrNoUser. Open sessions of one who may not end.
	EnableUser(ctx context.Context, name string, on bool) error
	// RemoveUser fails with ErrNoUser.
	RemoveUser(ctx context.Context, name string) error
	// SetGroups has the user be in these of the groups that the ledger has, and in no
	// others of them. It fails with ErrNoUser, or ErrNoGroup.
	SetGroups(ctx context.Context, name string, groups []string) error
}

// What is asked of Users and cannot be.
var (
	ErrNoUsers    = errors.New("the settings name no users; `users: {file: users}` does")
	ErrUserExists = errors.New("the user is there already")
	ErrNoUser     = errors.New("there is no such user")
	ErrBadUser    = errors.New("no such user can be")
	ErrNoGroup    = errors.New("the ledger has no such group; others are changed in the settings")
)

// UserList are the users.
type UserList struct {
	Kept   bool     `json:"kept" doc:"Whether the settings name a place for users; without one there are none"`
	Users  []User   `json:"users"`
	Groups []string `json:"groups,omitempty" doc:"Those whose members the ledger has, which can be changed; all others are of the settings"`
}

// User is one who may sign in.
type User struct {
	Name     string   `json:"name"`
	Disabled bool     `json:"disabled"`
	Groups   []string `json:"groups,omitempty" doc:"Of the settings and of the ledger"`
	Sessions int      `json:"sessions" doc:"That are open"`
	Today    Use      `json:"today" doc:"Of the day, in UTC"`
	Month    Use      `json:"month" doc:"Of the month, in UTC"`
	Quotas   []Quota  `json:"quotas,omitempty" doc:"How the user stands with those that count by user"`
}

// Use is what was used.
type Use struct {
	Sessions int64 `json:"sessions"`
	Refused  int64 `json:"refused" doc:"Sessions that came to nothing"`
	Up       int64 `json:"up" doc:"Bytes from clients to targets"`
	Down     int64 `json:"down" doc:"Bytes from targets to clients"`
}
