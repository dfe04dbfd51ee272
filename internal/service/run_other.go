//go:build !windows

package service

import (
	"context"
	"errors"
	"io"
)

// Managed reports whether the service manager is one that a process has to speak to
// in order to be a service: then Run must run it. Here there is none.
func Managed() bool { return false }

// Run is for Windows.
func Run(context.Context, func(ctx context.Context, log io.Writer) error) error {
	return errors.ErrUnsupported
}
