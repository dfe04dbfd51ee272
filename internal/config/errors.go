package config

import (
	"strconv"
	"strings"
)

// Error is one fault of a settings file, or of the command line.
type Error struct {
	File    string // as given to Parse; empty for a fault of the command line
	Line    int    // from 1; 0: the fault has no place in the file
	Column  int    // in characters, from 1; a tab is one
	Text    string // the line itself, as it stands but for passwords: print it only escaped, as Error does
	Problem string // what is wrong; one line, with every value in it escaped
	Hint    string // what would be right; may be empty
	Width   int    // how many characters are at fault, for the caret

	cause error // why the file could not be read, if that is the fault
}

// Error returns several lines, without a newline at the end: the place and the
// problem, then the line of the file with a caret under the fault, then the
// hint. The file's line is escaped, and cut if it is long.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ":")
	}
	if e.Line > 0 {
		b.WriteString(strconv.Itoa(e.Line) + ":" + strconv.Itoa(e.Column) + ":")
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	b.WriteString(e.Problem)
	if e.Line > 0 {
		number := strconv.Itoa(e.Line)
		shown, mark := excerpt(e.Text, e.Column, e.Width)
		b.WriteString("\n  " + number + " | " + shown)
		b.WriteString("\n  " + strings.Repeat(" ", len(number)) + " | " + mark)
	}
	if e.Hint != "" {
		b.WriteString("\n  " + e.Hint)
	}
	return b.String()
}

// Unwrap returns why the file could not be read, so that errors.Is finds
// fs.ErrNotExist and its like. It is nil for every other fault.
func (e *Error) Unwrap() error { return e.cause }

// Errors are all the faults that were found, in the order of their places;
// those without a place come first. After 1000 a last one says how many more
// there were. Never empty where it is returned.
type Errors []*Error

// Error returns the faults one below the other, each as [Error.Error] prints it.
func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, one := range e {
		texts[i] = one.Error()
	}
	return strings.Join(texts, "\n")
}

// Unwrap returns the faults one by one, for errors.Is and errors.As.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// quote makes s fit for a message: without passwords, in quotes, escaped, and cut
// if it is long.
func quote(s string) string {
	const most = 60 // bytes; the excerpt below the message shows the rest
	s = veil(s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strconv.Quote(s)
}
