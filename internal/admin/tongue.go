package admin

import (
	"strconv"
	"strings"
	"time"
)

// tongue is a language of the dashboard: its words and how it writes numbers. Its
// methods are for templates.
type tongue struct {
	Code    string // as in the attribute lang of HTML
	words   map[string]string
	decimal string
	bytes   []string // units, each 1024 of the one before
	bits    []string // a second, each 1000 of the one before
	times   [4]string
}

// tongues are all of them; the first is for whoever reads none of the others.
func tongues() []*tongue { return []*tongue{&english, &russian} }

var english = tongue{
	Code: "en", decimal: ".", words: englishWords(),
	bytes: []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"},
	bits:  []string{"bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "Pbit/s"},
	times: [4]string{"d", "h", "min", "s"},
}

// englishWords are the texts that stand for something in the templates.
func englishWords() map[string]string {
	return map[string]string{
		"Sign in: button": "Sign in",
		"order: speed":    "the fastest first", "order: bytes": "those that moved most first", "order: newest": "the newest first", "order: oldest": "the oldest first",
		"order: user": "by user", "order: client": "by client", "order: target": "by target", "order: rule": "by rule",
		"by: day": "day", "by: hour": "hour", "by: month": "month", "by: user": "user", "by: source": "client", "by: rule": "rule", "by: listener": "listener", "by: host": "target host",
		"per: session": "session", "per: source": "source address", "per: user": "user", "per: group": "group", "per: rule": "rule", "per: listener": "listener", "per: server": "the whole server",
	}
}

var russian = tongue{
	Code: "ru", decimal: ",", words: russianWords(),
	bytes: []string{"Б", "КиБ", "МиБ", "ГиБ", "ТиБ", "ПиБ", "ЭиБ"},
	bits:  []string{"бит/с", "кбит/с", "Мбит/с", "Гбит/с", "Тбит/с", "Пбит/с"},
	times: [4]string{"д", "ч", "мин", "с"},
}

// tongueOf returns the language that a browser asks for first of those that there
// are (RFC 9110, section 12.5.4).
func tongueOf(accepted string) *tongue {
	best, quality := tongues()[0], 0.0
	for item := range strings.SplitSeq(accepted, ",") {
		name, rest, _ := strings.Cut(strings.TrimSpace(item), ";")
		q := 1.0
		if value, ok := strings.CutPrefix(strings.TrimSpace(rest), "q="); ok {
			var err error
			if q, err = strconv.ParseFloat(value, 64); err != nil {
				continue
			}
		}
		primary, _, _ := strings.Cut(strings.ToLower(name), "-")
		for _, t := range tongues() {
			if t.Code == primary && q > quality {
				best, quality = t, q
			}
		}
	}
	return best
}

// T returns what an English text is in the language; itself where that is not known.
func (t *tongue) T(text string) string {
	if word, ok := t.words[text]; ok {
		return word
	}
	return text
}

// Bytes writes a number of bytes.
func (t *tongue) Bytes(n int64) string { return t.scale(float64(n), 1024, t.bytes) }

// Speed writes a number of bytes a second, in bits a second, as rates are set.
func (t *tongue) Speed(bytes int64) string { return t.scale(float64(bytes)*8, 1000, t.bits) }

// Bits writes a number of bits a second.
func (t *tongue) Bits(n int64) string { return t.scale(float64(n), 1000, t.bits) }

// Amount writes what a quota counts: bytes, or seconds.
func (t *tongue) Amount(q Quota, n int64) string {
	if q.Unit == "seconds" {
		return t.Long(time.Duration(n) * time.Second)
	}
	return t.Bytes(n)
}

// Add is for templates, which cannot.
func (t *tongue) Add(a, b int64) int64 { return a + b }

func (t *tongue) scale(n, step float64, units []string) string {
	i := 0
	for ; n >= step-0.05*step/1000 && i < len(units)-1; i++ {
		n /= step
	}
	digits := 0
	if i > 0 && n < 100 {
		digits = 1
	}
	return strings.Replace(strconv.FormatFloat(n, 'f', digits, 64), ".", t.decimal, 1) + "\u00a0" + units[i]
}

// Long writes how long something has taken, in its two largest units.
func (t *tongue) Long(d time.Duration) string {
	left := int64(max(0, d) / time.Second)
	sizes := [4]int64{86400, 3600, 60, 1}
	var parts []string
	for i, size := range sizes {
		n := left / size
		left %= size
		if n > 0 || i == 3 && len(parts) == 0 {
			parts = append(parts, strconv.FormatInt(n, 10)+"\u00a0"+t.times[i])
		} else if len(parts) > 0 {
			break
		}
		if len(parts) == 2 {
			break
		}
	}
	return strings.Join(parts, " ")
}

// Since writes how long ago something was.
func (t *tongue) Since(at time.Time) string { return t.Long(time.Since(at)) }

// Left writes how long it is to a time; empty: it is over.
func (t *tongue) Left(at time.Time) string {
	if left := time.Until(at); left > 0 {
		return t.Long(left)
	}
	return ""
}

// Clock writes the time of day, by the clock of the server.
func (t *tongue) Clock(at time.Time) string { return at.Format(time.TimeOnly) }

// Moment writes a time.
func (t *tongue) Moment(at time.Time) string {
	if at.IsZero() {
		return "–"
	}
	return at.Format("2006-01-02 15:04:05 -07:00")
}

// ISO writes a time for machines.
func (t *tongue) ISO(at time.Time) string { return at.UTC().Format(time.RFC3339) }
