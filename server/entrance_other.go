//go:build !linux

package server

import "context"

// acceptOnLoop reports false: there are no loops here.
func (s *Server) acceptOnLoop(context.Context, context.Context, *serving) (done bool, err error) {
	return false, nil
}
