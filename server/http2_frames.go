package server

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// errHTTP2 is what a connection ends with that breaks the protocol.
var errHTTP2 = fmt.Errorf("%w: frames that are not HTTP/2", BadRequest)

// Faults that end a connection.
const (
	errHTTP2Protocol = http2.ConnectionError(http2.ErrCodeProtocol)
	errHTTP2Flow     = http2.ConnectionError(http2.ErrCodeFlowControl)
	errHTTP2Flood    = http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	errHTTP2Blocks   = http2.ConnectionError(http2.ErrCodeCompression)
)

// allowance is how many frames a client may send that cost more than they bring:
// those that want an answer, and those that take back what was asked for.
type allowance struct {
	spent float64
	at    time.Time
}

// Bounds of it.
const (
	wasteBurst = 1000 // frames at once
	wasteRate  = 100  // frames a second
)

// spend reports false when there were too many.
func (a *allowance) spend() bool {
	now := time.Now()
	a.spent = max(0, a.spent-now.Sub(a.at).Seconds()*wasteRate) + 1
	a.at = now
	return a.spent <= wasteBurst
}

// read reads frames until the client sends no more, or may not. The error is
// never nil; an http2.ConnectionError is the client's fault.
func (c *http2Conn) read() error {
	for first := true; ; first = false {
		f, err := c.in.ReadFrame()
		if err == nil && first {
			if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
				err = errHTTP2Protocol
			}
		}
		if err == nil {
			err = c.handle(f)
		}
		if err != nil {
			return connectionError(err)
		}
	}
}

// connectionError makes faults of a frame's form one of the connection: what is
// wrong there is wrong with the client.
func connectionError(err error) error {
	if s, ok := errors.AsType[http2.StreamError](err); ok {
		return http2.ConnectionError(s.Code)
	}
	if errors.Is(err, http2.ErrFrameTooLarge) {
		return http2.ConnectionError(http2.ErrCodeFrameSize)
	}
	return err
}

func (c *http2Conn) handle(f http2.Frame) error {
	if h, ok := f.(*http2.HeadersFrame); ok {
		return c.headers(h)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) > http2Control {
		return errHTTP2Flood
	}
	switch f := f.(type) {
	case *http2.DataFrame:
		return c.data(f)
	case *http2.WindowUpdateFrame:
		return c.windowUpdate(f)
	case *http2.RSTStreamFrame:
		return c.resetStream(f)
	case *http2.PushPromiseFrame:
		return errHTTP2Protocol
	case *http2.SettingsFrame:
		if err := f.ForeachSetting(c.setting); err != nil {
			return err
		}
		if !f.IsAck() {
			_ = c.frames.WriteSettingsAck() // into memory: it cannot fail
			c.pending.Signal()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			_ = c.frames.WritePing(true, f.Data) // likewise
			c.pending.Signal()
		}
	}
	return c.waste()
}

func (c *http2Conn) waste() error {
	if !c.allowed.spend() {
		return errHTTP2Flood
	}
	return nil
}

func (c *http2Conn) setting(s http2.Setting) error {
	if err := s.Valid(); err != nil {
		return err
	}
	switch s.ID {
	case http2.SettingHeaderTableSize:
		c.encoder.SetMaxDynamicTableSize(s.Val)
	case http2.SettingInitialWindowSize:
		more := int64(s.Val) - c.initial
		c.initial = int64(s.Val)
		for _, stream := range c.streams {
			if stream.room += more; stream.room > http2MaxWindow {
				return errHTTP2Flow
			}
		}
		c.wake()
	}
	return nil
}

// http2MaxWindow is the largest that a window may become.
const http2MaxWindow = 1<<31 - 1

func (c *http2Conn) windowUpdate(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if c.room += int64(f.Increment); c.room > http2MaxWindow {
			return errHTTP2Flow
		}
		c.wake()
		return nil
	}
	if f.StreamID > c.last {
		return errHTTP2Protocol
	}
	if s := c.streams[f.StreamID]; s != nil {
		if s.room += int64(f.Increment); s.room > http2MaxWindow {
			s.reset(http2.ErrCodeFlowControl)
		}
		s.changed.Broadcast()
	}
	return nil
}

