package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

func newLogger(w io.Writer, l config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// sessionLog writes one line a session, when it has ended. It is a
// [server.Recorder].
type sessionLog struct{ log *slog.Logger }

// Opened writes nothing: a session's one line tells its end.
func (sessionLog) Opened(*server.Session) {}

// Closed writes the line.
func (l sessionLog) Closed(s *server.Session, reason error) {
	line := []any{"id", s.ID, "listener", s.Listener, "client", s.Client.String()}
	if s.Protocol != "" {
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
		"protocol", string(s.Protocol),
		"user", escape(s.Identity.Name), "proof", proof(s.Identity.Proof),
		"command", command(s.Command), "target", s.Target.String(),
	}
	if s.Command == socks.Bind {
		line = append(line, "primary", s.Primary)
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
	case socks.Connect, socks.Bind:
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
	if reason == nil || reason.Error() == string(server.ReasonOf(reason)) {
		return ""
	}
	return escape(reason.Error())
}

// maxField is the longest text from outside that a line carries, in bytes.
const maxField = 255

// escape makes text from outside fit to stand in a log: what is not printable
// becomes \xNN, so that nothing a client sends can form a line of its own or
// move a terminal's cursor, and what is too long is cut, with "..." in its place.
func escape(s string) string {
	var b strings.Builder
	for i, size := 0, 0; i < len(s); i += size {
		var r rune
		r, size = utf8.DecodeRuneInString(s[i:])
		var piece string
		switch {
		case r == '\\':
			piece = `\\`
		case unicode.IsPrint(r) && (r != utf8.RuneError || size > 1):
			piece = s[i : i+size]
		default:
			for _, c := range []byte(s[i : i+size]) {
				piece += fmt.Sprintf(`\x%02x`, c)
			}
		}
		if b.Len()+len(piece) > maxField {
			b.WriteString("...")
			break
		}
		b.WriteString(piece)
	}
	return b.String()
}
