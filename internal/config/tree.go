package config

import (
	"encoding/base64"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

type kind int

const (
	empty  kind = iota // no value, or null
	scalar             // text, a number, true or false
	list
	mapping
)

// node is one value of the document, and where it stands.
type node struct {
	src   *source
	kind  kind
	at    span   // what the caret points at
	from  int    // where it starts: its anchor or tag, if it has one
	text  string // of a scalar, as written, without quotes and escapes
	plain bool   // a scalar without quotes
	items []*node
	pairs []pair
}

// pair is a key of a mapping with its value.
type pair struct{ key, value *node }

// treeMaker turns the parser's nodes into ours: with places, and with every
// alias replaced by what it stands for.
type treeMaker struct {
	src     *source
	layout  *layout
	anchors map[string]*node
	used    map[*token.Token]bool
}

// document returns the tree of the only document; nil for an empty one.
func (t *treeMaker) document(file *ast.File) (*node, *Error) {
	t.used = make(map[*token.Token]bool, len(t.layout.tokens))
	var root *node
	for _, doc := range file.Docs { // of which one has a body, at the most
		if doc.Body == nil {
			continue
		}
		var fault *Error
		if root, fault = t.node(doc.Body); fault != nil {
			return nil, fault
		}
	}
	return root, t.unused()
}

// unused finds a value that the parser took and did not give back.
func (t *treeMaker) unused() *Error {
	for _, tk := range t.layout.tokens {
		if isScalar(tk) && !t.used[tk] {
			return t.src.misread(t.layout.at[tk].start)
		}
	}
	return nil
}

func (t *treeMaker) node(n ast.Node) (*node, *Error) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return t.mapping(n.Start, n.IsFlowStyle, n.Values)
	case *ast.MappingValueNode:
		return t.mapping(n.Start, false, []*ast.MappingValueNode{n})
	case *ast.SequenceNode:
		return t.list(n)
	case *ast.AnchorNode:
		return t.anchor(n)
	case *ast.AliasNode:
		return t.alias(n)
	case *ast.TagNode:
		return t.tag(n)
	case *ast.NullNode, *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode, *ast.StringNode:
		return t.scalar(n), nil
	}
	return nil, t.layout.fault(n.GetToken(), "this has no place in settings", "")
}

func (t *treeMaker) scalar(n ast.Node) *node {
	tk := n.GetToken()
	t.used[tk] = true
	at := t.layout.at[tk]
	made := &node{src: t.src, kind: scalar, at: at, from: at.start, text: tk.Value}
	made.plain = !isQuoted(tk)
	if n.Type() == ast.NullType {
		made.kind = empty
	}
	return made
}

func (t *treeMaker) list(n *ast.SequenceNode) (*node, *Error) {
	at := t.layout.at[n.Start]
	made := &node{src: t.src, kind: list, at: at, from: at.start}
	for i, value := range n.Values {
		item, fault := t.node(value)
		if fault != nil {
			return nil, fault
		}
		entry := at
		if !n.IsFlowStyle {
			entry = t.layout.at[n.Entries[i].Start]
			if fault := t.inside(entry.start, item, 1); fault != nil {
				return nil, fault
			}
		}
		if item.at == (span{}) {
			item.at = entry
		}
		made.items = append(made.items, item)
	}
	return made, nil
}

func (t *treeMaker) mapping(start *token.Token, flow bool, values []*ast.MappingValueNode) (*node, *Error) {
	at := t.layout.at[start]
	made := &node{src: t.src, kind: mapping, at: at, from: at.start}
	for i, v := range values {
		key, fault := t.node(v.Key)
		if fault != nil {
			return nil, fault
		}
		value, fault := t.node(v.Value)
		if fault != nil {
			return nil, fault
		}
		if i == 0 && !flow {
			made.at, made.from = key.at, key.from
		}
		if !flow {
			fault = t.aligned(made, key, value)
		}
		if fault != nil {
			return nil, fault
		}
		if value.at == (span{}) {
			value.at = key.at
		}
		made.pairs = append(made.pairs, pair{key, value})
	}
	return made, nil
}

// The parser goes by columns that tabs and anchors confuse, and takes an empty
// entry together with what follows it. So the indentation is looked at again.

// aligned checks that a key stands below the first one of its mapping, and its
// value further right. A list may start in the column of its key.
func (t *treeMaker) aligned(mapping, key, value *node) *Error {
	if t.column(key.from) != t.column(mapping.from) {
		return t.stray(key)
	}
	right := 1
	if value.kind == list && t.src.text[value.at.start] == '-' {
		right = 0
	}
	return t.inside(key.from, value, right)
}

// inside checks that n is on the line of the entry that it belongs to, or
// further right by so many columns.
func (t *treeMaker) inside(entry int, n *node, right int) *Error {
	if n.at == (span{}) {
		return nil // nothing is written
	}
	line, _ := t.src.line(entry)
	for _, start := range []int{n.from, n.at.start} {
		if number, _ := t.src.line(start); number != line && t.column(start) < t.column(entry)+right {
			return t.stray(n)
		}
	}
	return nil
}

func (t *treeMaker) stray(n *node) *Error {
	return t.src.fault(n.at.start, n.at.end, strayProblem, strayHint)
}

// column is the distance of offset from the start of its line.
func (t *treeMaker) column(offset int) int {
	number, _ := t.src.line(offset)
	return offset - t.src.starts[number-1]
}

func (t *treeMaker) anchor(n *ast.AnchorNode) (*node, *Error) {
	t.used[n.Name.GetToken()] = true
	made, fault := t.node(n.Value)
	if fault != nil {
		return nil, fault
	}
	made.from = t.layout.at[n.Start].start
	t.anchors[n.Name.GetToken().Value] = made
	return made, nil
}

// alias returns what the alias stands for. Faults in a list or a mapping are
// shown where it is written out, those of the value as a whole at the alias.
func (t *treeMaker) alias(n *ast.AliasNode) (*node, *Error) {
	name := n.Value.GetToken()
	t.used[name] = true
	at := span{t.layout.at[n.Start].start, t.layout.at[name].end}
	target, ok := t.anchors[name.Value]
	if !ok {
		text := t.src.text[at.start:at.end]
		return nil, t.src.fault(at.start, at.end, "no anchor called "+quote(name.Value)+" stands above this", "for a name that starts with * write "+quote(text))
	}
	made := *target
	made.at, made.from = at, at.start
	return &made, nil
}

// tag takes the two tags that have a use: text that looks like something else,
// and user names that are no UTF-8.
func (t *treeMaker) tag(n *ast.TagNode) (*node, *Error) {
	at := t.layout.at[n.Start]
	made, fault := t.node(n.Value)
	if fault != nil {
		return nil, fault
	}
	if made.at == (span{}) {
		made.at = at
	}
	made.from = at.start
	switch name := n.Start.Value; {
	case name != "!!str" && name != "!!binary":
		return nil, t.src.fault(at.start, at.end, "the tag "+quote(name)+" is not used in settings", "leave it out")
	case made.kind != scalar:
		return nil, t.src.fault(at.start, at.end, name+" is for a single value", "")
	case name == "!!binary":
		raw, err := base64.StdEncoding.DecodeString(made.text)
		if err != nil {
			return nil, t.src.fault(made.at.start, made.at.end, "this is not base64", "")
		}
		made.text = string(raw)
	}
	made.plain = false
	return made, nil
}
