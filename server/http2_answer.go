package server

import (
	"errors"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Write takes the answer in the form of HTTP/1.1, in pieces of any size. What
// comes behind its end is dropped.
func (s *http2Stream) Write(p []byte) (written int, err error) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	for len(p) > 0 {
		if err := s.cannotWrite(); err != nil {
			return written, err
		}
		if s.outEnded {
			return written + len(p), nil
		}
		n, err := s.take(p)
		written += n
		if err != nil {
			return written, err
		}
		p = p[n:]
	}
	return written, nil
}

func (s *http2Stream) cannotWrite() error {
	switch {
	case s.closed:
		return net.ErrClosed
	case s.writeBy.passed():
		return os.ErrDeadlineExceeded
	}
	return s.fault
}

// take passes on a part of p, and returns how much that was.
func (s *http2Stream) take(p []byte) (int, error) {
	if s.body == nil {
		return s.takeHead(p)
	}
	content, took, err := s.body.next(p)
	if err != nil {
		return took, err
	}
	if s.tunnels() { // where each byte that went out counts by itself
		return s.send(content, false)
	}
	over := s.body.over()
	chunks, chunked := s.body.(*chunkedBody)
	if over && chunked && len(chunks.fields) > 0 {
		return took, s.sendHead(hpackFields(nil, chunks.fields), true) // no content came with the end of the chunks
	}
	if len(content) > 0 || over {
		_, err = s.send(content, over)
	}
	return took, err
}

// tunnels reports whether the answer lasts until CloseWrite.
func (s *http2Stream) tunnels() bool {
	_, open := s.body.(*openBody)
	return open
}

// takeHead takes what p has of a head.
func (s *http2Stream) takeHead(p []byte) (int, error) {
	before := len(s.answer)
	s.answer = append(s.answer, p...)
	end := headEnd(s.answer, before)
	if end == 0 {
		return len(p), nil
	}
	response, err := parseResponse(s.answer[:end])
	s.answer = nil
	if err != nil {
		return 0, err
	}
	if response.code == switching {
		return 0, errors.New("HTTP/2 does not switch protocols")
	}
	over := false
	switch {
	case response.interim():
	case s.head.method == connectMethod && response.code/100 == 2:
		s.body = &openBody{}
	default:
		s.body = response.body(s.head.method)
		over = s.body.over()
	}
	section := []hpack.HeaderField{{Name: ":status", Value: strconv.Itoa(response.code)}}
	return end - before, s.sendHead(hpackFields(section, response.fields), over)
}

// hpackFields appends fields as HTTP/2 has them.
func hpackFields(section []hpack.HeaderField, all fields) []hpack.HeaderField {
	for _, f := range all {
		if name := strings.ToLower(f.name); !notOfHTTP2[name] {
			section = append(section, hpack.HeaderField{Name: name, Value: f.value})
		}
	}
	return section
}

// sendHead sends a field section, once what is to be written before it is little.
func (s *http2Stream) sendHead(section []hpack.HeaderField, ends bool) error {
	c := s.conn
	for len(c.out) >= http2Pending {
		s.changed.Wait()
		if err := s.cannotWrite(); err != nil {
			return err
		}
	}
	c.block.Reset()
	for _, f := range section {
		_ = c.encoder.WriteField(f) // into memory: it cannot fail, as those below
	}
	block := c.block.Bytes()
	first := block[:min(len(block), http2Frame)]
	block = block[len(first):]
	_ = c.frames.WriteHeaders(http2.HeadersFrameParam{
		StreamID: s.id, BlockFragment: first, EndStream: ends, EndHeaders: len(block) == 0,
	})
	for len(block) > 0 {
		next := block[:min(len(block), http2Frame)]
		block = block[len(next):]
		_ = c.frames.WriteContinuation(s.id, len(block) == 0, next)
	}
	s.outEnded = s.outEnded || ends
	c.pending.Signal()
	return nil
}

// send sends content as the client and the connection have room for it, and
// END_STREAM behind it.
func (s *http2Stream) send(content []byte, ends bool) (sent int, err error) {
	c := s.conn
	for {
		if err := s.cannotWrite(); err != nil {
			return sent, err
		}
		n := int(max(0, min(int64(len(content)), s.room, c.room, http2Frame)))
		if len(c.out) >= http2Pending || n == 0 && len(content) > 0 {
			s.changed.Wait()
			continue
		}
		last := n == len(content)
		_ = c.frames.WriteData(s.id, ends && last, content[:n]) // into memory: it cannot fail
		c.pending.Signal()
		s.room -= int64(n)
		c.room -= int64(n)
		content, sent = content[n:], sent+n
		if last {
			s.outEnded = s.outEnded || ends
			return sent, nil
		}
	}
}
