package config

import (
	"errors"

	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The YAML library is trusted with the grammar and with nothing else. Its
// tokens are laid over the text one by one (places.go): that gives every value
// its exact place, whatever tabs and escapes stand before it, and proves that a
// value was read as it stands. Depth is bounded before the library recurses.

// parse makes a tree out of the text. A nil tree without a fault is an empty
// document.
func (s *source) parse() (root *node, fault *Error) {
	if fault := s.check(); fault != nil {
		return nil, fault
	}
	defer func() {
		if r := recover(); r != nil {
			root, fault = nil, &Error{File: s.file, Problem: "the file cannot be read as YAML", Hint: "write it in a plainer way"}
		}
	}()
	tokens := lexer.Tokenize(s.text)
	l, fault := s.layOut(tokens)
	if fault != nil {
		return nil, fault
	}
	if fault := l.limit(); fault != nil {
		return nil, fault
	}
	file, err := parser.Parse(l.tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, l.syntax(err)
	}
	t := &treeMaker{src: s, layout: l, anchors: map[string]*node{}}
	return t.document(file)
}

// syntaxError is what the parser's errors offer.
type syntaxError interface {
	error
	GetToken() *token.Token
	GetMessage() string
}

// syntax words an error of the parser.
func (l *layout) syntax(err error) *Error {
	e, ok := errors.AsType[syntaxError](err)
	if !ok {
		return &Error{File: l.src.file, Problem: "the file cannot be read as YAML"}
	}
	problem, hint := "this is not YAML: "+e.GetMessage(), ""
	if known, ok := syntaxWords()[e.GetMessage()]; ok {
		problem, hint = known[0], known[1]
	}
	return l.fault(e.GetToken(), problem, hint)
}

const (
	strayProblem = "this does not belong to what stands above it"
	strayHint    = "entries that belong together start in the same column"
)

// syntaxWords says the parser's more frequent messages in the words of who
// writes a settings file: the problem, and the hint.
func syntaxWords() map[string][2]string {
	const quotes = "put a value that holds a colon and a space in quotes"
	return map[string][2]string{
		"value is not allowed in this context":                               {strayProblem, strayHint},
		"value is not allowed in this context. map key-value is pre-defined": {"this does not belong to the key above it, which has its value already", strayHint},
		"non-map value is specified":                                         {"a key with a colon is missing here", "write `key: value`"},
		"mapping value is not allowed in this context":                       {"a second key on the same line", quotes},
		"unexpected key name":                                                {"this cannot be a key", "write `key: value`"},
		"found an invalid key for this map":                                  {"a key is missing before the colon", quotes},
		"block sequence entries are not allowed in this context":             {"a list that starts on the line of its key", "start the list on a line of its own, or write [one, two]"},
		"sequence end token ']' not found":                                   {"this [ is never closed", "close the list with ]"},
		"could not find flow mapping end token '}'":                          {"this { is never closed", "close the mapping with }"},
		"',' or ']' must be specified":                                       {"a comma or ] is missing before this", ""},
		"',' or '}' must be specified":                                       {"a comma or } is missing before this", ""},
		"could not find '[' character corresponding to ']'":                  {"this ] closes nothing", "take it out, or put the value in quotes"},
		"could not find '{' character corresponding to '}'":                  {"this } closes nothing", "take it out, or put the value in quotes"},
		"expected sequence element, but found ','":                           {"an entry is missing before this comma", ""},
		"anchors cannot be used consecutively":                               {"two anchors at one value", ""},
		"map key definition includes an implicit line break":                 {"a key that runs over several lines", "write `key: value` on one line"},
		"sequence entries are not allowed after anchor on the same line":     {"a list that starts on the line of its anchor", "start the list on a line of its own"},
		"value cannot be placed after document separator":                    {"something stands behind ---", "start on a line of its own"},
		"unexpected end content":                                             {"something stands behind the end of the document", "leave out the line ..."},
		"could not find flow map content":                                    {"a key with a colon is missing here", "write {key: value}"},
		"undefined anchor value":                                             {"an anchor without a value", ""},
		"undefined alias name":                                               {"an alias without a name", `a value that starts with * stands in quotes: "*.example.com"`},
	}
}
