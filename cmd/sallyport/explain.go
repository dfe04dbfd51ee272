package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// errDiffers says that new settings would change what a log tells. There is
// nothing more to say about it.
var errDiffers = errors.New("something would change")

// explainFlags are the words of the command line.
type explainFlags struct {
	config, from, user, proof, to, command, protocol, listener, at, log string

	asJSON, resolve bool
}

func newExplain() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Say what the rules make of a request, and why",
		Long: "Say what the rules make of a request: whether it is allowed, by which rule, what\n" +
			"about each rule before did not match, what proof would have helped, and by which\n" +
			"way it would leave until when. Nobody is asked but name servers: passwords count\n" +
			"as right, and with --proof ident the client's identd as saying so.\n\n" +
			"With --log it puts every session of a log to the settings, and tells what would\n" +
			"change if they were in force: the exit code is then 0 if nothing would, else 1.\n\n" +
			"  sallyport explain --config gw.yaml --from 10.0.0.7 --user bob --to example.com:443\n" +
			"  sallyport explain --config new.yaml --log access.log",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.config == "" && cmd.Flags().Changed("config") {
				return usageError{errors.New("--config needs the name of a file")}
			}
			err := f.run(cmd)
			if bad, ok := errors.AsType[*daemon.QuestionError](err); ok {
				return usageError{bad}
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "the settings `FILE`; default: the built-in settings")
	flags.StringVar(&f.from, "from", "", "the client's `IP` address")
	flags.StringVar(&f.user, "user", "", "who the client is, by `NAME`")
	flags.StringVar(&f.proof, "proof", "", "the `PROOF` that it gives: claimed, ident, password, certificate or key; default: as the protocol has it")
	flags.StringVar(&f.to, "to", "", "the `TARGET`: HOST:PORT")
	flags.StringVar(&f.command, "command", "connect", "the `COMMAND`: connect, bind or udp")
	flags.StringVar(&f.protocol, "protocol", "", "the `PROTOCOL`: socks4, socks4a, socks5, http, ssh or map; default: what the listener is for, socks5, of a claimed user socks4a, with a key ssh")
	flags.StringVar(&f.listener, "listener", "", "the `NAME` of the listener; default: the only one")
	flags.StringVar(&f.at, "at", "", "at what `TIME`: 2006-01-02T15:04:05Z, \"2006-01-02 15:04\" here, or 15:04 today; default: now")
	flags.StringVar(&f.log, "log", "", "judge the sessions in this log `FILE` of ours instead; \"-\": standard input")
	flags.BoolVar(&f.resolve, "resolve", false, "with --log: look up the names that have no address in it")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	return cmd
}

func (f *explainFlags) run(cmd *cobra.Command) error {
	src := daemon.Source{File: f.config}
	if cmd.Flags().Changed("log") {
		for _, other := range []string{"from", "user", "proof", "to", "command", "protocol", "listener", "at"} {
			if cmd.Flags().Changed(other) {
				return usageError{fmt.Errorf("--log and --%s exclude each other", other)}
			}
		}
		return f.replay(cmd.Context(), src, cmd.InOrStdin(), cmd.OutOrStdout())
	}
	if f.resolve {
		return usageError{errors.New("--resolve goes with --log: without it names are always looked up")}
	}
	ask, err := f.question()
	if err != nil {
		return usageError{err}
	}
	e, err := daemon.Explain(cmd.Context(), src, ask)
	if err != nil {
		return err
	}
	return f.print(cmd.OutOrStdout(), e, func() string { return explained(e) })
}

// question takes the flags for what they mean.
func (f *explainFlags) question() (daemon.Question, error) {
	ask := daemon.Question{User: f.user, Listener: f.listener}
	if f.from == "" || f.to == "" {
		return ask, errors.New("say at least --from IP and --to HOST:PORT, or --log FILE")
	}
	var err error
	if ask.From, err = netip.ParseAddr(f.from); err != nil {
		return ask, fmt.Errorf("--from: %q is no IP address", f.from)
	}
	if ask.Target, err = socks.ParseAddr(f.to); err != nil {
		return ask, fmt.Errorf("--to: expected HOST:PORT: %w", err)
	}
	if ask.Proof, err = oneOf("proof", server.Proof(f.proof), server.Claimed, server.Ident, server.Password, server.Certificate, server.Key); err != nil {
		return ask, err
	}
	if ask.Protocol, err = oneOf("protocol", server.Protocol(f.protocol), server.SOCKS4, server.SOCKS4a, server.SOCKS5, server.HTTP, server.SSH, server.Mapped); err != nil {
		return ask, err
	}
	commands := []socks.Command{socks.Connect, socks.Bind, socks.Associate}
	i := slices.IndexFunc(commands, func(c socks.Command) bool { return c.String() == f.command })
	if i < 0 {
		return ask, fmt.Errorf("--command: %q is none of connect, bind, udp", f.command)
	}
	ask.Command = commands[i]
	ask.At, err = parseMoment(f.at, time.Now())
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
	return "", fmt.Errorf("--%s: %q is none of %s", flag, word, strings.Join(all, ", "))
}

