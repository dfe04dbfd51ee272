package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// logging is a log that is written to without ever waiting for it.
type logging struct {
	*slog.Logger
	sessions *sessionLog
	set      func(config.Log) // changes its level and format
	queue    *logQueue        // must be closed after the last line, and waits a while for it to be written
}

// newLogger returns a log that writes to w.
func newLogger(w stream, l config.Log) logging {
	direct := newLiveHandler(newHandler(w, l))
	queue := newLogQueue(w, func(lines int64) {
		slog.New(direct).Warn("lines of the log were lost: what reads it is too slow, or its disk was full", "lines", lines)
	})
	behind := stream{queue, w.journal}
	queued := newLiveHandler(newHandler(behind, l))
	sessions := &sessionLog{queue: queue, journal: w.journal}
	sessions.set(l)
	set := func(l config.Log) {
		direct.set(newHandler(w, l))
		queued.set(newHandler(behind, l))
		sessions.set(l)
	}
	return logging{slog.New(queued), sessions, set, queue}
}

func newHandler(w stream, l config.Log) slog.Handler {
	options := &slog.HandlerOptions{Level: levelOf(l)}
	handler := func(w io.Writer) slog.Handler {
		if l.Format == "json" {
			return slog.NewJSONHandler(w, options)
		}
		return slog.NewTextHandler(w, options)
	}
	if w.journal {
		return newByLevel(w, handler)
	}
	return handler(w)
}

func levelOf(l config.Log) (level slog.Level) {
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return slog.LevelInfo
	}
	return level
}

// sessionLog writes one line a session, when it has ended. It is a [server.Recorder]. Its
// lines are those of the log, made in a shorter way.
type sessionLog struct {
	queue   *logQueue
	journal bool
	format  atomic.Pointer[lineFormat] // nil: they are below the log's level
}

func (l *sessionLog) set(settings config.Log) {
	if levelOf(settings) > slog.LevelInfo {
		l.format.Store(nil)
		return
	}
	isJSON := settings.Format == "json"
	format := lineFormat(func(line []byte, stamp *stamp, s *ended) []byte { return l.line(line, stamp, isJSON, s) })
	l.format.Store(&format)
}

// Opened writes nothing: a session's one line tells its end.
func (*sessionLog) Opened(*server.Session) {}

// Closed writes the line.
func (l *sessionLog) Closed(s *server.Session, reason error) {
	if format := l.format.Load(); format != nil {
		l.queue.add(endOf(s, reason, *format))
	}
}

// line appends the line of a session.
func (l *sessionLog) line(line []byte, stamp *stamp, isJSON bool, s *ended) []byte {
	if l.journal {
		line = append(line, journalInfo...)
	}
	f := fields{line: line, begin: len(line), stamp: stamp, json: isJSON}
	f.time(slog.TimeKey, s.at)
	f.text(slog.LevelKey, "INFO")
	f.text(slog.MessageKey, "session")
	appendClient(&f, s.Session)
	if s.Command != 0 || s.Target != (socks.Addr{}) {
		appendRequest(&f, s.Session)
	}
	f.number("up", s.Up())
	f.number("down", s.Down())
	f.seconds("took", s.at.Sub(s.Started))
	f.text("reason", string(s.reason))
	f.some("detail", s.detail)
	f.end()
	return f.line
}

// appendClient appends what is known of every client.
func appendClient(f *fields, s *server.Session) {
	f.id("id", s.ID)
	f.text("listener", s.Listener)
	f.address("client", s.Client)
	if s.Through.IsValid() {
		f.address("through", s.Through)
	}
	if s.TLS {
		f.truth("tls")
	}
	f.some("protocol", string(s.Protocol))
	if s.HTTP2 {
		f.number("http", 2)
	}
}

// appendRequest appends what is known once the client has said what it wants.
func appendRequest(f *fields, s *server.Session) {
	f.text("user", access.Escape(s.Identity.Name))
	f.text("proof", proof(s.Identity.Proof))
	f.text("command", command(s.Command))
	f.target("target", s.Target)
	switch s.Command {
	case socks.Bind:
		f.text("primary", s.Primary)
	case socks.Associate:
		if s.To != (socks.Addr{}) {
			f.target("to", s.To)
		}
		f.number("dropped", s.Dropped())
	}
	f.some("socket", s.Socket)
	f.some("via", s.Via)
	f.some("proxy", s.Proxy)
	f.address("address", s.Address)
	f.address("bound", s.Bound)
	f.text("rule", s.Rule)
}

func proof(p server.Proof) string {
	if p == server.NoProof {
		return "none"
	}
	return string(p)
}

func command(c socks.Command) string {
	switch c {
	case socks.Connect, socks.Bind, socks.Associate:
		return c.String()
	}
	return fmt.Sprintf("unknown %d", c)
}

func address(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// detailOf is what an error says beyond its word.
func detailOf(reason error) string {
	if reason == nil {
		return ""
	}
	word := string(server.ReasonOf(reason))
	detail := strings.TrimPrefix(reason.Error(), word)
	return access.Escape(strings.TrimPrefix(detail, ": "))
}
