package config

import (
	"strings"

	"github.com/goccy/go-yaml/token"
)

// layout is the tokens of a text without the comments, and where each stands.
type layout struct {
	src    *source
	tokens token.Tokens
	at     map[*token.Token]span
}

// span is a part of the text, by offsets.
type span struct{ start, end int }

// fault is source.fault at a token. One that the parser made up stands for what
// is missing at the end.
func (l *layout) fault(tk *token.Token, problem, hint string) *Error {
	at, ok := l.at[tk]
	if !ok {
		end := len(strings.TrimRight(l.src.text, " \t\n"))
		at = span{end, end}
	}
	return l.src.fault(at.start, at.end, problem, hint)
}

// layOut lays the tokens over the text: between one and the next there may be
// blank space and nothing else. What does not fit was misread, or is something
// that a settings file does without, and is a fault.
func (s *source) layOut(tokens token.Tokens) (*layout, *Error) {
	l := &layout{src: s, at: make(map[*token.Token]span, len(tokens))}
	at := 0
	for _, tk := range tokens {
		at = s.skipBlank(at)
		if fault := s.refuse(tk, at); fault != nil {
			return nil, fault
		}
		if tk.Type != token.CommentType && l.complete(tk) {
			return nil, s.fault(at, at+1, "a second document", "settings are one document, without a line of --- or ... in it")
		}
		end, fault := s.tokenEnd(tk, at)
		if fault == nil && tk.Type != token.CommentType {
			fault = l.add(tk, span{at, end})
		}
		if fault != nil {
			return nil, fault
		}
		at = end
	}
	if at = s.skipBlank(at); at < len(s.text) {
		return nil, s.misread(at)
	}
	return l, nil
}

// complete tells whether the document has ended before the token.
func (l *layout) complete(next *token.Token) bool {
	if len(l.tokens) == 0 {
		return false
	}
	return next.Type == token.DocumentHeaderType || l.tokens[len(l.tokens)-1].Type == token.DocumentEndType
}

// add puts a token behind the others, if it may stand there.
func (l *layout) add(tk *token.Token, at span) *Error {
	tk, at, fault := l.rejoin(tk, at)
	if fault != nil {
		return fault
	}
	before, touches := l.before(0, at.start)
	switch {
	case touches && isScalar(tk) && (isQuoted(before) || closes(before)):
		return l.src.fault(at.start, at.end, "this stands right behind a quote or a bracket", `put the whole value in quotes, such as "[::1]:1080"`)
	case isScalar(tk) && !isQuoted(tk) && strings.Contains(tk.Value, ": "):
		return l.src.fault(at.start, at.end, "a second colon in one value", "is a comma missing? Otherwise put the value in quotes")
	}
	l.tokens = append(l.tokens, tk)
	l.at[tk] = at
	return nil
}

// rejoin puts together what should not have been taken apart: between braces
// the YAML library ends a key at every colon, but by YAML's rules a blank must
// follow it, so that ::1 is one value there too. It returns the token to add.
func (l *layout) rejoin(tk *token.Token, at span) (*token.Token, span, *Error) {
	colon, touches := l.before(0, at.start)
	if !touches || colon.Type != token.MappingValueType {
		return tk, at, nil
	}
	start := l.at[colon].start
	key, joined := l.before(1, start)
	joined = joined && isScalar(key)
	switch {
	case joined && isQuoted(key): // as in JSON
		return tk, at, nil
	case isScalar(tk) && !isQuoted(tk):
		l.drop()
		if joined {
			start = l.at[key].start
			l.drop()
		}
		whole := *tk
		whole.Type, whole.Value = token.StringType, l.src.text[start:at.end]
		return &whole, span{start, at.end}, nil
	case joined && !endsEntry(tk):
		return nil, at, l.src.fault(start, at.start, "a blank is missing behind the colon", "write `key: value`")
	}
	return tk, at, nil
}

// before returns the token that is nth from the end, and whether it ends at
// offset end.
func (l *layout) before(nth, end int) (tk *token.Token, touches bool) {
	i := len(l.tokens) - 1 - nth
	if i < 0 {
		return nil, false
	}
	tk = l.tokens[i]
	return tk, l.at[tk].end == end
}

func (l *layout) drop() {
	l.tokens = l.tokens[:len(l.tokens)-1]
}

// isScalar tells whether the token is a value of its own.
func isScalar(tk *token.Token) bool {
	switch tk.Type {
	case token.StringType, token.SingleQuoteType, token.DoubleQuoteType, token.NullType, token.BoolType,
		token.IntegerType, token.BinaryIntegerType, token.OctetIntegerType, token.HexIntegerType,
		token.FloatType, token.InfinityType, token.NanType:
		return true
	}
	return false
}

func isQuoted(tk *token.Token) bool {
	return tk.Type == token.SingleQuoteType || tk.Type == token.DoubleQuoteType
}

func (s *source) skipBlank(at int) int {
	for at < len(s.text) && strings.IndexByte(" \t\n", s.text[at]) >= 0 {
		at++
	}
	return at
}

// refuse returns a fault for tokens that have no place in settings.
func (s *source) refuse(tk *token.Token, at int) *Error {
	switch tk.Type {
	case token.InvalidType:
		return s.invalid(tk, at)
	case token.LiteralType, token.FoldedType:
		return s.fault(at, at+1, "a block of text is used nowhere in settings", "put the value in quotes")
	case token.DirectiveType:
		return s.fault(at, at+1, "% starts a directive here, and settings do without", "leave it out, or put the value in quotes")
	case token.MappingKeyType:
		return s.fault(at, at+1, "a key that starts with ? is not used in settings", "write `key: value`")
	case token.MergeKeyType:
		return s.fault(at, at+2, "merge keys are not supported", "write the keys out")
	}
	return nil
}

// tokenEnd returns where the token that starts at ends.
func (s *source) tokenEnd(tk *token.Token, at int) (int, *Error) {
	switch tk.Type {
	case token.CommentType:
		return at + len(s.restOfLine(at)), nil
	case token.SingleQuoteType:
		return s.singleQuoted(at)
	case token.DoubleQuoteType:
		return s.doubleQuoted(at)
	case token.StringType:
		return s.plain(tk, at)
	}
	if tk.Value == "" || !strings.HasPrefix(s.text[at:], tk.Value) {
		return 0, s.misread(at)
	}
	return at + len(tk.Value), nil
}

// plain finds the end of text without quotes. It must stand on one line: text
// that goes on over several is more often a forgotten colon or dash.
func (s *source) plain(tk *token.Token, at int) (int, *Error) {
	if tk.Value != "" && strings.HasPrefix(s.text[at:], tk.Value) {
		return at + len(tk.Value), nil
	}
	shown := strings.TrimRight(s.restOfLine(at), " \t")
	switch {
	case strings.Contains(shown, "\t"):
		return 0, s.fault(at, at+len(shown), "a tab within a value", "write spaces, or put the value in quotes")
	case strings.HasPrefix(tk.Value, shown):
		return 0, s.fault(at, at+len(shown), "a value that runs over several lines", "is a colon, a dash or an indentation missing? Otherwise put it in quotes")
	}
	return 0, s.misread(at)
}

// restOfLine is the text from at to the end of its line.
func (s *source) restOfLine(at int) string {
	rest, _, _ := strings.Cut(s.text[at:], "\n")
	return rest
}

// misread is the fault where the text and the tokens part.
func (s *source) misread(at int) *Error {
	return s.fault(at, at+1, "this cannot be read as YAML", "put the value in quotes")
}
