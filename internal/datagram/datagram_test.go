package datagram

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
)

// FuzzFrame: a frame is read as it was written, whole or cut at every byte, and what
// follows it is left; a reader makes of the stream the same.
func FuzzFrame(f *testing.F) {
	for _, seed := range []string{
		"", "\x00\x00\x00\x00\x01\x00\x00", "\x00\x00\x00\x00\x01\x00\x03abc\x01\x00\x00\x00\x01\x00\x00", "\x01\xff\xff\xff\xff\x00\x00",
		"\x01\x00\x00\x00\x01\x00\x01x", "\x02", "\x00\x00\x00\x00\x01\xff\xff", "\x00\x00\x00\x00\x01\xff\xf7", "\x00\x00\x00\x00\x01\x00\x02a",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		isParsed(t, b)
		whole, wholeErr := readAll(bytes.NewReader(b))
		bytewise, bytewiseErr := readAll(iotest.OneByteReader(bytes.NewReader(b)))
		if !slices.Equal(whole, bytewise) || (wholeErr == nil) != (bytewiseErr == nil) {
			t.Fatalf("%d frames, %v; byte by byte %d, %v", len(whole), wholeErr, len(bytewise), bytewiseErr)
		}
		if all := strings.Join(whole, ""); !strings.HasPrefix(string(b), all) || wholeErr == nil && all != string(b) {
			t.Fatalf("% x was read from % x, and then %v", all, b, wholeErr)
		}
	})
}

// isParsed fails the test unless what is at the start of b is read as it would be written,
// and not before it is whole.
func isParsed(t *testing.T, b []byte) {
	t.Helper()
	frame, n, err := Parse(b)
	if err == nil && n <= len(b) {
		if again := frame.Append(nil); !bytes.Equal(again, b[:n]) {
			t.Fatalf("% x became % x", b[:n], again)
		}
		for cut := range n {
			if _, want, err := Parse(b[:cut]); err != nil || want <= cut || want > n {
				t.Fatalf("cut at %d of %d: %d, %v", cut, n, want, err)
			}
		}
	}
}

// readAll returns the frames of a stream, as they are on it.
func readAll(from io.Reader) (all []string, err error) {
	r := NewReader(from)
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, string(f.Append(nil)))
	}
}

func TestReaderEnds(t *testing.T) {
	whole := Frame{Visitor: 7, Payload: bytes.Repeat([]byte("x"), MaxPayload)}.Append(nil)
	r := NewReader(bytes.NewReader(whole))
	if f, err := r.Next(); err != nil || f.Visitor != 7 || len(f.Payload) != MaxPayload {
		t.Errorf("%d bytes of %d, %v", len(f.Payload), f.Visitor, err)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v, want the end", err)
	}
	for _, cut := range []int{1, header, len(whole) - 1} {
		if _, err := NewReader(bytes.NewReader(whole[:cut])).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	broken := errors.New("broken")
	if _, err := NewReader(io.MultiReader(bytes.NewReader(whole[:9]), iotest.ErrReader(broken))).Next(); !errors.Is(err, broken) {
		t.Errorf("%v, want what the stream failed with", err)
	}
}

// slowStream takes what is written when it is asked for it.
type slowStream struct{ taken chan []byte }

func (s slowStream) Write(b []byte) (int, error) {
	s.taken <- bytes.Clone(b)
	return len(b), nil
}

// TestQueueIsBounded: while the stream takes nothing, what has no room is lost, of one
// visitor before that of others; then all goes on.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := NewQueue(), slowStream{make(chan []byte)}
		ended := make(chan error, 1)
		go func() { ended <- q.Run(s) }()
		payload := make([]byte, 1000-header)
		q.Put(1, payload)
		synctest.Wait() // that one is being written
		fits := func(visitor uint32) (n int) {
			for q.Put(visitor, payload) {
				n++
			}
			return n
		}
		if n := fits(1); n != share/1000 {
			t.Errorf("%d datagrams of one visitor wait, want %d", n, share/1000)
		}
		if n := fits(2) + fits(3); n != room/1000-share/1000 {
			t.Errorf("%d datagrams of others wait, want %d", n, room/1000-share/1000)
		}
		if n := len(<-s.taken) + len(<-s.taken); n != 1000+room/1000*1000 {
			t.Errorf("%d bytes were sent", n)
		}
		if q.Put(1, make([]byte, MaxPayload+1)) {
			t.Error("there is room for what is no datagram")
		}
		q.Put(1, nil)
		q.End(2)
		var all []byte
		for len(all) < 2*header {
			all = append(all, <-s.taken...)
		}
		if want := (Frame{Visitor: 2, End: true}).Append(Frame{Visitor: 1}.Append(nil)); !bytes.Equal(all, want) {
			t.Errorf("% x was sent, want % x", all, want)
		}
		q.Close()
		q.Close()
		if err := <-ended; err != nil || q.Put(1, nil) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestQueueOfABrokenStream(t *testing.T) {
	broken := errors.New("broken")
	q := NewQueue()
	q.Put(1, nil)
	if err := q.Run(failingStream{broken}); !errors.Is(err, broken) || q.Put(1, nil) {
		t.Errorf("%v; and it takes more", err)
	}
}

type failingStream struct{ err error }

func (s failingStream) Write([]byte) (int, error) { return 0, s.err }
