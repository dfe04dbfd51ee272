package daemon

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// QuestionWords are a [Question] as a person writes it.
type QuestionWords = admin.Question

// ParseQuestion takes the words for what they mean. Errors name them with dash before
// the name.
func ParseQuestion(w QuestionWords, dash string) (Question, error) {
	ask := Question{User: w.User, Listener: w.Listener}
	var err error
	if ask.From, err = netip.ParseAddr(w.From); err != nil {
		return ask, fmt.Errorf("%sfrom: %q is no IP address", dash, w.From)
	}
	if ask.Target, err = socks.ParseAddr(w.To); err != nil {
		return ask, fmt.Errorf("%sto: expected HOST:PORT, such as example.com:443, and not %q", dash, w.To)
	}
	if ask.Proof, err = oneOf(dash+"proof", server.Proof(w.Proof), server.Claimed, server.Ident, server.Password, server.Certificate, server.Key); err != nil {
		return ask, err
	}
	if ask.Protocol, err = oneOf(dash+"protocol", server.Protocol(w.Protocol), server.SOCKS4, server.SOCKS4a, server.SOCKS5, server.HTTP, server.SSH, server.Mapped); err != nil {
		return ask, err
	}
	commands := []socks.Command{socks.Connect, socks.Bind, socks.Associate}
	i := slices.IndexFunc(commands, func(c socks.Command) bool { return c.String() == cmp.Or(w.Command, "connect") })
	if i < 0 {
		return ask, fmt.Errorf("%scommand: %q is none of connect, bind, udp", dash, w.Command)
	}
	ask.Command = commands[i]
	ask.At, err = parseMoment(dash, w.At, time.Now())
	return ask, err
}

// oneOf returns word if it is empty or one of the words.
func oneOf[T ~string](flag string, word T, words ...T) (T, error) {
	if word == "" || slices.Contains(words, word) {
		return word, nil
	}
	var all []string
	for _, w := range words {
		all = append(all, string(w))
	}
	return "", fmt.Errorf("%s: %q is none of %s", flag, word, strings.Join(all, ", "))
}

// parseMoment reads a moment; a clock's time is of the day of now, and where the
// zone is not said it is that of now. Nothing is now.
func parseMoment(dash, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return now, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	if at, err := time.ParseInLocation("2006-01-02 15:04", text, now.Location()); err == nil {
		return at, nil
	}
	at, err := time.Parse("15:04", text)
	if err != nil {
		return at, fmt.Errorf("%sat: %q is no time: write 2006-01-02T15:04:05+01:00, \"2006-01-02 15:04\" or 15:04", dash, text)
	}
	return time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), 0, 0, now.Location()), nil
}
