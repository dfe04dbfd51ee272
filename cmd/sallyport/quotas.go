package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
)

func newUsageQuotas() *cobra.Command {
	var remote daemon.Remote
	var asJSON, asCSV bool
	var limit, key string
	cmd := &cobra.Command{
		Use:   "quotas",
		Short: "How all stand with the quotas: used, left, and until when",
		Long: "Print how all stand with the quotas of whom anything is known: as the running\n" +
			"server has it, or, where none answers, as it is in the ledger.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkRemote(remote); err != nil {
				return err
			}
			if asJSON && asCSV {
				return usageError{errors.New("--json and --csv exclude each other")}
			}
			all, err := remote.Quotas(cmd.Context())
			if err != nil {
				return err
			}
			all.Quotas = only(all.Quotas, limit, key)
			switch out := cmd.OutOrStdout(); {
			case asJSON:
				e := json.NewEncoder(out)
				e.SetIndent("", "  ")
				return e.Encode(all)
			case asCSV:
				return printQuotasCSV(out, all.Quotas)
			default:
				return printQuotas(out, all.Quotas)
			}
		},
	}
	remoteFlags(cmd, &remote)
	cmd.Flags().StringVar(&limit, "limit", "", "only of this limit, by `NAME`")
	cmd.Flags().StringVar(&key, "key", "", "only of this `KEY`: a user, an address, a group, ...")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&asCSV, "csv", false, "print comma-separated values")
	return cmd
}

// only returns those that are asked for; empty: all.
func only(all []daemon.QuotaLine, limit, key string) []daemon.QuotaLine {
	some := []daemon.QuotaLine{}
	for _, q := range all {
		if (limit == "" || q.Limit == limit) && (key == "" || q.Key == key) {
			some = append(some, q)
		}
	}
	return some
}

func printQuotas(w io.Writer, all []daemon.QuotaLine) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "used\tleft\tof\tuntil\tlimit\t  key\n")
	for _, q := range all {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t  %s\n", much(q, q.Used), much(q, q.Left), much(q, q.Most), untilWhen(q), q.Limit, keyOf(q))
	}
	return table.Flush()
}

func printQuotasCSV(w io.Writer, all []daemon.QuotaLine) error {
	rows := [][]string{{"limit", "per", "key", "claimed", "counts", "unit", "used", "left", "most", "granted", "until", "sessions"}}
	for _, q := range all {
		row := []string{q.Limit, q.Per, q.Key, strconv.FormatBool(q.Claimed), q.Counts, q.Unit}
		for _, n := range []int64{q.Used, q.Left, q.Most, q.Granted} {
			row = append(row, strconv.FormatInt(n, 10))
		}
		until := ""
		if q.Until != nil {
			until = q.Until.Format(time.RFC3339)
		}
		rows = append(rows, append(row, until, strconv.Itoa(q.Sessions)))
	}
	return csv.NewWriter(w).WriteAll(rows)
}

// much writes an amount of a quota.
func much(q daemon.QuotaLine, n int64) string {
	if q.Unit == "seconds" {
		return (time.Duration(n) * time.Second).String()
	}
	return size(n)
}

func untilWhen(q daemon.QuotaLine) string {
	if q.Until == nil {
		return "rolling"
	}
	return q.Until.Format("2006-01-02 15:04 MST")
}

func keyOf(q daemon.QuotaLine) string {
	text := strconv.Quote(q.Key) // a name may have any bytes
	text = text[1 : len(text)-1]
	switch {
	case text == "":
		return "-"
	case q.Claimed:
		return text + " (claimed)"
	}
	return text
}

func newUsageGrant() *cobra.Command {
	var remote daemon.Remote
	var grant daemon.QuotaGrant
	cmd := &cobra.Command{
		Use:   "grant KEY AMOUNT",
		Short: "Allow somebody more than a quota, until it begins anew",
		Long: "Allow a user (or an address, a group, ... as the limit counts) more than a quota,\n" +
			"such as 2 GiB, or 2h of a quota of time: until the quota begins anew; of a rolling\n" +
			"one, for as long as its period is. A running server has it at once; where none\n" +
			"answers it is written into the ledger. A name that nobody can have is refused.",
		Example: "  sallyport usage grant alice 2 GiB\n  sallyport usage grant 192.0.2.7 30m --limit evening",
		Args:    args(cobra.RangeArgs(2, 3)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := checkRemote(remote); err != nil {
				return err
			}
			grant.Key, grant.Amount = given[0], strings.Join(given[1:], " ")
			q, err := remote.Grant(cmd.Context(), grant)
			if err != nil {
				return err
			}
			if q.Note != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "sallyport: %s\n", q.Note)
			}
			return printQuotas(cmd.OutOrStdout(), []daemon.QuotaLine{q})
		},
	}
	remoteFlags(cmd, &remote)
	cmd.Flags().StringVar(&grant.Limit, "limit", "", "the limit, by `NAME`; needed unless just one quota counts by user")
	cmd.Flags().BoolVar(&grant.Claimed, "claimed", false, "who only claims the name, which counts apart")
	return cmd
}

func newLimit() *cobra.Command {
	var remote daemon.Remote
	var rate daemon.NewRate
	cmd := &cobra.Command{
		Use:   "limit NAME [RATE]",
		Short: "Change a rate while the server runs, until it reads its settings anew",
		Long: "Change the rate of a limit of the running server, such as 20 Mbit/s. It holds at\n" +
			"once, for open sessions too, and until the server reads its settings anew: what is\n" +
			"to stay stands there.",
		Example: "  sallyport limit fair 10 Mbit/s\n  sallyport limit line --up \"1 Mbit/s\"",
		Args:    args(cobra.RangeArgs(1, 3)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := checkRemote(remote); err != nil {
				return err
			}
			rate.Limit, rate.Rate = given[0], strings.Join(given[1:], " ")
			if (rate.Rate == "") == (rate.Up == "" && rate.Down == "") {
				return usageError{errors.New("say the rate, such as 20 Mbit/s, or --up and --down")}
			}
			return remote.SetRate(cmd.Context(), rate)
		},
	}
	remoteFlags(cmd, &remote)
	cmd.Flags().StringVar(&rate.Up, "up", "", "the `RATE` from the clients to their targets, of a limit that has one")
	cmd.Flags().StringVar(&rate.Down, "down", "", "the `RATE` back")
	return cmd
}
