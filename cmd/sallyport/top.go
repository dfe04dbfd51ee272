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
	"text/tabwriter"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sallyport/sallyport/internal/daemon"
)

// topFlags is what the command line says.
type topFlags struct {
	remote daemon.Remote
	query  daemon.LiveQuery
	once   bool
	asJSON bool
}

func newTop() *cobra.Command {
	var f topFlags
	cmd := &cobra.Command{
		Use:   "top",
		Short: "What moves: sessions by speed, users, refusals",
		Long: "Show what the running server does, second by second: its sessions, by speed or\n" +
			"another order, its users, and what it refused and why. Sessions can be ended and\n" +
			"slowed. With --once or --json it is printed once, for people or programs.\n\n" +
			"Keys: tab or 1, 2, 3 for another view; s for another order; / for a filter; up\n" +
			"and down to choose a session, e to end it, l to slow it; q to leave.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	remoteFlags(cmd, &f.remote)
	cmd.Flags().StringVar(&f.query.Sort, "sort", "speed", "the `ORDER`: "+strings.Join(daemon.LiveOrders(), ", "))
	cmd.Flags().StringVar(&f.query.Filter, "filter", "", "only sessions with this `TEXT` in user, client, target, rule, listener or protocol")
	cmd.Flags().IntVar(&f.query.Limit, "limit", 50, "with --once or --json, at most `N` sessions (1000)")
	cmd.Flags().BoolVar(&f.once, "once", false, "print it once")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print it once, as JSON")
	return cmd
}

func (f topFlags) run(cmd *cobra.Command) error {
	if err := checkRemote(f.remote); err != nil {
		return err
	}
	switch {
	case !slices.Contains(daemon.LiveOrders(), f.query.Sort):
		return usageError{fmt.Errorf("--sort: %q is none of %s", f.query.Sort, strings.Join(daemon.LiveOrders(), ", "))}
	case f.query.Limit < 1 || f.query.Limit > 1000:
		return usageError{errors.New("--limit is a number from 1 to 1000")}
	}
	watch, err := f.remote.Watch(cmd.Context())
	if err != nil {
		return err
	}
	if f.once || f.asJSON {
		return f.print(cmd.Context(), watch, cmd.OutOrStdout())
	}
	in, isFile := cmd.InOrStdin().(*os.File)
	out, alsoFile := cmd.OutOrStdout().(*os.File)
	if !isFile || !alsoFile || !term.IsTerminal(int(in.Fd())) || !term.IsTerminal(int(out.Fd())) {
		return usageError{errors.New("this is no terminal: --once or --json prints it once")}
	}
	if _, err := watch.Now(cmd.Context()); err != nil {
		return err // before the screen is cleared
	}
	m := newTopModel(topServer{
		now:      func() (daemon.LiveNow, error) { return watch.Now(cmd.Context()) },
		limits:   func() (daemon.LiveLimits, error) { return watch.Limits(cmd.Context()) },
		sessions: func(q daemon.LiveQuery) (daemon.LiveSessions, error) { return watch.Sessions(cmd.Context(), q) },
		end:      func(id uint64) error { return watch.EndSession(cmd.Context(), id) },
		slow:     func(id uint64, rate string) error { return watch.SlowSession(cmd.Context(), id, rate) },
	}, f.query)
	_, err = tea.NewProgram(m, tea.WithContext(cmd.Context()), tea.WithInput(in), tea.WithOutput(out)).Run()
	if errors.Is(err, tea.ErrInterrupted) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// print prints it once.
func (f topFlags) print(ctx context.Context, watch daemon.Watch, out io.Writer) error {
	now, err := watch.Now(ctx)
	if err != nil {
		return err
	}
	page, err := watch.Sessions(ctx, f.query)
	if err != nil {
		return err
	}
	if f.asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Now      daemon.LiveNow      `json:"now"`
			Sessions daemon.LiveSessions `json:"sessions"`
		}{now, page})
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, topSummary(now, page)+"\n")
	for _, line := range sessionRows(page.Sessions, now.At) {
		fmt.Fprintln(table, strings.Join(line, "\t"))
	}
	return table.Flush()
}

// topSummary is the first line.
func topSummary(now daemon.LiveNow, page daemon.LiveSessions) string {
	var refused uint64
	for _, n := range now.Refused {
		refused += n
	}
	text := fmt.Sprintf("%d open, %s up, %s down; %d opened, %d came to nothing since %s", now.Open, speed(now.SpeedUp), speed(now.SpeedDown),
		now.Opened, refused, now.Started.Format("2006-01-02 15:04"))
	if page.Matched != page.Open {
		text += fmt.Sprintf("; %d match", page.Matched)
	}
	return text
}

// sessionRows are sessions with a headline.
func sessionRows(sessions []daemon.LiveSession, now time.Time) [][]string {
	rows := [][]string{{"ID", "UP/S", "DOWN/S", "UP", "DOWN", "AGE", "USER", "CLIENT", "TARGET", "RULE", "PROTOCOL"}}
	for _, s := range sessions {
		protocol := s.Protocol
		if s.Slowed > 0 {
			protocol += ", slowed"
		}
		rows = append(rows, []string{
			fmt.Sprint(s.ID), speed(s.SpeedUp), speed(s.SpeedDown), bytesText(s.Up), bytesText(s.Down), age(now.Sub(s.Started)),
			orDash(s.User), orDash(s.Client), orDash(s.Target), orDash(s.Rule), protocol,
		})
	}
	return rows
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// speed is bytes a second as bits a second, as the settings write rates.
func speed(bytes int64) string {
	return scaled(float64(bytes)*8, 1000, "bit/s", "kbit/s", "Mbit/s", "Gbit/s")
}

func bytesText(n int64) string { return scaled(float64(n), 1024, "B", "KiB", "MiB", "GiB", "TiB") }

// scaled is a number with the largest of units in which it is not under 1.
func scaled(n, step float64, units ...string) string {
	for _, unit := range units[:len(units)-1] {
		if n < step {
			return fmt.Sprintf("%.4g %s", n, unit)
		}
		n /= step
	}
	return fmt.Sprintf("%.4g %s", n, units[len(units)-1])
}

func age(d time.Duration) string {
	d = max(0, d)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}
