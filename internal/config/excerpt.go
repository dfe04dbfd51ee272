package config

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An excerpt is the part of a line that is shown with a fault. It is made of
// cells: each is one character of the file, as it is printed, with the number
// of columns that it takes on a terminal. The caret is placed by those.

const (
	lead  = 60  // columns shown before the caret, at the most
	reach = 100 // columns shown in all, about
	tab   = 8   // columns from one tab stop to the next
	near  = 512 // bytes before the caret, and characters behind, that are looked at
)

type cell struct {
	print string
	width int
}

// excerpt returns what to print of text, and below it the caret that stands
// under the character at column, with tildes under width-1 more.
func excerpt(text string, column, width int) (shown, mark string) {
	before, after := split(text, column-1)
	left, cutLeft := tail(cells(before, 0), lead)
	if cutLeft || len(before) < len(text)-len(after) {
		left = append([]cell{{"...", 3}}, left...)
	}
	pad := columns(left)
	right, cutRight := head(cells(after, pad), reach-min(pad, lead))
	under := max(1, columns(right[:min(max(1, width), len(right))]))
	if cutRight {
		right = append(right, cell{"...", 3})
	}
	shown = strings.TrimRight(join(left)+join(right), " ")
	return shown, strings.Repeat(" ", pad) + "^" + strings.Repeat("~", under-1)
}

// split cuts text before its character number n, and drops what is too far in
// front of there to be shown.
func split(text string, n int) (before, after string) {
	at := 0
	for range n {
		_, size := utf8.DecodeRuneInString(text[at:])
		at += size
	}
	before, after = text[:at], text[at:]
	if len(before) > near {
		before = before[len(before)-near:]
		for len(before) > 0 && !utf8.RuneStart(before[0]) {
			before = before[1:]
		}
	}
	return before, after
}

// cells returns the first cells of text, the first of which stands in column
// start.
func cells(text string, start int) []cell {
	var list []cell
	for len(text) > 0 && len(list) < near {
		r, size := utf8.DecodeRuneInString(text)
		c := cell{text[:size], runeWidth(r)}
		switch {
		case r == '\t':
			c.width = tab - start%tab
			c.print = strings.Repeat(" ", c.width)
		case r == utf8.RuneError && size == 1:
			c.print = `\x` + strconv.FormatUint(uint64(text[0]), 16)
			c.width = len(c.print)
		case !unicode.IsPrint(r) && !unicode.In(r, unicode.Mn, unicode.Me):
			quoted := strconv.QuoteRuneToASCII(r)
			c.print = quoted[1 : len(quoted)-1]
			c.width = len(c.print)
		}
		list = append(list, c)
		start += c.width
		text = text[size:]
	}
	return list
}

// tail returns the last cells that fit in room columns, and whether some did not.
func tail(list []cell, room int) (_ []cell, cut bool) {
	for i := len(list) - 1; i >= 0; i-- {
		if room -= list[i].width; room < 0 {
			return list[i+1:], true
		}
	}
	return list, false
}

// head returns the first cells that fit in room columns, and whether some did not.
func head(list []cell, room int) (_ []cell, cut bool) {
	for i := range list {
		if room -= list[i].width; room < 0 {
			return list[:i:i], true
		}
	}
	return list, false
}

func columns(list []cell) int {
	n := 0
	for _, c := range list {
		n += c.width
	}
	return n
}

func join(list []cell) string {
	var b strings.Builder
	for _, c := range list {
		b.WriteString(c.print)
	}
	return b.String()
}

// runeWidth returns the columns that a terminal gives to r.
func runeWidth(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// wide holds the blocks whose characters take two columns: the scripts of
// China, Japan and Korea, full-width forms, and pictures.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x1100, 0x115f, 1},
		{0x2e80, 0x303e, 1},
		{0x3041, 0xa4cf, 1},
		{0xac00, 0xd7a3, 1},
		{0xf900, 0xfaff, 1},
		{0xfe30, 0xfe6f, 1},
		{0xff00, 0xff60, 1},
		{0xffe0, 0xffe6, 1},
	},
	R32: []unicode.Range32{
		{0x1f300, 0x1f64f, 1}, {0x1f680, 0x1f6ff, 1}, {0x1f900, 0x1f9ff, 1}, {0x20000, 0x3fffd, 1},
	},
}
