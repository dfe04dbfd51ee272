package daemon

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// liveHandler is a [slog.Handler] in whose place another can be put while it is
// in use.
type liveHandler struct{ now atomic.Pointer[slog.Handler] }

func newLiveHandler(h slog.Handler) *liveHandler {
	l := &liveHandler{}
	l.set(h)
	return l
}

func (l *liveHandler) set(h slog.Handler) { l.now.Store(&h) }

func (l *liveHandler) handler() slog.Handler { return *l.now.Load() }

// Enabled implements [slog.Handler].
func (l *liveHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return l.handler().Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (l *liveHandler) Handle(ctx context.Context, r slog.Record) error {
	return l.handler().Handle(ctx, r)
}

// WithAttrs implements [slog.Handler]. What it returns does not change any more.
func (l *liveHandler) WithAttrs(attrs []slog.Attr) slog.Handler { return l.handler().WithAttrs(attrs) }

// WithGroup implements [slog.Handler]. What it returns does not change any more.
func (l *liveHandler) WithGroup(name string) slog.Handler { return l.handler().WithGroup(name) }
