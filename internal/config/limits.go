package config

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/token"
)

// The YAML library recurses without a bound, needs memory for every mark, and
// takes time that grows with the square of some odd things. What a person or a
// program would write comes nowhere near these limits.
const (
	maxWork   = 1 << 30 // steps that are more than a mere pass over the file
	maxMarks  = 500_000 // characters that may each make a token
	maxTokens = 250_000
	maxDepth  = 100    // lists and mappings in each other
	maxKeys   = 10_000 // in one mapping
)

const tooLarge, fewer = "the file is too large to be read", "put fewer entries into it"

// work looks at the text before the library does. It counts the marks, and
// adds up where the library starts over: for a tab between double quotes it
// goes through the rest of the line, for a < through all that follow, for an
// empty line through those before it.
func (s *source) work() *Error {
	var steps, empty int64 // a square of the size does not fit into 32 bits
	marks := 0
	for _, start := range s.starts {
		line := s.restOfLine(start)
		content := strings.TrimLeft(line, " ")
		if content == "" {
			empty++
		} else {
			empty = 0
		}
		angles, tabs := int64(strings.Count(line, "<")), int64(strings.Count(line, "\t"))
		steps += empty + angles*angles + tabs*int64(len(line))
		if !strings.HasPrefix(content, "#") {
			marks += 1 + countAny(line, "[]{},:-?&*!|>%@`'\"#")
		}
		if steps > maxWork || marks > maxMarks {
			return s.fault(start, start+1, tooLarge, fewer)
		}
	}
	return nil
}

// countAny counts the bytes of text that are in set.
func countAny(text, set string) int {
	n := 0
	for i := range len(text) {
		if strings.IndexByte(set, text[i]) >= 0 {
			n++
		}
	}
	return n
}

// limiter follows what is open while it goes through the tokens.
type limiter struct {
	layout *layout
	flow   []token.Type // the [ and { that are not closed yet
	blocks []block      // those of no brackets, the deepest last
	empty  int          // values that are missing
}

// block is a list or a mapping that is made by indentation. It is open from its
// first token to the first one further left.
type block struct{ column, keys int }

// limit refuses what would make the parser recurse too deep or take too long.
func (l *layout) limit() *Error {
	if len(l.tokens) > maxTokens {
		return l.fault(l.tokens[maxTokens], tooLarge, fewer)
	}
	m := limiter{layout: l}
	for i, tk := range l.tokens {
		m.follow(i, tk)
		switch {
		case len(m.flow)+len(m.blocks) > maxDepth:
			return l.fault(tk, fmt.Sprintf("over %d lists and mappings in each other", maxDepth), "")
		case len(m.blocks) > 0 && m.blocks[len(m.blocks)-1].keys > maxKeys:
			return l.fault(tk, fmt.Sprintf("over %d keys in one mapping", maxKeys), "")
		case m.empty*len(l.tokens) > maxWork: // the parser moves all tokens up for each
			return l.fault(tk, tooLarge, fewer)
		}
	}
	return nil
}

// follow takes note of the token at i.
func (m *limiter) follow(i int, tk *token.Token) {
	switch tk.Type {
	case token.MappingStartType, token.SequenceStartType:
		m.flow = append(m.flow, tk.Type)
	case token.MappingEndType, token.SequenceEndType:
		m.flow = m.flow[:max(0, len(m.flow)-1)]
	case token.SequenceEntryType, token.MappingValueType:
		m.indent(i, tk)
	}
	if m.missing(i, tk) {
		m.empty++
	}
}

// indent opens and closes blocks at a dash, or at the colon behind a key.
func (m *limiter) indent(i int, tk *token.Token) {
	if len(m.flow) > 0 {
		return
	}
	column := m.column(i, tk)
	for len(m.blocks) > 0 && m.top().column > column {
		m.blocks = m.blocks[:len(m.blocks)-1]
	}
	if len(m.blocks) == 0 || m.top().column < column {
		m.blocks = append(m.blocks, block{column: column})
	}
	if tk.Type == token.MappingValueType {
		m.top().keys++
	}
}

func (m *limiter) top() *block { return &m.blocks[len(m.blocks)-1] }

// column is where the entry starts that the dash or the colon at i belongs to.
func (m *limiter) column(i int, tk *token.Token) int {
	if tk.Type == token.MappingValueType && i > 0 {
		tk = m.layout.tokens[i-1]
	}
	return tk.Position.Column
}

// missing tells whether the token at i is one that a value follows, and none
// does.
func (m *limiter) missing(i int, tk *token.Token) bool {
	if i+2 >= len(m.layout.tokens) {
		return false
	}
	next, second := m.layout.tokens[i+1], m.layout.tokens[i+2]
	switch tk.Type {
	case token.SequenceEntryType, token.MappingValueType:
		return endsEntry(next) || next.Position.Line > tk.Position.Line && next.Position.Column <= m.column(i, tk)
	case token.MappingStartType, token.CollectEntryType:
		inBraces := len(m.flow) > 0 && m.flow[len(m.flow)-1] == token.MappingStartType
		return inBraces && isScalar(next) && endsEntry(second)
	}
	return false
}

// endsEntry tells whether the token ends an entry within brackets.
func endsEntry(tk *token.Token) bool {
	return tk.Type == token.CollectEntryType || closes(tk)
}

// closes tells whether the token is ] or }.
func closes(tk *token.Token) bool {
	return tk.Type == token.MappingEndType || tk.Type == token.SequenceEndType
}