func (c *http2Conn) resetStream(f *http2.RSTStreamFrame) error {
	if f.StreamID > c.last {
		return errHTTP2Protocol
	}
	if s := c.streams[f.StreamID]; s != nil {
		s.fail(syscall.ECONNRESET)
	}
	return c.waste()
}

func (c *http2Conn) data(f *http2.DataFrame) error {
	size := int(f.Length) // with the padding
	if c.window -= size; c.window < 0 {
		return errHTTP2Flow
	}
	content := f.Data()
	c.credit(size - len(content))
	s := c.streams[f.StreamID]
	switch {
	case f.StreamID > c.last || f.StreamID%2 == 0:
		return errHTTP2Protocol
	case s == nil || s.fault != nil: // what was under way when the stream ended
		c.credit(len(content))
		return c.waste()
	case s.inEnded:
		c.credit(len(content))
		s.reset(http2.ErrCodeStreamClosed)
		return c.waste()
	}
	if s.window -= size; s.window < 0 {
		c.credit(len(content))
		s.reset(http2.ErrCodeFlowControl)
		return nil
	}
	s.owed += size - len(content)
	if !s.arrived(content) || f.StreamEnded() && !s.end(nil) {
		s.reset(http2.ErrCodeProtocol)
	}
	if len(content) == 0 && !f.StreamEnded() {
		return c.waste()
	}
	return nil
}

// headers reads the field section that f begins, and serves the request that it
// is.
func (c *http2Conn) headers(f *http2.HeadersFrame) error {
	id, ends := f.StreamID, f.StreamEnded()
	section, size, err := c.section(f)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if id%2 == 0 {
		return errHTTP2Protocol
	}
	if id > c.last {
		return c.open(id, section, size, ends)
	}
	s := c.streams[id]
	switch {
	case s == nil || s.fault != nil:
		return c.waste()
	case s.inEnded:
		s.reset(http2.ErrCodeStreamClosed)
		return c.waste()
	case s.head.method == connectMethod: // RFC 9113, section 8.5
		s.reset(http2.ErrCodeProtocol)
		return c.waste()
	}
	trailers, err := parseHTTP2Trailers(section)
	if err != nil || !ends || size > maxTrailer || !s.end(trailers) {
		s.reset(http2.ErrCodeProtocol)
	}
	return nil
}

// section reads a whole field section. Of one that is too large it returns
// where it stopped keeping it, and a size past the bound.
func (c *http2Conn) section(f *http2.HeadersFrame) (section []hpack.HeaderField, size int, err error) {
	c.decoder.SetEmitFunc(func(f hpack.HeaderField) {
		if size += int(f.Size()); size <= maxHead && len(section) <= maxFields+4 {
			section = append(section, f)
		}
	})
	if !f.HeadersEnded() { // a limit of its own: the one that holds meanwhile goes on
		slow := time.AfterFunc(c.server.timeouts().Handshake, func() { c.stop(HandshakeSlow, http2.ErrCodeNo) })
		defer slow.Stop()
	}
	block, ended, read := f.HeaderBlockFragment(), f.HeadersEnded(), 0
	for pieces := 1; ; pieces++ {
		if read += len(block); read > 2*maxHead || pieces > http2Pieces {
			return nil, 0, errHTTP2Flood
		}
		if _, err := c.decoder.Write(block); err != nil {
			return nil, 0, errHTTP2Blocks
		}
		if ended {
			break
		}
		next, err := c.in.ReadFrame()
		if err != nil {
			return nil, 0, err
		}
		more, ok := next.(*http2.ContinuationFrame) // anything else is an error of the Framer's
		if !ok {
			return nil, 0, errHTTP2Protocol
		}
		block, ended = more.HeaderBlockFragment(), more.HeadersEnded()
	}
	if c.decoder.Close() != nil {
		return nil, 0, errHTTP2Blocks
	}
	return section, size, nil
}
