package handover

import (
	"bufio"
	"errors"
	"os"
	"sync"
	"time"
)

// What the two processes of an upgrade say, a line each.
const (
	sayReady  = "ready"  // up: this process serves
	sayGo     = "go"     // down: the other does not accept any more, and has told its manager
	sayReload = "reload" // up: read the settings anew, for the sessions that you have left
)

// Predecessor is the process in whose place this one was started. A nil one is
// none: nobody is told anything.
type Predecessor struct {
	up, down *os.File
	log      *os.File
	saying   sync.Mutex
	earlier  []*os.File // to those that have handed over before it, and may have sessions yet
}

// take keeps the file if it is one of the process before.
func (p *Predecessor) take(f *os.File) bool {
	var to **os.File
	switch f.Name() {
	case earlierName:
		p.earlier = append(p.earlier, pollable(f))
		return true
	case upName:
		to = &p.up
	case downName:
		to = &p.down
	case logName:
		to = &p.log
	default:
		return false
	}
	if *to != nil {
		return false
	}
	*to = pollable(f)
	return true
}

var errNoLink = errors.New("the process before has not said how it is to be told")

// Ready tells the process before that this one serves, and waits until that has
// stopped accepting, or has ended. From here on standard error is what it was for
// that process. It is called once. Close ends the waiting.
func (p *Predecessor) Ready() error {
	if p == nil {
		return nil
	}
	if p.up == nil || p.down == nil || p.log == nil {
		return errNoLink
	}
	err := becomeStderr(p.log)
	p.log.Close()
	if err != nil {
		return err
	}
	if err := p.say(p.up, sayReady); err != nil {
		return err
	}
	lines := bufio.NewScanner(p.down)
	for lines.Scan() && lines.Text() != sayGo {
	}
	return nil // if it ended instead, it accepts nobody either
}

// Reload has the process before, and those before it, read the settings anew, as
// far as they are still there. It does not wait for that.
func (p *Predecessor) Reload() {
	for _, up := range p.all() {
		_ = p.say(up, sayReload) // it has ended, and its sessions with it
	}
}

// all are the ways to the process before and those before it.
func (p *Predecessor) all() []*os.File {
	if p == nil || p.up == nil {
		return nil
	}
	return append([]*os.File{p.up}, p.earlier...)
}

// say writes a line. A pipe that is full is that of somebody who does not read.
func (p *Predecessor) say(up *os.File, line string) error {
	p.saying.Lock()
	defer p.saying.Unlock()
	_ = up.SetWriteDeadline(time.Now().Add(time.Second)) // where it cannot be set, a line still fits into a pipe
	_, err := up.WriteString(line + "\n")
	return err
}

// Close closes what leads to the process before.
func (p *Predecessor) Close() {
	if p == nil {
		return
	}
	for _, f := range append(p.earlier, p.up, p.down, p.log) {
		if f != nil {
			f.Close()
		}
	}
}
