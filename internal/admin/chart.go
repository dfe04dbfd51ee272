package admin

import (
	"cmp"
	"html/template"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The charts are drawn here: an SVG of lines or of bars is a handful of numbers, and
// a library for them would bring fonts and image formats along. What they mean is
// said beside them in words, so that they are hidden from screen readers.

// Size of a chart in its own units; a page stretches it.
const (
	chartWidth  = 600
	chartHeight = 120
)

// span is how many samples a chart of lines is wide: five minutes.
const span = 300

// lines draws each series as a line over the same height, the first one filled.
func lines(series ...[]float64) template.HTML {
	most := 1.0
	longest := span
	for _, s := range series {
		longest = max(longest, len(s))
		for _, n := range s {
			most = max(most, n)
		}
	}
	var b strings.Builder
	b.WriteString(openSVG)
	for i, s := range series {
		if len(s) == 0 {
			continue
		}
		var points strings.Builder
		start := longest - len(s) // the newest is at the right edge
		for at, n := range s {
			x := float64(start+at) / float64(longest-1) * chartWidth
			points.WriteString(number(x) + "," + number(chartHeight-n/most*(chartHeight-4)) + " ")
		}
		first := number(float64(start) / float64(longest-1) * chartWidth)
		if i == 0 {
			b.WriteString(`<polygon class="fill" points="` + first + "," + number(chartHeight) + " " + points.String() + number(chartWidth) + "," + number(chartHeight) + `"/>`)
		}
		b.WriteString(`<polyline class="line` + strconv.Itoa(i) + `" points="` + strings.TrimSpace(points.String()) + `"/>`)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// leastBars are so many that a few bars do not look like walls.
const leastBars = 24

// bars draws a bar for each pair, at most as wide as if there were least of them: the
// second stands on the first.
func bars(least int, pairs [][2]float64) template.HTML {
	most := 1.0
	for _, p := range pairs {
		most = max(most, p[0]+p[1])
	}
	var b strings.Builder
	b.WriteString(openSVG)
	wide := chartWidth / float64(max(least, len(pairs)))
	for i, p := range pairs {
		top := float64(chartHeight)
		for n, value := range p {
			height := value / most * (chartHeight - 4)
			top -= height
			b.WriteString(`<rect class="bar` + strconv.Itoa(n) + `" x="` + number(float64(i)*wide+wide*0.1) + `" y="` + number(top) +
				`" width="` + number(wide*0.8) + `" height="` + number(height) + `"/>`)
		}
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

const openSVG = `<svg viewBox="0 0 600 120" preserveAspectRatio="none" aria-hidden="true" focusable="false">`

func number(n float64) string { return strconv.FormatFloat(n, 'f', 1, 64) }

// reasonLines puts what was counted in order, the most frequent first.
func reasonLines(counts map[string]uint64) []reasonLine {
	var all []reasonLine
	for word, n := range counts {
		all = append(all, reasonLine{Word: word, Count: n})
	}
	slices.SortFunc(all, func(a, b reasonLine) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Word, b.Word))
	})
	most := uint64(1)
	for n := range maps.Values(counts) {
		most = max(most, n)
	}
	for i := range all {
		all[i].Share = all[i].Count * 100 / most
	}
	return all
}
