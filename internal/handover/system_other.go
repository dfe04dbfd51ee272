//go:build !linux && !darwin && !freebsd

package handover

import (
	"errors"
	"os"
	"syscall"
)

// Nobody hands anything over here.

func pollable(f *os.File) *os.File { return f }

func becomeStderr(*os.File) error { return errors.ErrUnsupported }

func monotonic() []string { return nil }

func duplicate(syscall.Conn, string) (*os.File, error) { return nil, errors.ErrUnsupported }
