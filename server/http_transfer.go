package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
)

// transfer moves a body from one connection to the other as it arrives: what
// was read is written before there is another wait.
type transfer struct {
	in     *inflow
	body   body
	to     net.Conn
	out    []byte // is to be written: at first the head
	chunks bool   // the body goes on in chunks
	moved  func(n int)
	pace   pace
	from   faults // what a failure to read is called
	into   Reason // and one to write

	began atomic.Bool // some of the body has come
	stuck bool        // it was writing that failed
}

// faults are the names for the ends that a connection can come to where bytes
// are missing.
type faults struct{ ended, reset, garbled Reason }

// run returns nil once all is written.
func (t *transfer) run() error {
	for !t.body.over() {
		content, took, err := t.body.next(t.in.buf)
		if err != nil {
			return errors.Join(fmt.Errorf("%w: %w", t.from.garbled, err), t.flush())
		}
		if took > 0 {
			t.began.Store(true) // before any of it is written: whoever gets it may answer at once
		}
		if err := t.pass(content); err != nil {
			return err
		}
		t.in.take(took)
		if took > 0 || t.body.over() {
			continue
		}
		if err := t.await(); err != nil {
			return err
		}
	}
	if t.chunks {
		t.out = append(t.out, "0\r\n"...)
		if c, ok := t.body.(*chunkedBody); ok {
			t.out = c.fields.trailers().append(t.out)
		}
		t.out = append(t.out, "\r\n"...)
	}
	return t.flush()
}

// pass writes content, or keeps it while it is little.
func (t *transfer) pass(content []byte) error {
	switch {
	case len(content) == 0:
		return nil
	case !t.chunks && len(t.out) == 0:
		return t.write(content)
	case t.chunks:
		t.out = strconv.AppendInt(t.out, int64(len(content)), 16)
		t.out = append(append(append(t.out, "\r\n"...), content...), "\r\n"...)
	default:
		t.out = append(t.out, content...)
	}
	if len(t.out) < bodyRead {
		return nil
	}
	return t.flush()
}

// await writes what is kept, and waits for more to arrive.
func (t *transfer) await() error {
	if err := t.flush(); err != nil {
		return err
	}
	err := t.in.fill(bodyRead)
	if errors.Is(err, io.EOF) {
		if err = t.body.end(); err != nil {
			return fmt.Errorf("%w: %w", t.from.ended, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", t.from.reset, err)
	}
	return nil
}

func (t *transfer) flush() error {
	if len(t.out) == 0 {
		return nil
	}
	err := t.write(t.out)
	t.out = t.out[:0]
	return err
}

func (t *transfer) write(b []byte) error { return t.pace.pieces(b, t.writeNow) }

func (t *transfer) writeNow(b []byte) error {
	n, err := t.to.Write(b)
	t.moved(n)
	if err != nil {
		t.stuck = true
		return fmt.Errorf("%w: %w", t.into, err)
	}
	return nil
}
