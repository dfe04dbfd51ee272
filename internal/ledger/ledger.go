// Package ledger keeps what was used: sessions and bytes of every user, source,
// listener, rule and target host, by minute, hour and day, in an SQLite file, or in a
// PostgreSQL database that several nodes share.
//
// The server tells it of sessions ([Ledger] is a [server.Recorder]); what has moved
// is read off their counters once a flush, and written in one transaction
// (store.go). A row of a journal holds a whole flush (blob.go); once a minute the
// journal is folded into the tables that are kept (fold.go). [Read] answers what was
// used, from the tables and from the journal, while a server writes or without one.
package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"

	"github.com/sallyport/sallyport/server"
)

// Options are how a ledger is kept.
type Options struct {
	Flush time.Duration // from one write to the next
	Keep  Keep
	Apart Apart
	Node  string // what this node is called among those that share the ledger
	Log   *slog.Logger
	Allow bool // while a shared ledger is away: who has used up what was leased may go on

	Quotas Quotas // what is used of them is kept, too; nil: there are none
}

// Keep is for how long the tables are kept. Hours may not be less than Minutes,
// nor Days less than Hours.
type Keep struct{ Minutes, Hours, Days time.Duration }

const (
	foldEvery  = time.Minute
	pruneEvery = time.Hour
	// lastPatience is what the end of the server gives to the last flush.
	lastPatience = 5 * time.Second
	// lastPause is between two tries of it: a database that is started anew at the same
	// time is there in a moment.
	lastPause = 250 * time.Millisecond
)

// Ledger counts what is used. Make one with [Open]; Run writes. It is a
// [server.Recorder]: what that calls only counts in memory.
type Ledger struct {
	counter

	place   Place
	options Options
	writer  writer // this process, in the journal

	standing standing

	// Of Run alone.
	store   *store // nil: it could not be opened again yet
	opened  bool   // it was open once
	batch   *batch // nil: all that was taken is written
	seq     int64  // of the batch, which is written once, however often it is tried
	leased  leased
	lost    bool // the last write failed, and the log says so
	skewed  bool // this node's clock is not that of the others, and the log says so
	said    bool // that there are too many keys
	folding bool // some of the journal was folded, and more is left
	folded  time.Time
	pruned  time.Time
}

var _ server.Recorder = (*Ledger)(nil)

// Open opens the ledger at the place, and makes the file, or the tables, if there are
// none. An error that wraps [ErrUnusable] tells a person what to do about the
// file or the database, which stays as it is. A database that cannot be reached is no
// error: the log says so, and Run reaches it when it can. Run or Close must be called.
func Open(ctx context.Context, place Place, o Options) (*Ledger, error) {
	l := &Ledger{counter: newCounter(o.Apart), place: place, options: o, writer: writer{rand.Text(), o.Node}, leased: leased{}}
	ctx, cancel := context.WithTimeout(ctx, place.patience())
	defer cancel()
	var err error
	if l.store, err = place.open(ctx); err != nil {
		if !place.IsShared() || errors.Is(err, ErrUnusable) {
			return nil, place.explain(err)
		}
		l.report(err)
	}
	if err := l.restore(ctx); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close closes a ledger that is not to be run.
func (l *Ledger) Close() {
	if l.store != nil {
		l.store.close()
		l.store = nil
	}
}

// Run writes what is counted until ctx ends, then once more, and closes the
// ledger. A database that cannot be written is tried again at each flush; what is
// counted meanwhile is kept in memory.
func (l *Ledger) Run(ctx context.Context) {
	defer l.Close()
	ticker := time.NewTicker(l.options.Flush)
	defer ticker.Stop()
	for ctx.Err() == nil {
		l.visit(ctx, time.Now())
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	l.finish(context.WithoutCancel(ctx))
}

// finish writes what is left.
func (l *Ledger) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lastPatience)
	defer cancel()
	err := l.writeLast(ctx)
	for err != nil && ctx.Err() == nil {
		l.forsake(err)
		rest(ctx, lastPause)
		if again := l.writeLast(ctx); again == nil || ctx.Err() == nil { // else the error before says more
			err = again
		}
	}
	if err != nil {
		l.options.Log.Error("the ledger could not be written to the end: what was counted since its last write is gone", "ledger", l.place.String(), "error", l.place.explain(err))
	}
}

// writeLast writes what is left, and gives back what was leased.
func (l *Ledger) writeLast(ctx context.Context) error {
	err := l.flush(ctx, time.Now())
	if err == nil { // it may have been of a batch that had failed before
		err = l.flush(ctx, time.Now())
	}
	if err != nil || len(l.leased) == 0 {
		return err
	}
	if err := l.ready(ctx); err != nil {
		return err
	}
	return l.store.giveAllBack(ctx, l.writer.id)
}

// visit writes what has been counted, and does what is due beside it. The end of ctx
// cuts it short: what is not known to be written is written by finish.
func (l *Ledger) visit(ctx context.Context, now time.Time) {
	now = now.Round(0) // by the clock on the wall: others have no other, and a machine may sleep
	visit, cancel := context.WithTimeout(ctx, l.place.patience())
	defer cancel()
	err := l.astray()
	if err == nil {
		err = l.flush(visit, now)
	}
	if err == nil && l.lost {
		err = l.ready(visit) // there may have been nothing to write, which tells nothing
	}
	if err == nil {
		err = l.keepUp(visit, now)
	}
	if ctx.Err() == nil {
		l.report(err)
	}
}

