//go:build !linux

package service

// prepare has nothing to do: there is no systemd here.
func prepare(Plan) error { return nil }