// parseMoment reads a moment; a clock's time is of the day of now, and where the
// zone is not said it is that of now. Nothing is now.
func parseMoment(text string, now time.Time) (time.Time, error) {
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
		return at, fmt.Errorf("--at: %q is no time: write 2006-01-02T15:04:05+01:00, \"2006-01-02 15:04\" or 15:04", text)
	}
	return time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), 0, 0, now.Location()), nil
}

func (f *explainFlags) print(out io.Writer, value any, text func() string) error {
	if !f.asJSON {
		_, err := io.WriteString(out, text())
		return err
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// explained is an explanation for a person.
func explained(e *daemon.Explanation) string {
	var b strings.Builder
	switch {
	case e.Allowed:
		fmt.Fprintf(&b, "allowed by the rule %q\n", e.Rule)
	case e.Rule != "":
		fmt.Fprintf(&b, "refused: %s, rule %q\n", e.Reason, e.Rule)
	default:
		fmt.Fprintf(&b, "refused: %s\n", e.Reason)
	}
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-9s %s\n", name, value)
		}
	}
	line("why", e.Detail)
	who := e.From
	if e.User != "" {
		who = fmt.Sprintf("%s (%s) at %s", e.User, e.Proof, e.From)
	}
	line("request", fmt.Sprintf("%s by %s, %s %s, on the listener %q", who, e.Protocol, e.Command, e.Target, e.Listener))
	line("at", e.At.Format(time.RFC3339+" (Mon)"))
	line("resolves", strings.Join(e.Addresses, ", "))
	if !slices.Equal(e.Granted, e.Addresses) && len(e.Addresses) > 0 {
		line("granted", strings.Join(e.Granted, ", "))
	}
	if e.ByName {
		line("resolves", "nothing here: the upstream is sent the name")
	}
	line("via", e.Via)
	line("leaves by", e.Outgoing)
	if !e.Until.IsZero() {
		line("until", e.Until.Format(time.RFC3339+" (Mon)"))
	}
	line("limits", strings.Join(e.Limits, ", "))
	for _, note := range e.Notes {
		line("note", note)
	}
	writeSteps(&b, e.Steps)
	return b.String()
}

func writeSteps(b *strings.Builder, steps []daemon.Step) {
	if len(steps) > 0 {
		b.WriteString("rules\n")
	}
	for i, s := range steps {
		verb := "allow"
		if s.Deny {
			verb = "deny"
		}
		text := s.Text
		if s.Miss != "" {
			text = s.Miss + ": " + text
		}
		fmt.Fprintf(b, "  %d. %s %q: %s\n", i+1, verb, s.Rule, text)
	}
}

// replay tells what settings would change.
func (f *explainFlags) replay(ctx context.Context, src daemon.Source, in io.Reader, out io.Writer) error {
	if f.log != "-" {
		file, err := os.Open(f.log)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	r, err := daemon.ReplayLog(ctx, src, in, f.resolve)
	if err != nil {
		return err
	}
	if err := f.print(out, r, func() string { return replayed(r) }); err != nil {
		return err
	}
	if r.Differs() {
		return errDiffers
	}
	return nil
}

// replayed is a replay for a person.
func replayed(r *daemon.Replay) string {
	var b strings.Builder
	titles := map[string]string{
		"lost": "would be refused, and were allowed", "gained": "would be allowed, and were refused", "otherwise": "would fare the same way by another rule, or for another reason",
	}
	kind := ""
	for _, c := range r.Changes {
		if c.Kind() != kind {
			kind = c.Kind()
			fmt.Fprintf(&b, "sessions that %s:\n", titles[kind])
		}
		fmt.Fprintf(&b, "  %d %s -> %s\n      e.g. %s\n", c.Sessions, c.Was, c.Now, c.Example)
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "and %s with changes of more kinds than are told apart\n", counted(r.More, "session"))
	}
	fmt.Fprintf(&b, "judged: %s, of which %d would fare as before\n", counted(r.Sessions, "session"), r.Same)
	for _, u := range r.Unjudged {
		fmt.Fprintf(&b, "not judged: %s: %s\n", counted(u.Sessions, "session"), u.Why)
	}
	if r.Undecided > 0 {
		fmt.Fprintf(&b, "not judged: %s: no rule had decided\n", counted(r.Undecided, "session"))
	}
	if r.Broken > 0 {
		fmt.Fprintf(&b, "left out: %s, broken or of another program\n", counted(r.Broken, "line"))
	}
	return b.String()
}

// counted is a number of things.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
