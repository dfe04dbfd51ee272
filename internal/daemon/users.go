package daemon

import "github.com/sallyport/sallyport/internal/access"

// Users changes a users file, for the command line.
type Users = access.UsersEditor

// What is asked of Users and cannot be.
var (
	ErrUserExists = access.ErrUserExists
	ErrNoUser     = access.ErrNoUser
)

// CheckUserName returns why nobody can be called name; nil: somebody can.
func CheckUserName(name string) error { return access.CheckUserName(name) }
