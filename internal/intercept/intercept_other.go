//go:build !linux || !(amd64 || arm64)

package intercept

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
)

// Interceptor leads the connections of one command through a proxy. There is none here.
type Interceptor struct{}

// Open says that it is not supported.
func Open(context.Context, Dial) (*Interceptor, error) {
	return nil, fmt.Errorf("%w on %s/%s", errors.ErrUnsupported, runtime.GOOS, runtime.GOARCH)
}

// Start is the command's Start.
func (*Interceptor) Start(command *exec.Cmd) error { return command.Start() }

// Serve does nothing, until ctx ends.
func (*Interceptor) Serve(ctx context.Context) { <-ctx.Done() }
