package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/ledger"
	"github.com/sallyport/sallyport/server"
)

// recorders are told of sessions one after the other.
type recorders []server.Recorder

// Opened implements [server.Recorder].
func (r recorders) Opened(s *server.Session) {
	for _, one := range r {
		one.Opened(s)
	}
}

// Closed implements [server.Recorder].
func (r recorders) Closed(s *server.Session, reason error) {
	for _, one := range r {
		one.Closed(s, reason)
	}
}

// openLedger opens the ledger. One that the settings name must be had; without the
// usual one (empty: there is none) the server does as well: nil. But a file that is
// there and is of no use is for a person to look at. What is used of quotas (nil: there
// are none) is kept there, too.
func openLedger(ctx context.Context, l config.Ledger, usual string, quotas ledger.Quotas, log *slog.Logger) (*ledger.Ledger, error) {
	if l.Off {
		return nil, nil
	}
	place := placeOf(l)
	var err error
	switch {
	case place == "" && usual == "":
		err = errors.New("this system has no folder for it")
	case place == "":
		place = ledger.Place(usual)
		err = os.MkdirAll(filepath.Dir(usual), 0o700)
	}
	var opened *ledger.Ledger
	if err == nil {
		opened, err = ledger.Open(ctx, place, ledger.Options{Flush: l.Flush, Keep: ledger.Keep(l.Keep), Apart: ledger.Apart(l.Apart), Node: nodeName(l), Allow: !l.DenyWhenLost, Log: log, Quotas: quotas})
	}
	switch {
	case err == nil:
		return opened, nil
	case placeOf(l) == "" && !errors.Is(err, ledger.ErrUnusable):
		log.Warn("no ledger: what is used is not kept; `ledger: sqlite:FILE` names one, `ledger: off` wants none", "error", err)
		return nil, nil
	}
	return nil, fmt.Errorf("the ledger cannot be opened: %w", err)
}

// nodeName is what this server is called among those that share a ledger.
func nodeName(l config.Ledger) string {
	if l.Node != "" {
		return l.Node
	}
	name, err := os.Hostname()
	if err != nil {
		return "nameless"
	}
	return name
}

// placeOf returns where the settings have the ledger; empty: at the usual place.
func placeOf(l config.Ledger) ledger.Place { return ledger.Place(cmp.Or(l.URL, l.Path)) }

// keepLedger has the ledger written. end writes what is left, and waits for that.
func (d *Daemon) keepLedger(ctx context.Context) (end func()) {
	if d.ledger == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var writing sync.WaitGroup
	writing.Go(func() { d.ledger.Run(ctx) })
	return func() {
		cancel()
		writing.Wait()
	}
}

// UsageQuery asks what was used. Its fields are those of [ledger.Query].
type UsageQuery = ledger.Query

// UsageReport is the answer.
type UsageReport = ledger.Report

// UsageGroups are the words for UsageQuery.By.
func UsageGroups() []string { return ledger.Groups() }

// Usage names a ledger.
type Usage struct {
	File  string // the settings file, which may name it; empty: the built-in settings
	Store string // sqlite: and a path, or a URL of PostgreSQL, in the place of what the settings say; empty: theirs
}

var (
	errNoLedger = errors.New("the settings say `ledger: off`: nothing was counted")
	errNoStore  = errors.New("a store is written sqlite:FILE, or postgres://USER@HOST/DATABASE")
)

// Read answers the query. The server may run meanwhile or not. Bad settings are a
// [*SettingsError].
func (u Usage) Read(ctx context.Context, q UsageQuery) (*UsageReport, error) {
	place, err := u.place()
	if err != nil {
		return nil, err
	}
	r, err := place.Read(ctx, q)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no ledger yet: %w; --config FILE or --store sqlite:FILE says where another is", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the ledger is for root and for the user that the server runs as: %w", err)
	}
	return r, err
}

func (u Usage) place() (ledger.Place, error) {
	if u.Store != "" {
		place := ledger.Place(u.Store)
		if !place.IsShared() && (!strings.HasPrefix(u.Store, "sqlite:") || place.File() == "") {
			return "", errNoStore
		}
		return place, nil
	}
	s, err := Source{File: u.File}.load()
	switch {
	case err != nil:
		return "", err
	case s.Ledger.Off:
		return "", errNoLedger
	}
	return cmp.Or(placeOf(s.Ledger), ledger.Place(ledger.DefaultPath())), nil
}

// ParseTime reads a time as a person gives it to `sallyport usage`: a date, a date
// and a time (both of UTC), or how long before now.
func ParseTime(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02", "2006-01-02 15:04", "2006-01-02T15:04"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	ago, ok := config.ParseDuration(text)
	if !ok || ago < 0 {
		return time.Time{}, fmt.Errorf("%q is no time: write 2026-11-25, \"2026-11-25 13:00\" (of UTC), 90m, 12h or 7d", text)
	}
	return now.Add(-ago), nil
}
