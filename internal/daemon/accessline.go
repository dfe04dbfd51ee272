package daemon

import (
	"bytes"
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// newAccessFormat returns the one that the settings name, or have a template of.
func newAccessFormat(text string) (lineFormat, error) {
	switch text {
	case config.AccessJSON:
		return jsonLine, nil
	case config.AccessSquid:
		return squidLine, nil
	}
	pieces, err := config.ParseAccessTemplate(text)
	if err != nil {
		return nil, err
	}
	return func(line []byte, _ *stamp, s *ended) []byte { return templateLine(line, pieces, s) }, nil
}

// accessEntry is what a line tells. Texts are escaped as in the log.
type accessEntry struct {
	Time     time.Time
	ID       uint64
	Listener string
	Client   string
	Through  string
	TLS      bool
	Protocol string
	HTTP     int
	User     string
	Proof    string
	Command  string
	Target   string
	Socket   string
	Address  string
	Bound    string
	Rule     string
	Via      string
	Proxy    string
	Up       int64
	Down     int64
	Dropped  int64
	Took     float64 // seconds
	Reason   string
	Detail   string
}

func newAccessEntry(s *ended) accessEntry {
	e := accessEntry{
		Time: s.at, ID: s.ID, Listener: s.Listener, Client: address(s.Client), Through: address(s.Through), TLS: s.TLS,
		Protocol: string(s.Protocol), User: access.Escape(s.Identity.Name), Proof: string(s.Identity.Proof), Target: target(s.Record),
		Socket: s.Socket, Address: address(s.Address), Bound: address(s.Bound), Rule: s.Rule, Via: s.Via, Proxy: s.Proxy,
		Up: s.Up(), Down: s.Down(), Dropped: s.Dropped(), Took: float64(s.at.Sub(s.Started).Milliseconds()) / 1000,
		Reason: string(s.reason), Detail: s.detail,
	}
	if s.HTTP2 {
		e.HTTP = 2
	}
	if s.Command != 0 {
		e.Command = command(s.Command)
	}
	return e
}

// jsonLine has the fields of the log's line, but that what is empty is left out, and the
// time that was taken is a number.
func jsonLine(line []byte, stamp *stamp, s *ended) []byte {
	f := fields{line: line, begin: len(line), stamp: stamp, json: true}
	f.time("time", s.at)
	appendClient(&f, s.Session)
	f.some("user", access.Escape(s.Identity.Name))
	f.some("proof", string(s.Identity.Proof))
	if s.Command != 0 {
		f.text("command", command(s.Command))
	}
	if s.Target.IP.IsValid() {
		f.target("target", s.Target)
	} else {
		f.some("target", target(s.Record))
	}
	f.some("socket", s.Socket)
	if s.Address.IsValid() {
		f.address("address", s.Address)
	}
	if s.Bound.IsValid() {
		f.address("bound", s.Bound)
	}
	f.some("rule", s.Rule)
	f.some("via", s.Via)
	f.some("proxy", s.Proxy)
	f.number("up", s.Up())
	f.number("down", s.Down())
	if n := s.Dropped(); n > 0 {
		f.number("dropped", n)
	}
	f.name("took")
	took := max(s.at.Sub(s.Started), 0).Truncate(time.Millisecond)
	f.line = strconv.AppendInt(f.line, int64(took/time.Second), 10)
	if part := took % time.Second; part > 0 {
		f.line = bytes.TrimRight(appendFraction(f.line, int64(part), 3), "0")
	}
	f.text("reason", string(s.reason))
	f.some("detail", s.detail)
	f.end()
	return f.line
}

// templateLine puts the fields into their places. What has nothing to say is a -.
func templateLine(line []byte, pieces []config.AccessPiece, s *ended) []byte {
	e := newAccessEntry(s)
	for _, p := range pieces {
		if p.Field == "" {
			line = append(line, p.Text...)
			continue
		}
		line = append(line, accessWord(e.field(p.Field, s.Session))...)
	}
	return append(line, '\n')
}

// field returns what a word of [config.AccessFields] stands for.
func (e *accessEntry) field(name string, s *server.Session) string {
	switch name {
	case "time":
		return e.Time.Format("2006-01-02T15:04:05.000Z07:00")
	case "unix":
		return fmt.Sprintf("%d.%03d", e.Time.Unix(), e.Time.Nanosecond()/int(time.Millisecond))
	case "up", "down", "bytes", "dropped", "took", "milliseconds", "id":
		return e.number(name)
	case "client_ip":
		return host(s)
	case "tls":
		return strings.TrimPrefix(strconv.FormatBool(e.TLS), "false")
	case "http":
		return strings.TrimPrefix(strconv.Itoa(e.HTTP), "0")
	case "host":
		return access.Escape(cmp.Or(s.Target.Name, addressText(s.Target)))
	case "port":
		return strings.TrimPrefix(strconv.Itoa(int(s.Target.Port)), "0")
	}
	return e.text(name)
}

// text returns what is a text anyway.
func (e *accessEntry) text(name string) string {
	for _, one := range [...]struct{ name, text string }{
		{"listener", e.Listener},
		{"client", e.Client},
		{"through", e.Through},
		{"protocol", e.Protocol},
		{"user", e.User},
		{"proof", e.Proof},
		{"command", e.Command},
		{"target", e.Target},
		{"socket", e.Socket},
		{"address", e.Address},
		{"bound", e.Bound},
		{"rule", e.Rule},
		{"via", e.Via},
		{"proxy", e.Proxy},
		{"reason", e.Reason},
		{"detail", e.Detail},
	} {
		if one.name == name {
			return one.text
		}
	}
	return ""
}

func (e *accessEntry) number(name string) string {
	switch name {
	case "up":
		return strconv.FormatInt(e.Up, 10)
	case "down":
		return strconv.FormatInt(e.Down, 10)
	case "bytes":
		return strconv.FormatInt(e.Up+e.Down, 10)
	case "dropped":
		return strconv.FormatInt(e.Dropped, 10)
	case "milliseconds":
		return strconv.FormatInt(int64(e.Took*1000+0.5), 10)
	case "id":
		return strconv.FormatUint(e.ID, 10)
	}
	return strconv.FormatFloat(e.Took, 'f', 3, 64)
}

func host(s *server.Session) string {
	if !s.Client.IsValid() {
		return ""
	}
	return s.Client.Addr().String()
}

func addressText(a socks.Addr) string {
	if !a.IP.IsValid() {
		return ""
	}
	return a.IP.String()
}

// accessWord makes a value one word, whatever template it stands in: white space, quotes
// and whatever is not printable are \xNN, and nothing is a -, which a value never is.
func accessWord(value string) string {
	switch value {
	case "":
		return "-"
	case "-":
		return `\x2d`
	}
	return escapedBytes(value, `\x`, func(r rune) bool {
		return r == '"' || r == '\'' || r == '`' || unicode.IsSpace(r) || !unicode.IsPrint(r)
	})
}

// escapedBytes writes each byte of the characters that are not to stand there as prefix
// and two digits.
func escapedBytes(text, prefix string, isBad func(rune) bool) string {
	if utf8.ValidString(text) && !strings.ContainsFunc(text, isBad) {
		return text
	}
	var b strings.Builder
	for i, size := 0, 0; i < len(text); i += size {
		var r rune
		r, size = utf8.DecodeRuneInString(text[i:])
		if !isBad(r) && (r != utf8.RuneError || size > 1) {
			b.WriteString(text[i : i+size])
			continue
		}
		for _, c := range []byte(text[i : i+size]) {
			fmt.Fprintf(&b, "%s%02x", prefix, c)
		}
	}
	return b.String()
}

// squidLine is a line in the native format of Squid's access.log: time, duration in ms,
// client, result and HTTP's status, bytes to the client, method, target, user, way, type.
// There is no status where no HTTP was spoken: it is the one that HTTP would have had.
func squidLine(line []byte, _ *stamp, s *ended) []byte {
	result, status := squidResult(s.Session, s.reason)
	method := "NONE"
	if s.Command != 0 {
		method = strings.ToUpper(command(s.Command))
	}
	way := "HIER_NONE/-"
	switch {
	case s.Via != "":
		way = "FIRSTUP_PARENT/" + squidWord(cmp.Or(s.Proxy, s.Via))
	case s.Address.IsValid():
		way = "HIER_DIRECT/" + s.Address.Addr().String()
	}
	return fmt.Appendf(line, "%d.%03d %6d %s %s/%03d %d %s %s %s %s -\n",
		s.at.Unix(), s.at.Nanosecond()/int(time.Millisecond), s.at.Sub(s.Started).Milliseconds(), squidWord(host(s.Session)), result, status, s.Down(),
		squidWord(method), squidWord(targetText(s.Session)), squidWord(s.Identity.Name), way)
}

func targetText(s *server.Session) string {
	if s.Target == (socks.Addr{}) {
		return ""
	}
	return s.Target.String()
}

// squidResult returns Squid's words for how a session ended.
func squidResult(s *server.Session, reason server.Reason) (result string, status int) {
	relayed := s.Address.IsValid() || s.Offered || s.Up() > 0 || s.Down() > 0
	switch {
	case relayed:
		return "TCP_TUNNEL", 200
	case reason == server.BadLogin:
		return "TCP_DENIED", 407
	case reason == server.Garbage || reason == server.BadRequest || s.Command == 0:
		return "NONE_NONE", 400
	}
	switch reason {
	case server.Denied, server.Schedule, server.Revoked, server.Ended, server.Quota, server.NoLedger, server.TooMany, server.TooFast,
		server.NoIdentd, server.OtherUser, server.Loop, server.NoPrimary, server.WrongPeer, server.Busy:
		return "TCP_DENIED", 403
	case server.TimedOut:
		return "TCP_TUNNEL", 504
	case server.Closed, server.ClientGone, server.ClientReset:
		return "TCP_TUNNEL_ABORTED", 0
	}
	return "TCP_TUNNEL", 503
}

// squidWord writes as %NN, as Squid does, what could end a word or a line.
func squidWord(value string) string {
	switch {
	case value == "":
		return "-"
	case value == "-":
		return "%2d"
	case len(value) > 255:
		value = value[:255]
	}
	return escapedBytes(value, "%", func(r rune) bool {
		return r <= ' ' || r >= 0x7f || r == '%' || r == '"' || r == '\\'
	})
}
