package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// newLogger returns a log that writes to w without ever waiting for it. set
// changes its level and format; end must be called after the last line, and waits
// a while for it to be written.
func newLogger(w io.Writer, l config.Log) (log *slog.Logger, set func(config.Log), end func()) {
	direct := newLiveHandler(newHandler(w, l))
	queue := newLogQueue(w, func(lines int64) {
		slog.New(direct).Warn("lines of the log were lost: what reads it is too slow, or its disk was full", "lines", lines)
	})
	queued := newLiveHandler(newHandler(queue, l))
	set = func(l config.Log) {
		direct.set(newHandler(w, l))
		queued.set(newHandler(queue, l))
	}
	return slog.New(queued), set, queue.close
}

func newHandler(w io.Writer, l config.Log) slog.Handler {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

// sessionLog writes one line a session, when it has ended. It is a
// [server.Recorder].
type sessionLog struct{ log *slog.Logger }

// Opened writes nothing: a session's one line tells its end.
func (sessionLog) Opened(*server.Session) {}

// Closed writes the line.
func (l sessionLog) Closed(s *server.Session, reason error) {
	line := []any{"id", s.ID, "listener", s.Listener, "client", s.Client.String()}
	if s.Through.IsValid() {
		line = append(line, "through", s.Through.String())
	}
	if s.TLS {
		line = append(line, "tls", true)
	}
	if s.Protocol != "" {
		line = append(line, "protocol", string(s.Protocol))
	}
	if s.HTTP2 {
		line = append(line, "http", 2)
	}
	if s.Command != 0 || s.Target != (socks.Addr{}) {
		line = append(line, request(s)...)
	}
	line = append(line,
		"up", s.Up(), "down", s.Down(),
		"took", fmt.Sprintf("%.3fs", time.Since(s.Started).Seconds()),
		"reason", string(server.ReasonOf(reason)))
	if detail := detailOf(reason); detail != "" {
		line = append(line, "detail", detail)
	}
	l.log.Info("session", line...)
}

// request is what is known once the client has said what it wants.
func request(s *server.Session) []any {
	line := []any{
		"user", access.Escape(s.Identity.Name), "proof", proof(s.Identity.Proof),
		"command", command(s.Command), "target", s.Target.String(),
	}
	switch s.Command {
	case socks.Bind:
		line = append(line, "primary", s.Primary)
	case socks.Associate:
		line = append(line, "dropped", s.Dropped())
	}
	if s.Via != "" {
		line = append(line, "via", s.Via)
	}
	if s.Proxy != "" {
		line = append(line, "proxy", s.Proxy)
	}
	return append(line, "address", address(s.Address), "bound", address(s.Bound), "rule", s.Rule)
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
