package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
)

// errDiffers says that new settings would change what a log tells. There is
// nothing more to say about it.
var errDiffers = errors.New("something would change")

// explainFlags are the words of the command line.
type explainFlags struct {
	config, log string
	words       daemon.QuestionWords

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
			err := f.run(cmd)
			if bad, ok := errors.AsType[*daemon.QuestionError](err); ok {
				return usageError{bad}
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "the settings `FILE`; default: the built-in settings")
	flags.StringVar(&f.words.From, "from", "", "the client's `IP` address")
	flags.StringVar(&f.words.User, "user", "", "who the client is, by `NAME`")
	flags.StringVar(&f.words.Proof, "proof", "", "the `PROOF` that it gives: claimed, ident, password, certificate or key; default: as the protocol has it")
	flags.StringVar(&f.words.To, "to", "", "the `TARGET`: HOST:PORT")
	flags.StringVar(&f.words.Command, "command", "connect", "the `COMMAND`: connect, bind or udp")
	flags.StringVar(&f.words.Protocol, "protocol", "", "the `PROTOCOL`: socks4, socks4a, socks5, http, ssh or map; default: what the listener is for, socks5, of a claimed user socks4a, with a key ssh")
	flags.StringVar(&f.words.Listener, "listener", "", "the `NAME` of the listener; default: the only one")
	flags.StringVar(&f.words.At, "at", "", "at what `TIME`: 2006-01-02T15:04:05Z, \"2006-01-02 15:04\" here, or 15:04 today; default: now")
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
	if f.words.From == "" || f.words.To == "" {
		return usageError{errors.New("say at least --from IP and --to HOST:PORT, or --log FILE")}
	}
	ask, err := daemon.ParseQuestion(f.words, "--")
	if err != nil {
		return usageError{err}
	}
	e, err := daemon.Explain(cmd.Context(), src, ask)
	if err != nil {
		return err
	}
	return f.print(cmd.OutOrStdout(), e, func() string { return explained(e) })
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
