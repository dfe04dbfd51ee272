//go:build !linux

package service

import "context"

// prepare has nothing to do: there is no systemd here.
func prepare(context.Context, Plan) error { return nil }
