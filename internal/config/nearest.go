package config

import (
	"maps"
	"slices"
	"strings"
)

// didYouMean returns the hint for an unknown key.
func didYouMean(key string, known fields) string {
	if near := nearest(key, slices.Sorted(maps.Keys(known))); near != "" {
		return "did you mean " + quote(near) + "?"
	}
	if strings.Contains(key, ":") {
		return "write `key: value`, with a blank behind the colon"
	}
	return "the keys here are " + names(known)
}

// nearest returns the word that text was most likely meant to be, or "".
func nearest(text string, words []string) string {
	const longest, most = 64, 1000 // bytes, and words: beyond, it is not worth the time
	if text == "" || len(text) > longest || len(words) > most {
		return ""
	}
	text = strings.ToLower(text)
	best, least := "", 1+max(1, len(text)/3)
	for _, word := range words {
		d := least
		if len(word) < len(text)+least && len(text) < len(word)+least {
			d = distance(text, strings.ToLower(word))
		}
		if strings.HasPrefix(word, text) && len(text) > 2 {
			d = 1
		}
		if d < least {
			best, least = word, d
		}
	}
	return best
}

// distance counts the single bytes to add, take out, replace, or swap with
// their neighbour, to get from a to b.
func distance(a, b string) int {
	before, above := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			replace := above[j]
			if a[i] != b[j] {
				replace++
			}
			row[j+1] = min(replace, above[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, above = above, row
	}
	return above[len(b)]
}
