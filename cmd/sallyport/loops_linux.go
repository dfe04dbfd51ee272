package main

import (
	"os"

	"github.com/sallyport/sallyport/internal/engine"
)

// useAllProcessors has as many event loops as there are processors, unless whoever has started
// the program has said how many it may use.
func useAllProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		engine.AddLoop()
	}
}
