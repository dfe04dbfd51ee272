package config

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// What a person sees: the golden print.
func TestErrorsPrint(t *testing.T) {
	_, err := Parse("sallyport.yaml", []byte(`# for the office
listeners:
  - name: lan
    listen: 127.0.0.1:1080
rules:
  - allow: staff
    form: 10.0.0.0/8
    ports: [80, 70000]
  - deny: "größe 日本語"
    to:	[any,	"日本"]
`), Override{Admin: "on"})
	want := `
--admin: "on" is not an address with a port
  write an address such as 127.0.0.1:1080, or :1080 for all addresses
sallyport.yaml:7:5: unknown key "form"
  7 |     form: 10.0.0.0/8
    |     ^~~~
  did you mean "from"?
sallyport.yaml:8:17: "70000" is not a port or a range of ports
  8 |     ports: [80, 70000]
    |                 ^~~~~
  write a port such as 443, or a range such as 8000-8999; the highest is 65535
sallyport.yaml:10:15: "日本" is not a host name
  10 |     to: [any,   "日本"]
     |                 ^~~~~~
  write its ASCII form, which starts with xn--
`
	if err == nil || "\n"+err.Error()+"\n" != want {
		t.Errorf("got:\n%v\nwant:%s", err, want)
	}
}

func TestErrorWithoutHint(t *testing.T) {
	e := &Error{File: "f", Line: 3, Column: 2, Text: "ab", Problem: "p"}
	if got, want := e.Error(), "f:3:2: p\n  3 | ab\n    |  ^"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	e = &Error{File: "f", Problem: "p", Hint: "h"}
	if got, want := e.Error(), "f: p\n  h"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestExcerpt(t *testing.T) {
	long := strings.Repeat("0123456789", 30)
	for _, c := range []struct {
		name          string
		text          string
		column, width int
		shown, mark   string
	}{
		{"plain", "key: value", 6, 5, "key: value", "     ^~~~~"},
		{"one character", "abc", 2, 1, "abc", " ^"},
		{"behind the end", "abc", 4, 0, "abc", "   ^"},
		{"far behind the end", "abc", 40, 7, "abc", "   ^"},
		{"empty", "", 1, 0, "", "^"},
		{"tabs", "\ta\tb", 4, 1, "        a       b", "                ^"},
		{"wide", "日本: x", 5, 1, "日本: x", "      ^"},
		{"under wide", "a日本", 2, 2, "a日本", " ^~~~"},
		{"combining", "e\u0301: x", 5, 1, "e\u0301: x", "   ^"},
		{"control bytes", "a\x1b[31m\x00b", 8, 1, `a\x1b[31m\x00b`, "             ^"},
		{"under control bytes", "a\x00b", 2, 1, `a\x00b`, " ^~~~"},
		{"direction marks", "a\u202eb", 3, 1, `a\u202eb`, "       ^"},
		{"no UTF-8", "\xff\xfeb", 3, 1, `\xff\xfeb`, "        ^"},
		{"long, at its start", long, 2, 3, long[:100] + "...", " ^~~"},
		{"long, in the middle", long, 151, 3, "..." + long[:100] + "...", strings.Repeat(" ", 63) + "^~~"},
		{"long, at its end", long, 300, 1, "..." + long[39:99] + "9", strings.Repeat(" ", 63) + "^"},
		{"long fault", long, 1, 300, long[:100] + "...", "^" + strings.Repeat("~", 99)},
		{"blanks at the end", "a   ", 1, 1, "a", "^"},
	} {
		t.Run(c.name, func(t *testing.T) {
			shown, mark := excerpt(c.text, c.column, c.width)
			if shown != c.shown || mark != c.mark {
				t.Errorf("\n%s\n%s\nwant:\n%s\n%s", shown, mark, c.shown, c.mark)
			}
		})
	}
}

// A line of a mebibyte is not printed whole, and the fault is in what is.
func TestLongLine(t *testing.T) {
	filler := strings.Repeat("日本", 1<<17)
	_, err := Parse("f.yaml", []byte(`rules: {allow: "`+filler+`", form: any, to: "`+filler+`"}`), Override{})
	if err == nil {
		t.Fatal("no error")
	}
	text := err.Error()
	if len(text) > 4096 || !utf8.ValidString(text) {
		t.Errorf("an error of %d bytes", len(text))
	}
	lines := strings.Split(text, "\n")
	if want := fmt.Sprintf("f.yaml:1:%d: unknown key \"form\"", 20+1<<18); lines[0] != want {
		t.Errorf("%s, want %s", lines[0], want)
	}
	at := strings.Index(lines[2], "^")
	if at < 0 || columns(cells(lines[1][:strings.Index(lines[1], "form")], 0)) != at {
		t.Errorf("the caret is not below form:\n%s\n%s", lines[1], lines[2])
	}
}

// Messages hold values of the file, which must not reach a terminal as they are.
func TestMessagesAreEscaped(t *testing.T) {
	for _, file := range []string{
		`"\e[31m": x`,
		`groups: {"\e[31m": [any]}`,
		`listeners: {listen: "\e[31m"}`,
		`listeners: {listen: "\e[31m:80"}`,
		`listeners: {listen: "127.0.0.1:\e[31m"}`,
		`listeners: {listen: 127.0.0.1:1080, advertise: "\e[31m", userid_max: "\e[31m", bind_ports: "\e[31m", protocols: "\e[31m"}`,
		`rules: {allow: x, from: "\e[31m", to: "\e[31m", users: "@\e[31m", listeners: "\e[31m", ports: "\e[31m-\e[31m"}`,
		`rules: {allow: x, from: "10.0.0.0/\e[31m", to: "[::1%\e[31m]:80"}`,
		`rules: {allow: x, from: "::1%\e[31m", to: "fe80::1%\e[31m"}`,
		`listeners: [{listen: "fe80::1%\e[31m"}, {listen: "[fe80::1%\e[31m]"}, {listen: "::1:\e[31m"}]`,
		`rules: [{allow: "\e[31m"}, {deny: "\e[31m"}]`,
		`timeouts: {idle: "\e[31m", bind: "\e[31md"}`,
		`hide_address: "\e[31m"`,
		`log: {level: !!binary G1szMW0=}`,
		"\x1b[31m: x",
		"rules: {allow: \x1b[31m}",
		"rules: {allow: [\"\xff\"]}",
		"rules: {allow: @\u202e}",
		"rules: {allow: *\u202e}",
		"rules: {allow: !\u202e x}",
		"listeners: {listen: ':1080'}\nrules: {allow: \"\\e[31m\"}",
	} {
		_, err := Parse("f.yaml", []byte(file), Override{})
		if err == nil {
			t.Errorf("%q: no error", file)
			continue
		}
		for _, r := range err.Error() {
			if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 || r == 0x202e || r == utf8.RuneError {
				t.Errorf("%q: %q in the error:\n%q", file, r, err.Error())
				break
			}
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"listeners", "groups", "rules", "timeouts", "log", "from"}
	for text, want := range map[string]string{
		"listner": "listeners", "Listeners": "listeners", "form": "from", "rule": "rules", "logs": "log", "time": "timeouts",
		"xyz": "", "": "", "fr": "", "a": "", "listenersandmuchmore": "", strings.Repeat("l", 100): "",
	} {
		if got := nearest(text, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", text, got, want)
		}
	}
}
