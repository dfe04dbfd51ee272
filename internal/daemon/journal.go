package daemon

import (
	"context"
	"io"
	"log/slog"
	"os"
)

// stream is where the log goes.
type stream struct {
	io.Writer
	journal bool // it is systemd's journal, which takes a line's priority from its beginning
}

// journal finds out whether the log goes to systemd's journal: w does, or what it is
// to be (nil: it stays what it is) after this process has taken over.
func journal(w io.Writer, later *os.File) stream {
	f, ok := w.(*os.File)
	if ok && later != nil {
		f = later
	}
	return stream{w, ok && isJournal(f, os.Getenv("JOURNAL_STREAM"))}
}

// prefixed writes lines with something before each. A line is one Write.
type prefixed struct {
	to     io.Writer
	prefix string
}

// Write implements [io.Writer].
func (p prefixed) Write(line []byte) (int, error) {
	n, err := p.to.Write(append([]byte(p.prefix), line...))
	return max(0, n-len(p.prefix)), err
}

// byLevel is a [slog.Handler] that leaves each record to the handler of its level.
type byLevel struct{ debug, info, warn, fault slog.Handler }

// journalInfo is the priority of what is told and not warned of.
const journalInfo = "<6>"

// newByLevel writes the priorities of sd-daemon(3) before lines that handler makes.
func newByLevel(w io.Writer, handler func(io.Writer) slog.Handler) slog.Handler {
	at := func(prefix string) slog.Handler { return handler(prefixed{w, prefix}) }
	return byLevel{debug: at("<7>"), info: at(journalInfo), warn: at("<4>"), fault: at("<3>")}
}

func (h byLevel) of(l slog.Level) slog.Handler {
	switch {
	case l >= slog.LevelError:
		return h.fault
	case l >= slog.LevelWarn:
		return h.warn
	case l >= slog.LevelInfo:
		return h.info
	}
	return h.debug
}

// Enabled implements [slog.Handler].
func (h byLevel) Enabled(ctx context.Context, l slog.Level) bool { return h.of(l).Enabled(ctx, l) }

// Handle implements [slog.Handler].
func (h byLevel) Handle(ctx context.Context, r slog.Record) error {
	return h.of(r.Level).Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (h byLevel) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.each(func(one slog.Handler) slog.Handler { return one.WithAttrs(attrs) })
}

// WithGroup implements [slog.Handler].
func (h byLevel) WithGroup(name string) slog.Handler {
	return h.each(func(one slog.Handler) slog.Handler { return one.WithGroup(name) })
}

func (h byLevel) each(f func(slog.Handler) slog.Handler) slog.Handler {
	return byLevel{f(h.debug), f(h.info), f(h.warn), f(h.fault)}
}
