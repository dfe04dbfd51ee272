//go:build linux

// Peers measures this proxy beside others, on loopback: the same work for each, one after the other, again and again, so
// that whatever else the machine does hits all alike. What holds on a noisy machine is the CPU time of the proxy and the
// ratios within a round; both are printed as medians, with the smallest and the largest.
//
// It is run from the root of the project, by `make bench-peers`. It is not part of what is shipped.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/bench/load"
)

// options are what the command line says.
type options struct {
	rounds  int
	turn    time.Duration
	idle    int
	crowd   int
	only    string
	rows    string
	also    string
	user    string
	hog     bool
	lists   int
	maps    bool
	virtual bool
	limits  bool
	records bool
	soak    time.Duration
	race    bool
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == hogCommand {
		hog()
		return
	}
	if len(os.Args) > 1 && os.Args[1] == load.CrowdCommand {
		crowd()
		return
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 7, "how often each row is measured")
	flag.DurationVar(&o.turn, "turn", time.Second, "how long a proxy is under load each time")
	flag.IntVar(&o.idle, "idle", 4000, "how many idle relays")
	flag.IntVar(&o.crowd, "crowd", 1500, "how many idle relays are there while the rows \"crowded\" move bulk")
	flag.StringVar(&o.only, "only", "", "the proxies, `A,B`; none: all")
	flag.StringVar(&o.rows, "rows", "", "only the rows whose name this `PATTERN` matches")
	flag.StringVar(&o.also, "also", "", "further builds of this proxy, `NAME=BINARY,...`")
	flag.StringVar(&o.user, "user", "", "the proxies run as this `USER`; those that cannot are left out")
	flag.BoolVar(&o.hog, "hog", false, "that user's pipe budget is used up")
	flag.BoolVar(&o.maps, "maps", false, "other rows: port mappings, by those that have them")
	flag.BoolVar(&o.limits, "limits", false, "this proxy with and without limits that never bite")
	flag.BoolVar(&o.records, "recording", false, "this proxy with and without all that counts, limits, records and shows")
	flag.BoolVar(&o.virtual, "virtual", false, "other rows: services that are published over SSH, beside sshd")
	flag.IntVar(&o.lists, "lists", 0, "other rows: deciding, with so many networks and as many host names that are denied; by proxies that can")
	flag.DurationVar(&o.soak, "soak", 0, "no rows, but relays of every shape on this proxy for so long; whatever goes wrong ends it")
	flag.BoolVar(&o.race, "race", false, "the soak's proxy is built with the race detector")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	work := run
	if o.soak > 0 {
		work = soakOurs
	}
	if err := work(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		stop()
		os.Exit(1)
	}
}

// crowd makes this program the idle relays of a row.
func crowd() {
	if err := load.BeCrowd(context.Background(), os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run starts the proxies, measures, and prints.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	wanted, err := regexp.Compile(o.rows)
	if err != nil {
		return err
	}
	target, err := load.Listen(ctx)
	if err != nil {
		return err
	}
	defer target.Close()
	yard, err := newYard(o.user)
	if err != nil {
		return err
	}
	defer yard.clear()
	if o.hog {
		if err := yard.hog(ctx); err != nil {
			return err
		}
	}
	runners, err := yard.start(ctx, o, target.Address(), progress)
	if err != nil {
		return err
	}
	rows := slices.DeleteFunc(rowsOf(o), func(r row) bool { return !wanted.MatchString(r.name) })
	results := table{}
	for round := range o.rounds {
		for _, r := range rows {
			fmt.Fprintf(progress, "round %d of %d: %s\n", round+1, o.rounds, r.name)
			err := results.take(ctx, r, round, yard, runners, target, progress)
			if ctx.Err() != nil { // interrupted: what there is is worth to be seen
				return errors.Join(results.print(out, rows, runners), ctx.Err())
			}
			if err != nil {
				return err
			}
		}
	}
	return results.print(out, rows, runners)
}

// take measures one row with each proxy once. The one that comes first changes from round to round.
func (t table) take(ctx context.Context, r row, round int, y *yard, runners []*runner, target *load.Target, progress io.Writer) error {
	for i := range runners {
		rn := runners[(i+round)%len(runners)]
		if !r.suits(rn) {
			continue
		}
		got, err := r.measure(ctx, y, rn, target)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			fmt.Fprintf(progress, "%s, %s: %v\n", r.name, rn.name, err)
		}
		t.note(r, rn, round, got, err)
		if err := target.Settle(ctx); err != nil {
			return fmt.Errorf("after %s of %s: %w", r.name, rn.name, err)
		}
	}
	return nil
}
