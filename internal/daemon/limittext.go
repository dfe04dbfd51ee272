package daemon

import (
	"fmt"
	"strconv"

	"github.com/sallyport/sallyport/internal/config"
)

// limitText says what a limit is, in the units of the settings.
func limitText(l config.Limit) string {
	switch {
	case l.Rate > 0:
		return rateText(l.Rate)
	case l.Up > 0 && l.Down > 0:
		return "up " + rateText(l.Up) + ", down " + rateText(l.Down)
	case l.Up > 0:
		return "up " + rateText(l.Up)
	case l.Down > 0:
		return "down " + rateText(l.Down)
	case l.Sessions > 0:
		return fmt.Sprintf("%d sessions", l.Sessions)
	case l.NewSessions > 0:
		return fmt.Sprintf("%d new sessions in %v", l.NewSessions, l.NewPer)
	}
	return quotaText(l)
}

// limitKind is the word of the API for what a limit is about.
func limitKind(l config.Limit) string {
	switch {
	case l.Rate > 0:
		return "rate"
	case l.Up > 0 || l.Down > 0:
		return "directions"
	case l.Sessions > 0:
		return "sessions"
	case l.NewSessions > 0:
		return "new_sessions"
	}
	return "quota"
}

func quotaText(l config.Limit) string {
	text := sizeText(l.Quota)
	if l.QuotaTime > 0 {
		text = l.QuotaTime.String()
	}
	if l.Counts != "" && l.Counts != "both" {
		text += " " + l.Counts
	}
	switch {
	case l.Every.Unit != "" && l.Every.Rolling:
		text += " in any " + l.Every.Unit
	case l.Every.Unit != "":
		text += " a " + l.Every.Unit
	case l.Every.Days > 0 && l.Every.Rolling:
		text += fmt.Sprintf(" in any %d days", l.Every.Days)
	case l.Every.Days > 0:
		text += fmt.Sprintf(" in %d days", l.Every.Days)
	}
	if l.Then > 0 {
		text += ", then " + rateText(l.Then)
	}
	return text
}

func rateText(bits int64) string {
	return scaled(float64(bits), 1000, []string{"bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"})
}

func sizeText(bytes int64) string {
	return scaled(float64(bytes), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"})
}

func scaled(n, step float64, units []string) string {
	i := 0
	for ; n >= step && i < len(units)-1; i++ {
		n /= step
	}
	return strconv.FormatFloat(n, 'g', 4, 64) + " " + units[i]
}