// astray tells that what is written is not found any more by those who look for it. What
// is counted is kept until it is, or until the end: then it is written to where that is now.
func (l *Ledger) astray() error {
	if l.store == nil {
		return nil
	}
	return l.store.dialect.astray()
}

// flush writes what has moved since the last flush.
func (l *Ledger) flush(ctx context.Context, now time.Time) error {
	crowded := l.collect()
	if crowded && !l.said {
		l.said = true
		l.options.Log.Warn("the ledger is asked to count too many things at once: what is new is summed up as "+other, "things", mostKeys)
	}
	if l.batch == nil {
		if l.batch = l.next(now); l.batch == nil {
			return nil
		}
		l.seq++
	}
	done, err := l.write(ctx, now)
	l.standing.wrote(err)
	if err != nil {
		return err
	}
	balances := append(done.balances, l.leased.end(l.batch.giveBack)...)
	l.batch = nil
	if l.options.Quotas != nil {
		l.options.Quotas.Settled(balances)
		l.options.Quotas.Shared(done.others)
	}
	return nil
}

// ready opens the store where it is not open.
func (l *Ledger) ready(ctx context.Context) (err error) {
	if l.store == nil {
		open := l.place.open
		if l.opened {
			open = l.place.reopen
		}
		if l.store, err = open(ctx); err != nil {
			return err
		}
	}
	l.opened = true
	return nil
}

// write writes the batch.
func (l *Ledger) write(ctx context.Context, now time.Time) (settlement, error) {
	if err := l.ready(ctx); err != nil {
		return settlement{}, err
	}
	return l.store.write(ctx, l.writer, l.seq, now, *l.batch)
}

// next takes what is to be written; nil: nothing is.
func (l *Ledger) next(now time.Time) *batch {
	b := batch{counts: l.take()}
	if l.options.Quotas != nil {
		b.dues = l.options.Quotas.Due(now)
	}
	if l.place.IsShared() {
		l.leased.use(b.dues, now)
		b.giveBack = l.leased.idle(now)
		if l.options.Quotas != nil {
			b.rates, b.fresh = l.options.Quotas.Rates(now), 3*l.options.Flush
		}
	}
	if b.isEmpty() {
		return nil
	}
	return &b
}

// keepUp folds the journal and drops what is old, when it is time. It folds no more at
// a time than that the next flush comes in time.
func (l *Ledger) keepUp(ctx context.Context, now time.Time) error {
	if l.store == nil || !l.folding && now.Sub(l.folded).Abs() < foldEvery { // Abs: a clock may be set back
		return nil
	}
	var err error
	if l.folding, err = l.store.fold(ctx, now, foldEvery); err != nil || l.folding {
		return err
	}
	if err := l.store.foldDues(ctx); err != nil {
		return err
	}
	l.folded = now
	if now.Sub(l.pruned).Abs() < pruneEvery {
		return nil
	}
	if err := l.prune(ctx, now); err != nil {
		return err
	}
	l.pruned = now
	return nil
}

// mostSkew is how far this node's clock may be from the database's before the log says so.
const mostSkew = 10 * time.Second

// prune drops what is too old by this node's clock and by that of the database: a node
// whose clock is years ahead is not to drop what all have counted.
func (l *Ledger) prune(ctx context.Context, now time.Time) error {
	there, err := l.store.dialect.clock(ctx, l.store.db, now)
	if err != nil {
		return err
	}
	skew := now.Sub(there)
	if skewed := skew.Abs() > mostSkew; skewed != l.skewed {
		l.skewed = skewed
		if skewed {
			l.options.Log.Warn("this machine's clock is not that of the ledger's database: use is counted at other times than on other nodes, and quotas begin anew at others; have both set by NTP",
				"ledger", l.place.String(), "ahead", skew.Round(time.Second))
		} else {
			l.options.Log.Info("this machine's clock is that of the ledger's database again", "ledger", l.place.String())
		}
	}
	if there.Before(now) {
		now = there
	}
	return l.store.prune(ctx, now, l.options.Keep, pruneEvery)
}

// report says once that the ledger is lost, and once that it is back.
func (l *Ledger) report(err error) {
	if err != nil && l.batch != nil && l.options.Quotas != nil {
		l.options.Quotas.Away(l.options.Allow)
	}
	switch {
	case err != nil && !l.lost:
		l.lost = true
		l.standing.setLost(true, time.Now())
		l.options.Log.Error("the ledger cannot be written: serving and counting go on, and what is counted is kept in memory until it can", "ledger", l.place.String(), "error", l.place.explain(err))
	case err == nil && l.lost && l.batch == nil:
		l.lost = false
		l.standing.setLost(false, time.Now())
		l.options.Log.Info("the ledger is written again: nothing that was counted is lost", "ledger", l.place.String())
	}
	if err != nil {
		l.forsake(err)
	}
}

// forsake closes the store after an error, unless another one would be no better.
func (l *Ledger) forsake(err error) {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errAstray) {
		l.Close() // opened anew at the next flush: what is wrong may be with the connection
	}
}
