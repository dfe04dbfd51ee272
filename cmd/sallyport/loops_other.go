//go:build !linux

package main

// useAllProcessors does nothing: there are no event loops here.
func useAllProcessors() {}
