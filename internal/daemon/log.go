package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// newLogger returns a log that writes to w without ever waiting for it. set
// changes its level and format; the queue must be closed after the last line, and
// waits a while for it to be written.
func newLogger(w stream, l config.Log) (log *slog.Logger, set func(config.Log), queue *logQueue) {
	direct := newLiveHandler(newHandler(w, l))
	queue = newLogQueue(w, func(lines int64) {
		slog.New(direct).Warn("lines of the log were lost: what reads it is too slow, or its disk was full", "lines", lines)
	})
	behind := stream{queue, w.journal}
	queued := newLiveHandler(newHandler(behind, l))
	set = func(l config.Log) {
		direct.set(newHandler(w, l))
		queued.set(newHandler(behind, l))
	}
	return slog.New(queued), set, queue
}

func newHandler(w stream, l config.Log) slog.Handler {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
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

// sessionLog writes one line a session, when it has ended. It is a
// [server.Recorder].
type sessionLog struct{ log *slog.Logger }

// Opened writes nothing: a session's one line tells its end.
func (sessionLog) Opened(*server.Session) {}

// Closed writes the line.
func (l sessionLog) Closed(s *server.Session, reason error) {
	ctx := context.Background() // a line waits for nothing
	if !l.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	line := make([]slog.Attr, 0, 24)
	line = append(line, slog.Uint64("id", s.ID), slog.String("listener", s.Listener), slog.String("client", s.Client.String()))
	if s.Through.IsValid() {
		line = append(line, slog.String("through", s.Through.String()))
	}
	if s.TLS {
		line = append(line, slog.Bool("tls", true))
	}
	if s.Protocol != "" {
		line = append(line, slog.String("protocol", string(s.Protocol)))
	}
	if s.HTTP2 {
		line = append(line, slog.Int("http", 2))
	}
	if s.Command != 0 || s.Target != (socks.Addr{}) {
		line = appendRequest(line, s)
	}
	line = append(line,
		slog.Int64("up", s.Up()), slog.Int64("down", s.Down()),
		slog.String("took", strconv.FormatFloat(time.Since(s.Started).Seconds(), 'f', 3, 64)+"s"),
		slog.String("reason", string(server.ReasonOf(reason))))
	if detail := detailOf(reason); detail != "" {
		line = append(line, slog.String("detail", detail))
	}
	l.log.LogAttrs(ctx, slog.LevelInfo, "session", line...)
}

// appendRequest appends what is known once the client has said what it wants.
func appendRequest(line []slog.Attr, s *server.Session) []slog.Attr {
	line = append(line,
		slog.String("user", access.Escape(s.Identity.Name)), slog.String("proof", proof(s.Identity.Proof)),
		slog.String("command", command(s.Command)), slog.String("target", s.Target.String()))
	switch s.Command {
	case socks.Bind:
		line = append(line, slog.String("primary", s.Primary))
	case socks.Associate:
		if s.To != (socks.Addr{}) {
			line = append(line, slog.String("to", s.To.String()))
		}
		line = append(line, slog.Int64("dropped", s.Dropped()))
	}
	if s.Socket != "" {
		line = append(line, slog.String("socket", s.Socket))
	}
	if s.Via != "" {
		line = append(line, slog.String("via", s.Via))
	}
	if s.Proxy != "" {
		line = append(line, slog.String("proxy", s.Proxy))
	}
	return append(line, slog.String("address", address(s.Address)), slog.String("bound", address(s.Bound)), slog.String("rule", s.Rule))
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
