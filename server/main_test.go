//go:build unix

package server

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(starvingEnv); mode != "" {
		os.Exit(starve(mode)) // a child of descriptors_test.go
	}
	goleak.VerifyTestMain(m)
}
