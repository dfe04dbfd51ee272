package access

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/sallyport/sallyport/server"
)

// identAnswers are lines that an identd may send when asked for the ports 6193
// (the client's) and 23 (ours): a name, or why there is none.
var identAnswers = []struct {
	line string
	name string
	want error
}{
	// The examples of RFC 1413, section 4, and other ways to space them.
	{"6193, 23 : USERID : UNIX : stjohns", "stjohns", nil},
	{"6193,23:USERID:UNIX:stjohns", "stjohns", nil},
	{"6193 , 23 : USERID : UNIX : stjohns", "stjohns", nil},
	{" \t6193\t,  23 \t:\tUSERID  :UNIX\t: stjohns", "stjohns", nil},
	{"6193, 23 : USERID : UNIX, US-ASCII : stjohns", "stjohns", nil},
	{"6193, 23 : USERID : : stjohns", "stjohns", nil},
	{"6193, 23 : USERID : OTHERS : stjohns", "stjohns", nil},

	// The userid's own bytes are kept.
	{"6193, 23 : USERID : UNIX :  stjohns", " stjohns", nil},
	{"6193, 23 : USERID : UNIX : stjohns ", "stjohns ", nil},
	{"6193, 23 : USERID : UNIX :\tstjohns", "\tstjohns", nil},
	{"6193, 23 : USERID : UNIX : a:b : c:", "a:b : c:", nil},
	{"6193, 23 : USERID : UNIX :::", "::", nil},
	{"6193, 23 : USERID : UNIX : stjohns, OTHER", "stjohns, OTHER", nil},
	{"6193, 23 : USERID : UNIX : ERROR : NO-USER", "ERROR : NO-USER", nil},
	{"6193, 23 : USERID : UNIX : \xff\x01\x7f", "\xff\x01\x7f", nil},
	{"6193, 23 : USERID : UNIX : --", "--", nil},
	{"6193, 23 : USERID : UNIX : " + strings.Repeat("u", 512), strings.Repeat("u", 512), nil},

	// An answer without a name.
	{"6193, 23 : ERROR : NO-USER", "", server.OtherUser},
	{"6193, 23 : ERROR : HIDDEN-USER", "", server.OtherUser},
	{"6193, 23 : ERROR : INVALID-PORT", "", server.OtherUser},
	{"6193, 23 : ERROR : UNKNOWN-ERROR", "", server.OtherUser},
	{"6193, 23 : ERROR : X-MOON", "", server.OtherUser},
	{"6193,23:ERROR:NO-USER", "", server.OtherUser},
	{"6193, 23 : ERROR : UNIX : stjohns", "", server.OtherUser},
	{"6193, 23 : USERID : UNIX : -", "", server.OtherUser},
	{"6193, 23 : USERID : UNIX :-", "", server.OtherUser},
	{"6193, 23 : USERID : UNIX : ", "", server.OtherUser},
	{"6193, 23 : USERID : UNIX :", "", server.OtherUser},
	{"6193, 23 : USERID : OTHER : stjohns", "", server.OtherUser},
	{"6193, 23 : USERID :OTHER: stjohns", "", server.OtherUser},
	{"6193, 23 : USERID : OTHER,US-ASCII : stjohns", "", server.OtherUser},
	{"6193, 23 : USERID : OTHER , UTF-8 : stjohns", "", server.OtherUser},

	// Other ports than the ones asked for.
	{"23, 6193 : USERID : UNIX : stjohns", "", server.NoIdentd},
	{"6194, 23 : USERID : UNIX : stjohns", "", server.NoIdentd},
	{"6193, 24 : USERID : UNIX : stjohns", "", server.NoIdentd},
	{"0, 0 : ERROR : INVALID-PORT", "", server.NoIdentd},
	{"6194, 23 : ERROR : NO-USER", "", server.NoIdentd},
	{"71729, 23 : USERID : UNIX : stjohns", "", server.NoIdentd},                // 65536 + 6193
	{"18446744073709557809, 23 : USERID : UNIX : stjohns", "", server.NoIdentd}, // 2^64 + 6193
	{"-59343, 23 : USERID : UNIX : stjohns", "", server.NoIdentd},
	{"+6193, 23 : USERID : UNIX : stjohns", "", server.NoIdentd},
	{"61 93, 23 : USERID : UNIX : stjohns", "", server.NoIdentd},
	{"6_193, 23 : USERID : UNIX : stjohns", "", server.NoIdentd},
	{"0x1831, 23 : USERID : UNIX : stjohns", "", server.NoIdentd},
	{"6193, : USERID : UNIX : stjohns", "", server.NoIdentd},
	{", 23 : USERID : UNIX : stjohns", "", server.NoIdentd},
	{"6193 23 : USERID : UNIX : stjohns", "", server.NoIdentd},
	{"6193, 23, 23 : USERID : UNIX : stjohns", "", server.NoIdentd},
	{": USERID : UNIX : stjohns", "", server.NoIdentd},

	// What is no answer at all.
	{"", "", server.NoIdentd},
	{"stjohns", "", server.NoIdentd},
	{":", "", server.NoIdentd},
	{":::", "", server.NoIdentd},
	{"6193, 23", "", server.NoIdentd},
	{"6193, 23 :", "", server.NoIdentd},
	{"6193, 23 : ERROR", "", server.NoIdentd},
	{"6193, 23 : USERID", "", server.NoIdentd},
	{"6193, 23 : USERID : UNIX", "", server.NoIdentd},
	{"6193, 23 : USERID : stjohns", "", server.NoIdentd},
	{"6193, 23 : USER : UNIX : stjohns", "", server.NoIdentd},
	{"6193, 23 : : UNIX : stjohns", "", server.NoIdentd},
	{"6193, 23 : USERID ERROR : UNIX : stjohns", "", server.NoIdentd},
	{"HTTP/1.1 400 Bad Request", "", server.NoIdentd},
	{"6193, 23 : USERID : UNIX : st\x00johns", "", server.NoIdentd},
	{"6193, 23 : USERID : UNIX : stjohns\x00", "", server.NoIdentd},
	{"6193, 23 : USERID : UNIX : \x00", "", server.NoIdentd},
	{"6193, 23 : USERID : UNIX : stjohns\rroot", "", server.NoIdentd}, // no CR in a userid (RFC 1413, section 6)
}

