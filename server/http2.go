package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Bounds of an HTTP/2 connection.
const (
	http2Streams      = 100       // requests at once
	http2StreamWindow = 128 << 10 // content of one request that may lie unread, in bytes
	http2ConnWindow   = 2 << 20   // the same for all of them
	http2Frame        = 16 << 10  // content of a frame, both ways
	http2Pending      = 64 << 10  // bytes that wait to be written, past which no content is added
	http2Control      = 256 << 10 // and past which the client takes too little of what it asks for
	http2Pieces       = 32        // frames that a head may come in
)

// http2Conn is a client connection that speaks HTTP/2 (RFC 9113). Each stream
// is a session, and served as an HTTP/1.1 connection that carries one request
// (http2_stream.go).
//
// One goroutine reads frames, and never waits for anything else; one writes
// what has been made ready in memory; and each stream has one.
type http2Conn struct {
	*exchange
	in      *http2.Framer // for reading
	decoder *hpack.Decoder
	serve   func(*exchange)
	served  sync.WaitGroup // the streams
	queue   func() func()  // makes the connection count as a handshake, until what it returns is called

	mu       sync.Mutex
	streams  map[uint32]*http2Stream // until their goroutine ends
	last     uint32                  // the newest stream that was opened
	refusing bool                    // GOAWAY was said: no new streams
	why      error                   // what ended the reading, where it was us
	timer    *time.Timer             // ends the reading
	leave    func()                  // the connection counts as a handshake; nil: it does not
	granted  bool                    // a request of this client was granted
	allowed  allowance
	window   int     // what the client may still send
	owed     int     // was read, and is to be added to window
	kept     *origin // a connection to a target that may take another request

	pending sync.Cond     // there is something to write, or nothing will be
	out     []byte        // frames that wait to be written
	deaf    bool          // nothing more can be written
	ended   bool          // nothing more will be
	frames  *http2.Framer // appends to out
	block   bytes.Buffer  // what encoder writes to
	encoder *hpack.Encoder
	room    int64 // what the client lets us send
	initial int64 // room of a new stream
}

// serveHTTP2 is the streamer of HTTP/2, behind the client's preface.
func serveHTTP2(handshakes, sessions context.Context, x *exchange) error {
	c := newHTTP2Conn(x)
	c.serve = func(x *exchange) { c.serveStream(handshakes, sessions, x) }
	var writer sync.WaitGroup
	writer.Go(c.writeAll)
	defer func() {
		c.finish()
		writer.Wait()
		c.lingers = closeWrite(c.conn) && c.lingers
	}()
	defer c.served.Wait()
	c.awaitFirst(handshakes)
	defer context.AfterFunc(handshakes, c.drain)()
	defer c.server.state.leaving.after(c.drain)()

	err := c.read()
	return c.over(err)
}

func newHTTP2Conn(x *exchange) *http2Conn {
	c := &http2Conn{
		exchange: x,
		streams:  make(map[uint32]*http2Stream),
		window:   http2ConnWindow,
		room:     http2Initial,
		initial:  http2Initial,
	}
	c.pending.L = &c.mu
	c.in = http2.NewFramer(nil, &rewound{Conn: x.conn, head: x.head})
	x.head = nil
	c.in.SetMaxReadFrameSize(http2Frame)
	c.in.SetReuseFrames()
	c.decoder = hpack.NewDecoder(http2Table, nil)
	c.decoder.SetMaxStringLength(maxHead)
	c.frames = http2.NewFramer((*http2Out)(c), nil)
	c.encoder = hpack.NewEncoder(&c.block)
	_ = c.frames.WriteSettings( // into memory: it cannot fail
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: http2Streams},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: http2StreamWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHead},
	)
	_ = c.frames.WriteWindowUpdate(0, http2ConnWindow-http2Initial)
	return c
}

// What holds until somebody says otherwise (RFC 9113, section 6.5.2).
const (
	http2Initial = 1<<16 - 1
	http2Table   = 4 << 10
)

