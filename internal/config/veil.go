package config

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// veil hides what may be the password of a URL, so that no message has it: all
// from the colon behind the user to the last @ of the text becomes stars, as
// many as there were characters. It rather hides too much: a URL that is written
// wrong is just what messages are about.
func veil(text string) string {
	return parameter.ReplaceAllStringFunc(veilLogin(text), func(found string) string {
		name, value, _ := strings.Cut(found, "=")
		return name + "=" + strings.Repeat("*", utf8.RuneCountInString(value))
	})
}

// parameter is a password behind the question mark of a database's URL.
var parameter = regexp.MustCompile(`(?i)[?&][a-z]*password=[^&]*`)

func veilLogin(text string) string {
	end := strings.LastIndexByte(text, '@')
	if !strings.Contains(text, "://") {
		for end > 0 && strings.IndexByte(`"'`, text[end-1]) >= 0 {
			end = strings.LastIndexByte(text[:end], '@') // of a group, in quotes
		}
	}
	for at := range max(end, 0) {
		if text[at] != ':' || strings.HasPrefix(text[at:], "://") || strings.IndexByte(" \t", text[at+1]) >= 0 {
			continue
		}
		hidden := strings.Map(func(rune) rune { return '*' }, text[at+1:end])
		return text[:at+1] + hidden + text[end:]
	}
	return text
}