func TestParseIdent(t *testing.T) {
	for _, test := range identAnswers {
		name, err := parseIdent([]byte(test.line), 6193, 23)
		if name != test.name || !errors.Is(err, test.want) {
			t.Errorf("%.60q: %.60q, %v; want %.60q, %v", test.line, name, err, test.name, test.want)
		}
	}
	if name, err := parseIdent([]byte("65535, 0 : USERID : UNIX : fred"), 65535, 0); name != "fred" || err != nil {
		t.Errorf("the highest and the lowest port: %q, %v", name, err)
	}
}

// What an answer without a name said goes to the log, whole but escaped.
func TestParseIdentTellsTheError(t *testing.T) {
	_, err := parseIdent([]byte("6193, 23 : ERROR : X-\x1b[2J\"more:still more"), 6193, 23)
	if want := `"X-\x1b[2J\"more:still more"`; err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
		t.Errorf("%v; want %s in it", err, want)
	}
}

// identLines are what arrives on the connection, up to its end, and the line
// that is in it.
var identLines = []struct{ in, want string }{
	{"1, 2 : ERROR : NO-USER\r\n", "1, 2 : ERROR : NO-USER"},
	{"1, 2 : ERROR : NO-USER\n", "1, 2 : ERROR : NO-USER"},
	{"1, 2 : ERROR : NO-USER", "1, 2 : ERROR : NO-USER"},
	{"1, 2 : ERROR : NO-USER\r", "1, 2 : ERROR : NO-USER"},
	{"1, 2 : ERROR : NO-USER\r\nsecond line\r\n", "1, 2 : ERROR : NO-USER"},
	{"one\r\r\n", "one\r"},
	{"o\rne\n", "o\rne"},
	{"one\n\r\n", "one"},
	{" \r\n", " "},
	{"", ""},
	{"\n", ""},
	{"\r\n", ""},
	{"\r", ""},
	{"\r\n1, 2 : ERROR : NO-USER\r\n", ""},
	{strings.Repeat("u", 999) + "\r\n", strings.Repeat("u", 999)},
	{strings.Repeat("u", 1000) + "\r\n", strings.Repeat("u", 1000)},
	{strings.Repeat("u", 1000) + "\n", strings.Repeat("u", 1000)},
	{strings.Repeat("u", 1000), strings.Repeat("u", 1000)},
	{strings.Repeat("u", 1001) + "\r\n", ""},
	{strings.Repeat("u", 1001) + "\n", ""},
	{strings.Repeat("u", 1001), ""},
	{strings.Repeat("u", 1002) + "\n", ""},
	{strings.Repeat("u", 1003) + "\n", ""},
	{strings.Repeat("u", 65536) + "\n", ""},
}

func TestReadAnswer(t *testing.T) {
	for _, test := range identLines {
		for name, in := range waysToArrive(test.in) {
			line, err := readAnswer(in)
			if string(line) != test.want || (err == nil) != (test.want != "") {
				t.Errorf("%.60q, %s: %d bytes, %v; want %.60q", test.in, name, len(line), err, test.want)
			}
		}
	}
	broken := errors.New("broken")
	line, err := readAnswer(io.MultiReader(strings.NewReader("1, 2 : USERID : UNIX : fr"), iotest.ErrReader(broken)))
	if line != nil || !errors.Is(err, broken) {
		t.Errorf("a connection that breaks in the middle: %q, %v", line, err)
	}
}