// awaitFirst bounds the time until the first request.
func (c *http2Conn) awaitFirst(handshakes context.Context) {
	source, until := c.session.Client.Addr(), c.session.Started.Add(c.server.timeouts().Handshake)
	c.queue = func() func() {
		ctx, leave := c.server.state.handshakes.hold(handshakes, source)
		ctx, cancel := context.WithCancel(ctx)
		forget := context.AfterFunc(ctx, func() { c.stop(context.Cause(ctx), http2.ErrCodeNo) })
		return func() {
			forget()
			cancel()
			leave()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave = c.queue()
	c.expect(max(time.Until(until), time.Nanosecond), HandshakeSlow)
}

// leaveQueue ends the time in which the connection counts as a handshake.
func (c *http2Conn) leaveQueue() {
	if c.leave != nil {
		c.leave()
		c.leave = nil
	}
}

// over ends what the end of the reading ends, and says what it was, for a
// connection that came to no request.
func (c *http2Conn) over(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expect(0, nil)
	c.leaveQueue()
	reason := c.why
	if code, ok := errors.AsType[http2.ConnectionError](err); ok && reason == nil {
		c.goAway(http2.ErrCode(code))
		reason = errHTTP2
		c.lingers = true // it may be in the middle of sending
	} else if reason == nil {
		reason = handshakeEnd(err)
	}
	c.refusing = true
	for _, s := range c.streams {
		if !s.inEnded || !errors.Is(err, io.EOF) { // who has said all may still listen
			s.fail(syscall.ECONNRESET)
		}
	}
	return reason
}

// writeAll writes what is ready, until nothing more will be.
func (c *http2Conn) writeAll() {
	var free []byte
	for {
		b := c.ready(free)
		if b == nil {
			return
		}
		if _, err := c.conn.Write(b); err != nil {
			c.fail()
			return
		}
		free = b[:0]
	}
}

// ready waits for frames and takes them. free is memory for the next ones.
func (c *http2Conn) ready(free []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) == 0 {
		if c.ended {
			return nil
		}
		free = nil // not to be held while nothing is written
		c.pending.Wait()
	}
	b := c.out
	c.out = free
	c.wake()
	return b
}

// fail is for when nothing can be written any more.
func (c *http2Conn) fail() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deaf, c.out = true, nil
	for _, s := range c.streams {
		s.fail(syscall.ECONNRESET)
	}
	expire(c.conn)
}

// finish lets the writer write what is ready, for a short while, and ends it.
func (c *http2Conn) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept.close()
	c.ended = true
	c.pending.Signal()
	_ = c.conn.SetWriteDeadline(time.Now().Add(lingerTime)) // where it fails, so does the writing
}

// http2Out is where frames are appended to what waits to be written. Its callers
// hold mu.
type http2Out http2Conn

func (o *http2Out) Write(b []byte) (int, error) {
	if !o.deaf {
		o.out = append(o.out, b...)
	}
	return len(b), nil
}

// wake lets each stream look again. Callers hold mu, as of all that follow.
func (c *http2Conn) wake() {
	for _, s := range c.streams {
		s.changed.Broadcast()
	}
}

// credit lets the client send n bytes more.
func (c *http2Conn) credit(n int) {
	if c.owed += n; c.owed < http2ConnWindow/2 {
		return
	}
	_ = c.frames.WriteWindowUpdate(0, uint32(c.owed)) // into memory: it cannot fail
	c.window += c.owed
	c.owed = 0
	c.pending.Signal()
}

// goAway says that no new streams are taken.
func (c *http2Conn) goAway(code http2.ErrCode) {
	if c.refusing && code == http2.ErrCodeNo {
		return
	}
	c.refusing = true
	_ = c.frames.WriteGoAway(c.last, code, nil) // into memory: it cannot fail
	c.pending.Signal()
}

// expect ends the reading for a reason, unless expect is called again within
// the limit. 0 is no limit.
func (c *http2Conn) expect(limit time.Duration, reason error) {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if limit > 0 {
		var own *time.Timer
		own = time.AfterFunc(limit, func() {
			c.mu.Lock()
			current := c.timer == own
			c.mu.Unlock()
			if current {
				c.stop(reason, http2.ErrCodeNo)
			}
		})
		c.timer = own
	}
}

// stop ends the reading for a reason. It takes mu.
func (c *http2Conn) stop(reason error, code http2.ErrCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil {
		c.why = reason
	}
	c.goAway(code)
	_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection: nothing waits then
}

// drain takes no more requests, and ends the reading with the last of those
// that there are. It takes mu.
func (c *http2Conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil {
		c.why = Shutdown
	}
	c.goAway(http2.ErrCodeNo)
	c.idle()
}

// idle bounds the time without a request. A client to which nothing was granted
// so far waits as one whose handshake is not over, as in HTTP/1.1.
func (c *http2Conn) idle() {
	if len(c.streams) > 0 {
		return
	}
	if c.refusing {
		_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // as in stop
		return
	}
	if !c.granted && c.leave == nil {
		c.leave = c.queue()
	}
	c.expect(min(httpIdle, c.server.Timeouts.withDefaults().Idle), Idle)
}
