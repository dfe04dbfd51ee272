package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// FuzzFields: what is written here can be told from what log/slog would have written by
// nothing, or, where that puts less into quotes or spells a letter in another way, by
// nobody who reads it.
func FuzzFields(f *testing.F) {
	for _, value := range []string{
		"", "word", "two words", "a=b", `"quoted"`, `C:\path`, "<&>", "naïve", "слово", "tab\t", "line\n", "\x00\x1b[2J\u007f", "\xff", "\ufffd", "\u00a0", "\u2028", "日本",
		strings.Repeat("long ", 300),
	} {
		f.Add(value, int64(-5), uint64(1<<63), int64(1_764_115_200_123_456_789))
	}
	f.Fuzz(func(t *testing.T, value string, n int64, id uint64, at int64) {
		when := time.Unix(0, at)
		for _, format := range []string{"text", "json"} {
			var want bytes.Buffer
			r := slog.NewRecord(when, slog.LevelInfo, value, 0)
			r.AddAttrs(slog.String("text", value), slog.Int64("number", n), slog.Uint64("id", id), slog.Bool("truth", true), slog.String("last", value))
			if err := newHandler(stream{Writer: &want}, config.Log{Format: format}).Handle(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			got := fields{line: []byte("<6>"), begin: 3, json: format == "json"}
			got.time(slog.TimeKey, when)
			got.text(slog.LevelKey, "INFO")
			got.text(slog.MessageKey, value)
			got.text("text", value)
			got.number("number", n)
			got.id("id", id)
			got.truth("truth")
			got.text("last", value)
			got.end()
			line := strings.TrimPrefix(string(got.line), "<6>")
			if strings.Count(line, "\n") != 1 || !utf8.ValidString(line) {
				t.Errorf("it is no line: %q", line)
			}
			if line != want.String() && !sameJSON(line, want.String()) && !strings.Contains(value, "\x7f") {
				t.Errorf("%q\nwant\n%q", line, want.String())
			}
		}
	})
}

// sameJSON reports whether both are JSON and mean the same.
func sameJSON(a, b string) bool {
	var is, want any
	return json.Unmarshal([]byte(a), &is) == nil && json.Unmarshal([]byte(b), &want) == nil && reflect.DeepEqual(is, want)
}

// TestAddresses: those that cannot be written at once are written as any text.
func TestAddresses(t *testing.T) {
	zoned := netip.MustParseAddrPort("[fe80::1%eth 0]:80")
	for _, tt := range []struct {
		target socks.Addr
		text   string
		json   string
	}{
		{socks.Addr{IP: netip.MustParseAddr("192.0.2.1"), Port: 80}, "t=192.0.2.1:80\n", `{"t":"192.0.2.1:80"}`},
		{socks.Addr{IP: netip.MustParseAddr("2001:db8::1"), Port: 443}, "t=[2001:db8::1]:443\n", `{"t":"[2001:db8::1]:443"}`},
		{socks.Addr{IP: zoned.Addr(), Port: 80}, "t=\"[fe80::1%eth 0]:80\"\n", `{"t":"[fe80::1%eth 0]:80"}`},
		{socks.Addr{Name: "www.example", Port: 80}, "t=www.example:80\n", `{"t":"www.example:80"}`},
	} {
		text, inJSON := fields{}, fields{json: true}
		for _, f := range []*fields{&text, &inJSON} {
			f.target("t", tt.target)
			f.end()
		}
		if string(text.line) != tt.text || string(inJSON.line) != tt.json+"\n" {
			t.Errorf("%v is %q and %q", tt.target, text.line, inJSON.line)
		}
	}
}

// TestSessionLineAllocates: the lines of sessions leave no garbage.
func TestSessionLineAllocates(t *testing.T) {
	client, target := netip.MustParseAddrPort("192.0.2.1:1234"), netip.MustParseAddrPort("[2001:db8::1]:80")
	s := server.NewSession(server.Record{
		ID: 7, Started: time.Now(), Listener: "lan", Client: client, Protocol: server.SOCKS5, Command: socks.Connect, Rule: "all",
		Target: socks.Addr{IP: target.Addr(), Port: 80}, Address: target, Bound: client,
	})
	for _, format := range []string{"text", "json"} {
		log := newLogger(stream{Writer: nowhere{}}, config.Log{Format: format})
		log.sessions.Closed(s, nil) // what the first one needs is kept for all
		if n := testing.AllocsPerRun(200, func() { log.sessions.Closed(s, nil) }); n > 0 {
			t.Errorf("%s: %v allocations a line", format, n)
		}
		log.queue.close()
	}
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkSessionLine(b *testing.B) {
	client, target := netip.MustParseAddrPort("192.0.2.1:1234"), netip.MustParseAddrPort("[2001:db8::1]:80")
	s := server.NewSession(server.Record{
		ID: 7, Started: time.Now(), Listener: "lan", Client: client, Protocol: server.SOCKS5, Command: socks.Connect, Rule: "all",
		Target: socks.Addr{IP: target.Addr(), Port: 80}, Address: target, Bound: client,
	})
	for _, format := range []string{"text", "json"} {
		b.Run(fmt.Sprintf("log, %s", format), func(b *testing.B) {
			log := newLogger(stream{Writer: nowhere{}}, config.Log{Format: format})
			defer log.queue.close()
			for b.Loop() {
				log.sessions.Closed(s, nil)
			}
		})
	}
	line, one, end := make([]byte, 0, 1<<10), &stamp{}, new(endOf(s, nil, nil))
	for _, format := range []string{config.AccessSquid, "{time} {client} {user} {target} {up} {down} {took} {reason}"} {
		b.Run("access log, "+format, func(b *testing.B) {
			write := mustFormat(b, format)
			for b.Loop() {
				_ = write(line, one, end)
			}
		})
	}
	b.Run("access log, JSON", func(b *testing.B) {
		for b.Loop() {
			_ = jsonLine(line, one, end)
		}
	})
}