// waysToArrive are readers of the same bytes that return them in other pieces.
func waysToArrive(in string) map[string]io.Reader {
	ways := map[string]io.Reader{
		"at once":      strings.NewReader(in),
		"byte by byte": iotest.OneByteReader(strings.NewReader(in)),
		"by halves":    iotest.HalfReader(strings.NewReader(in)),
		"end at once":  iotest.DataErrReader(strings.NewReader(in)),
	}
	for _, cut := range []int{1, len(in) - 1, 1000, 1001, 1002} {
		if 0 < cut && cut < len(in) {
			ways[fmt.Sprintf("cut at %d", cut)] = io.MultiReader(strings.NewReader(in[:cut]), strings.NewReader(in[cut:]))
		}
	}
	return ways
}

// endless never stops sending, and counts.
type endless struct{ sent int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'u'
	}
	e.sent += len(p)
	return len(p), nil
}

func TestReadAnswerIsBounded(t *testing.T) {
	var rambler endless
	if line, err := readAnswer(&rambler); line != nil || !errors.Is(err, errIdentLong) {
		t.Errorf("%d bytes, %v; want errIdentLong", len(line), err)
	}
	if rambler.sent > identAnswer+2 {
		t.Errorf("%d bytes were read; want no more than a line of %d and its end", rambler.sent, identAnswer)
	}
}

// FuzzIdent feeds whole streams: from the first byte that identd sends to the
// name.
func FuzzIdent(f *testing.F) {
	for _, seed := range identAnswers {
		f.Add([]byte(seed.line+"\r\n"), uint16(6193), uint16(23))
	}
	for _, seed := range identLines {
		f.Add([]byte(seed.in), uint16(1), uint16(2))
	}
	f.Fuzz(func(t *testing.T, stream []byte, theirs, ours uint16) {
		name, err := answerIn(bytes.NewReader(stream), theirs, ours)
		wantLawfulAnswer(t, stream, name, err)
		wantSameAnswer := func(way string, in io.Reader) {
			if got, gotErr := answerIn(in, theirs, ours); got != name || server.ReasonOf(gotErr) != server.ReasonOf(err) {
				t.Fatalf("%s: %q, %v; at once: %q, %v", way, got, gotErr, name, err)
			}
		}
		for way, in := range waysToArrive(string(stream)) {
			wantSameAnswer(way, in)
		}
		broken := io.MultiReader(bytes.NewReader(stream), iotest.ErrReader(net.ErrClosed))
		if got, gotErr := answerIn(broken, theirs, ours); gotErr == nil && (got != name || err != nil) {
			t.Fatalf("from a connection that breaks: %q; from a whole one: %q, %v", got, name, err)
		}
		if bytes.IndexByte(stream, '\n') < 0 {
			stream = append(bytes.TrimSuffix(stream, []byte{'\r'}), '\r', '\n')
		}
		wantSameAnswer("with a tail", io.MultiReader(bytes.NewReader(stream), strings.NewReader("6193, 23 : USERID : UNIX : tail\r\n")))
		canonical := fmt.Sprintf("%d, %d : USERID : UNIX : %s\r\n", theirs, ours, name)
		if err != nil || len(canonical) > identAnswer {
			return
		}
		wantSameAnswer("said again", strings.NewReader(canonical))
		if got, err := answerIn(strings.NewReader(canonical), theirs, ours+1); err == nil {
			t.Fatalf("for another port: %q", got)
		}
	})
}

func answerIn(r io.Reader, theirs, ours uint16) (string, error) {
	line, err := readAnswer(r)
	if err != nil {
		return "", fmt.Errorf("%w: %w", server.NoIdentd, err)
	}
	return parseIdent(line, theirs, ours)
}

// wantLawfulAnswer requires a name that RFC 1413 allows, and that was sent, or
// one of the two reasons for none.
func wantLawfulAnswer(t *testing.T, stream []byte, name string, err error) {
	t.Helper()
	if err != nil {
		if reason := server.ReasonOf(err); name != "" || (reason != server.NoIdentd && reason != server.OtherUser) {
			t.Fatalf("%q and %v", name, err)
		}
		return
	}
	if name == "" || name == "-" || len(name) > identAnswer || strings.ContainsAny(name, "\x00\r\n") {
		t.Fatalf("the name %q", name)
	}
	line, _, _ := bytes.Cut(stream, []byte{'\n'})
	if !bytes.HasSuffix(bytes.TrimSuffix(line, []byte{'\r'}), []byte(":"+name)) && !bytes.HasSuffix(bytes.TrimSuffix(line, []byte{'\r'}), []byte(": "+name)) {
		t.Fatalf("the name %q was not sent in %q", name, line)
	}
	if !bytes.Contains(line, []byte("USERID")) || bytes.Count(line, []byte{':'}) < 3 {
		t.Fatalf("%q was taken for the name %q", line, name)
	}
}
