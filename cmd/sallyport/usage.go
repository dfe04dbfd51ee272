package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
)

// usageFlags are what the command line says.
type usageFlags struct {
	from         daemon.Usage
	query        daemon.UsageQuery
	since, until string
	json, csv    bool
}

func newUsage() *cobra.Command {
	var f usageFlags
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "What was used, by user, host, day, ...",
		Long: "Print what was used, from the ledger: while the server runs, up to the last\n" +
			"second, and while it does not. Times are those of UTC.\n\n" +
			"Without --config or --store it is the ledger at the usual place.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(time.Now()); err != nil {
				return usageError{err}
			}
			report, err := f.from.Read(cmd.Context(), f.query)
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), report)
		},
	}
	cmd.AddCommand(newUsageQuotas(), newUsageGrant())
	flags := cmd.Flags()
	flags.StringVarP(&f.from.File, "config", "c", "", "the settings `FILE` of the server, which may name its ledger")
	flags.StringVar(&f.from.Store, "store", "", "the ledger itself: `sqlite:FILE` or postgres://USER@HOST/DATABASE")
	flags.StringVar(&f.query.User, "user", "", "only of this user, by `NAME`")
	flags.StringVar(&f.query.Source, "source", "", "only of clients at this `IP`")
	flags.StringVar(&f.query.Rule, "rule", "", "only by this rule, by `NAME`")
	flags.StringVar(&f.since, "since", "", "from this `TIME` on: 2026-11-25, \"2026-11-25 13:00\", or 7d for the last seven days")
	flags.StringVar(&f.until, "until", "", "up to this `TIME`, written in the same way")
	flags.StringVar(&f.query.By, "by", "user", "sum up by `WORD`: "+strings.Join(daemon.UsageGroups(), ", "))
	flags.BoolVar(&f.json, "json", false, "print JSON")
	flags.BoolVar(&f.csv, "csv", false, "print comma-separated values")
	return cmd
}

// check turns words into what they stand for.
func (f *usageFlags) check(now time.Time) error {
	if f.from.File != "" && f.from.Store != "" {
		return errors.New("--config and --store exclude each other: either says where the ledger is")
	}
	if f.json && f.csv {
		return errors.New("--json and --csv exclude each other")
	}
	if !slices.Contains(daemon.UsageGroups(), f.query.By) {
		return fmt.Errorf("--by %s: it is one of %s", f.query.By, strings.Join(daemon.UsageGroups(), ", "))
	}
	for _, one := range []struct {
		flag, text string
		to         *time.Time
	}{{"--since", f.since, &f.query.Since}, {"--until", f.until, &f.query.Until}} {
		if one.text == "" {
			continue
		}
		t, err := daemon.ParseTime(one.text, now)
		if err != nil {
			return fmt.Errorf("%s: %w", one.flag, err)
		}
		*one.to = t
	}
	return nil
}

func (f *usageFlags) print(w io.Writer, r *daemon.UsageReport) error {
	switch {
	case f.json:
		return printJSON(w, f.query.By, r)
	case f.csv:
		return printCSV(w, f.query.By, r)
	}
	return printTable(w, f.query.By, r)
}

// usageLine is a line of JSON's answer; bytes are bytes.
type usageLine struct {
	Name     string `json:"name"`
	Sessions int64  `json:"sessions"`
	Refused  int64  `json:"refused"`
	Up       int64  `json:"up"`
	Down     int64  `json:"down"`
}

func printJSON(w io.Writer, by string, r *daemon.UsageReport) error {
	answer := struct {
		By    string      `json:"by"`
		Since *time.Time  `json:"since,omitempty"`
		Until *time.Time  `json:"until,omitempty"`
		Lines []usageLine `json:"lines"`
		Sum   usageLine   `json:"sum"`
	}{By: by, Lines: []usageLine{}, Sum: usageLine{"", r.Sum.Sessions, r.Sum.Refused, r.Sum.Up, r.Sum.Down}}
	if !r.Since.IsZero() {
		answer.Since = &r.Since
	}
	if !r.Until.IsZero() {
		answer.Until = &r.Until
	}
	for _, l := range r.Lines {
		answer.Lines = append(answer.Lines, usageLine{l.Name, l.Sessions, l.Refused, l.Up, l.Down})
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(answer)
}

func printCSV(w io.Writer, by string, r *daemon.UsageReport) error {
	table := csv.NewWriter(w)
	rows := [][]string{{by, "sessions", "refused", "up", "down"}}
	for _, l := range r.Lines {
		row := []string{l.Name}
		for _, n := range []int64{l.Sessions, l.Refused, l.Up, l.Down} {
			row = append(row, strconv.FormatInt(n, 10))
		}
		rows = append(rows, row)
	}
	return table.WriteAll(rows)
}

func printTable(w io.Writer, by string, r *daemon.UsageReport) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, sessions, refused, up, down int64) {
		fmt.Fprintf(table, "%d\t%d\t%s\t%s\t%s\t  %s\n", sessions, refused, size(up), size(down), size(up+down), name)
	}
	fmt.Fprintf(table, "sessions\trefused\tup\tdown\tboth\t  %s\n", by)
	for _, l := range r.Lines {
		name := l.Name
		if name == "" {
			name = "-"
		}
		row(name, l.Sessions, l.Refused, l.Up, l.Down)
	}
	row("(sum)", r.Sum.Sessions, r.Sum.Refused, r.Sum.Up, r.Sum.Down)
	return table.Flush()
}

// size writes bytes with a unit: 1536 is 1.5 KiB.
func size(bytes int64) string {
	if bytes < 1024 {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes)/1024, 0
	for value >= 1023.95 && unit < 5 {
		value /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[unit])
}
