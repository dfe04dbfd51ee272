package service

import (
	"bytes"
	"context"
	"io"

	"github.com/kardianos/service"
)

// Managed reports whether Windows has started this process as a service: then Run
// must run it.
func Managed() bool { return !service.Interactive() }

// Run serves under Windows' service manager until that asks it to stop, or serve
// ends by itself. What serve logs goes to the event log.
func Run(ctx context.Context, serve func(ctx context.Context, log io.Writer) error) error {
	p := &program{serve: serve, ended: make(chan error, 1)}
	p.begin = func() context.Context {
		var inner context.Context
		inner, p.stop = context.WithCancel(ctx)
		return inner
	}
	s, err := service.New(p, &service.Config{Name: Name})
	if err != nil {
		return err
	}
	log, err := s.SystemLogger(nil)
	if err != nil {
		return err
	}
	p.log = eventLog{log}
	if err := s.Run(); err != nil {
		return err
	}
	return p.failed
}

// program is a [service.Interface].
type program struct {
	serve  func(ctx context.Context, log io.Writer) error
	log    io.Writer
	begin  func() context.Context
	stop   context.CancelFunc
	ended  chan error
	failed error
}

// Start begins to serve.
func (p *program) Start(s service.Service) error {
	ctx := p.begin()
	go func() {
		err := p.serve(ctx, p.log)
		p.ended <- err
		if err != nil && ctx.Err() == nil {
			_, _ = p.log.Write([]byte(err.Error())) // nobody else can be told
			_ = s.Stop()                            // where it fails, the manager sees that the process ends
		}
	}()
	return nil
}

// Stop ends serving, and waits for it.
func (p *program) Stop(service.Service) error {
	p.stop()
	p.failed = <-p.ended
	return p.failed
}

// eventLog writes lines to Windows' event log.
type eventLog struct{ to service.Logger }

// Write takes whole lines.
func (l eventLog) Write(lines []byte) (int, error) {
	for line := range bytes.Lines(lines) {
		if err := l.to.Info(string(bytes.TrimSpace(line))); err != nil {
			return 0, err
		}
	}
	return len(lines), nil
}
