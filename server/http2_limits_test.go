//go:build unix

package server

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// framed is a client connection of HTTP/2, frame by frame.
type framed struct {
	testing.TB
	*secured
	*http2.Framer
}

// frames connects, and sends what begins a connection.
func (r *rig) frames(a *authority) *framed {
	r.Helper()
	var plain proxytest.Stream
	if r.network != nil {
		plain = r.client()
	} else {
		plain = proxytest.Dial(r, r.address)
	}
	f := &framed{TB: r, secured: secure(plain, a.client())}
	f.Framer = http2.NewFramer(f.secured, f.secured)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	proxytest.Say(r, f.secured, []byte(http2.ClientPreface))
	f.must(f.WriteSettings())
	return f
}

func (f *framed) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// asks sends a request's head.
func (f *framed) asks(id uint32, ends bool, fields ...string) {
	f.Helper()
	f.must(f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: proxytest.Section(fields...), EndStream: ends, EndHeaders: true,
	}))
}

// connects asks for a tunnel.
func (f *framed) connects(id uint32, target string) {
	f.Helper()
	f.asks(id, false, ":method", "CONNECT", ":authority", target)
}

// nextFrame returns the next frame that is of the type, and the code of an end
// that comes before it.
func nextFrame[T http2.Frame](f *framed) T {
	f.Helper()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			f.Fatalf("no such frame: %v", err)
		}
		if wanted, ok := frame.(T); ok {
			return wanted
		}
	}
}

// answered reads the next answer, which must have the status.
func (f *framed) answered(status string) *http2.MetaHeadersFrame {
	f.Helper()
	h := nextFrame[*http2.MetaHeadersFrame](f)
	if h.PseudoValue("status") != status {
		f.Fatalf("%v, want %s", h, status)
	}
	return h
}

// goesAway reads a GOAWAY with the code, and to the end.
func (f *framed) goesAway(code http2.ErrCode) {
	f.Helper()
	if g := nextFrame[*http2.GoAwayFrame](f); g.ErrCode != code {
		f.Errorf("GOAWAY with %v, want %v", g.ErrCode, code)
	}
	for {
		if _, err := f.ReadFrame(); err != nil {
			if !errors.Is(err, io.EOF) {
				f.Errorf("behind GOAWAY: %v", err)
			}
			return
		}
	}
}

// TestHTTP2Floods: who sends nothing but work is sent away.
func TestHTTP2Floods(t *testing.T) {
	ca := newAuthority(t)
	r := onLoopback(t, &Server{Policy: refusing(Denied)}, Listener{TLS: ca.server(t)})
	head := proxytest.Section(":method", "CONNECT", ":authority", "127.0.0.1:9")
	for name, send := range map[string]func(f *framed, i int) error{
		"PING":     func(f *framed, _ int) error { return f.WritePing(false, [8]byte{}) },
		"SETTINGS": func(f *framed, _ int) error { return f.WriteSettings() },
		"PRIORITY": func(f *framed, _ int) error { return f.WritePriority(1, http2.PriorityParam{}) },
		"unknown":  func(f *framed, _ int) error { return f.WriteRawFrame(0xfa, 0, 0, nil) },
		"DATA": func(f *framed, i int) error {
			if i == 0 {
				f.connects(1, "127.0.0.1:9")
			}
			return f.WriteData(1, false, nil)
		},
		"rapid reset": func(f *framed, i int) error {
			id := uint32(2*i + 1)
			return errors.Join(f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head, EndHeaders: true}),
				f.WriteRSTStream(id, http2.ErrCodeCancel))
		},
		"bad heads": func(f *framed, i int) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), EndHeaders: true, EndStream: true})
		},
		"CONTINUATION": func(f *framed, i int) error {
			if i == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head})
			}
			return f.WriteContinuation(1, false, nil)
		},
		"a head without end": func(f *framed, i int) error {
			block := make([]byte, 16<<10) // a literal whose name is as long as the rest
			if i == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: proxytest.Section(strings.Repeat("x", 15<<10), "y")})
			}
			return f.WriteContinuation(1, false, append(block[:0], proxytest.Section(strings.Repeat("x", 15<<10), "y")...))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := r.frames(ca)
			f.TB = t
			done := make(chan struct{})
			go func() {
				defer close(done)
				for i := range 4 * wasteBurst {
					if send(f, i) != nil {
						return // it was sent away
					}
				}
			}()
			if g := nextFrame[*http2.GoAwayFrame](f); g.ErrCode != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("GOAWAY with %v", g.ErrCode)
			}
			f.plain.Close()
			<-done
		})
	}
}

// TestHTTP2Faults: frames that break the protocol end the connection.
func TestHTTP2Faults(t *testing.T) {
	ca := newAuthority(t)
	r := onLoopback(t, &Server{Policy: refusing(Denied)}, Listener{TLS: ca.server(t)})
	for name, test := range map[string]struct {
		send func(f *framed) error
		code http2.ErrCode
	}{
		"an even stream":        {func(f *framed) error { return f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 2, nil) }, http2.ErrCodeProtocol},
		"DATA of no stream":     {func(f *framed) error { return f.WriteData(1, false, []byte("x")) }, http2.ErrCodeProtocol},
		"a reset of no stream":  {func(f *framed) error { return f.WriteRSTStream(1, 0) }, http2.ErrCodeProtocol},
		"a window of no stream": {func(f *framed) error { return f.WriteWindowUpdate(1, 1) }, http2.ErrCodeProtocol},
		"a window too large":    {func(f *framed) error { return f.WriteWindowUpdate(0, 1<<31-1) }, http2.ErrCodeFlowControl},
		"a window of nothing":   {func(f *framed) error { return f.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4)) }, http2.ErrCodeProtocol},
		"a push":                {func(f *framed) error { return f.WriteRawFrame(http2.FramePushPromise, 4, 1, make([]byte, 8)) }, http2.ErrCodeProtocol},
		"a setting past its bounds": {func(f *framed) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
		}, http2.ErrCodeFlowControl},
		"a frame too large":    {func(f *framed) error { return f.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<15)) }, http2.ErrCodeFrameSize},
		"a head of no meaning": {func(f *framed) error { return f.WriteRawFrame(http2.FrameHeaders, 4, 1, []byte{0xff, 0xff, 0xff}) }, http2.ErrCodeCompression},
		"CONTINUATION alone":   {func(f *framed) error { return f.WriteContinuation(1, true, nil) }, http2.ErrCodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			f := r.frames(ca)
			f.TB, f.AllowIllegalWrites = t, true
			f.must(test.send(f))
			f.goesAway(test.code)
			f.plain.Close()
			r.next(BadRequest)
		})
	}
}

// TestHTTP2Streams: as many requests at once as are allowed, each a place at the
// gate (the connection has one too, and so has the next); one more may be tried
// again.
func TestHTTP2Streams(t *testing.T) {
	for name, test := range map[string]struct {
		limits Limits
		most   int
	}{"of a connection": {Limits{}, http2Streams}, "of all": {Limits{Connections: 5}, 3}} {
		t.Run(name, func(t *testing.T) {
			ca := newAuthority(t)
			r := onLoopback(t, &Server{Policy: deciding(anything), Limits: test.limits}, Listener{TLS: ca.server(t)})
			f, echo := r.frames(ca), proxytest.Echo(t, "127.0.0.1").String()
			for i := range test.most {
				f.connects(uint32(2*i+1), echo)
				f.answered("200")
			}
			one := uint32(2*test.most + 1)
			f.connects(one, echo)
			if s := nextFrame[*http2.RSTStreamFrame](f); s.StreamID != one || s.ErrCode != http2.ErrCodeRefusedStream {
				t.Errorf("%v, want it to be refused", s)
			}
			r.next(Busy)
			f.must(f.WriteData(1, true, nil))
			r.next(Closed)
			proxytest.Eventually(t, "its place is free", func() bool {
				one += 2
				f.connects(one, echo)
				for {
					switch frame, err := f.ReadFrame(); frame.(type) {
					case *http2.MetaHeadersFrame:
						return true
					case *http2.RSTStreamFrame:
						return false
					default:
						f.must(err)
					}
				}
			})
			f.plain.Close()
		})
	}
}

// TestHTTP2RapidReset: a request counts until the work for it has ended, and not
// until the client takes it back.
func TestHTTP2RapidReset(t *testing.T) {
	ca := newAuthority(t)
	entered, release := make(chan struct{}, 3*http2Streams), make(chan struct{})
	slow := func(context.Context, *Request) (Grant, error) {
		entered <- struct{}{}
		<-release
		return Grant{}, Denied
	}
	r := onLoopback(t, &Server{Policy: deciding(slow)}, Listener{TLS: ca.server(t)})
	f := r.frames(ca)
	for i := range 2 * http2Streams {
		f.connects(uint32(2*i+1), "127.0.0.1:9")
		if i < http2Streams {
			<-entered
		} else {
			r.next(Busy)
		}
		f.must(f.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel))
	}
	close(release)
	for range http2Streams {
		<-r.ends // by the reset or by the policy, whichever was noticed first
	}
	if n := len(entered); n > 0 {
		t.Errorf("%d requests more than are allowed were served at once", n)
	}
	f.plain.Close()
}

func TestHTTP2HeadTooLarge(t *testing.T) {
	ca := newAuthority(t)
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{TLS: ca.server(t)})
	f := r.frames(ca)
	section := proxytest.Section(":method", "GET", ":scheme", "http", ":authority", "h", ":path", "/", "x", strings.Repeat("y", maxHead))
	f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: section[:1<<14], EndStream: true}))
	for rest := section[1<<14:]; len(rest) > 0; {
		n := min(len(rest), 1<<14)
		f.must(f.WriteContinuation(1, n == len(rest), rest[:n]))
		rest = rest[n:]
	}
	f.answered("431")
	r.next(BadRequest)
	f.asks(3, true, ":method", "OPTIONS", ":scheme", "http", ":authority", "h", ":path", "*", "max-forwards", "0")
	f.answered("200")
	r.next(Closed)
	f.plain.Close()
}

// TestHTTP2Lengths: a body that is not of the length that was told is a fault of
// its stream.
func TestHTTP2Lengths(t *testing.T) {
	ca := newAuthority(t)
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{TLS: ca.server(t)})
	target := proxytest.NewTarget(t, "127.0.0.1")
	f := r.frames(ca)
	for i, body := range []string{"12", "1234"} {
		id := uint32(2*i + 1)
		f.asks(id, false, ":method", "POST", ":scheme", "http", ":authority", target.Addr().String(), ":path", "/", "content-length", "3")
		far := nextFar(t, target)
		f.must(f.WriteData(id, true, []byte(body)))
		if s := nextFrame[*http2.RSTStreamFrame](f); s.StreamID != id || s.ErrCode != http2.ErrCodeProtocol {
			t.Errorf("%q: %v", body, s)
		}
		r.next(ClientReset)
		if got, err := proxytest.End(far); err == nil {
			t.Errorf("%q: the target got %q and no reset", body, got)
		}
	}
	f.plain.Close()
}

// TestHTTP2Waits: each wait for the client has an end.
func TestHTTP2Waits(t *testing.T) {
	for name, test := range map[string]struct {
		send   func(f *framed)
		limit  time.Duration
		reason Reason
	}{
		"a first request": {func(*framed) {}, 10 * time.Second, HandshakeSlow},
		"pings alone":     {func(f *framed) { f.must(f.WritePing(false, [8]byte{})) }, 10 * time.Second, HandshakeSlow},
		"half a head": {func(f *framed) {
			f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: proxytest.Section("x", "y")}))
		}, 10 * time.Second, HandshakeSlow},
		"another request, with the rest of an old one": {func(f *framed) {
			f.asks(1, true, ":method", "OPTIONS", ":scheme", "http", ":authority", "h", ":path", "*", "max-forwards", "0")
			f.answered("200")
			f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: proxytest.Section("x", "y")}))
			f.must(f.WriteContinuation(1, true, nil))
		}, 2 * time.Minute, Closed},
		"another request": {func(f *framed) {
			f.asks(1, true, ":method", "OPTIONS", ":scheme", "http", ":authority", "h", ":path", "*", "max-forwards", "0")
			f.answered("200")
		}, 2 * time.Minute, Closed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := newAuthority(t)
				r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{TLS: ca.server(t)})
				f := r.frames(ca)
				test.send(f)
				begun := time.Now()
				f.goesAway(http2.ErrCodeNo)
				if took := time.Since(begun); took != test.limit {
					t.Errorf("it took %v, want %v", took, test.limit)
				}
				f.plain.Close()
				r.next(test.reason)
			})
		})
	}
}

// TestHTTP2NothingGranted: a client that was granted nothing keeps nobody out
// while it says nothing; one that was granted something may rest.
func TestHTTP2NothingGranted(t *testing.T) {
	for name, granted := range map[string]bool{"nothing": false, "something": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := newAuthority(t)
				policy := refusing(Denied)
				if granted {
					policy = deciding(anything)
				}
				r := inMemory(t, &Server{Policy: policy, Limits: Limits{Handshakes: 1}}, Listener{TLS: ca.server(t)})
				target := r.network.MustListen(targetAt.String())
				f := r.frames(ca)
				f.asks(1, true, ":method", "GET", ":scheme", "http", ":authority", targetAt.String(), ":path", "/")
				if granted {
					proxytest.Say(t, r.next4(target), []byte("HTTP/1.1 204 No Content\r\n\r\n"))
					f.answered("204")
				} else {
					f.answered("403")
				}
				<-r.ends
				synctest.Wait()
				begun := time.Now()
				other := r.client() // takes the only place
				f.goesAway(http2.ErrCodeNo)
				if rested := time.Since(begun) > 0; rested != granted {
					t.Errorf("it was sent away after %v", time.Since(begun))
				}
				f.plain.Close()
				other.Close()
				<-r.ends
			})
		})
	}
}

// TestHTTP2Review: a stream is a session like others when its right ends, with
// its listener as it is called now.
func TestHTTP2Review(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		terms := ca.server(t)
		r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{Name: "old", TLS: terms})
		target := r.network.MustListen(targetAt.String())
		f := r.frames(ca)
		f.connects(1, targetAt.String())
		r.next4(target)
		f.answered("200")
		r.door.Change(Listener{Name: "new", TLS: terms})
		r.server.Review(func(h Held) (time.Time, error) {
			if h.Request.Listener != "new" {
				t.Errorf("the listener is called %q", h.Request.Listener)
			}
			return time.Time{}, Revoked
		})
		if s := nextFrame[*http2.RSTStreamFrame](f); s.StreamID != 1 {
			t.Errorf("%v was reset", s)
		}
		r.next(Revoked)
		f.plain.Close()
	})
}

// TestHTTP2Shutdown: what is open may end, and nothing new begins.
func TestHTTP2Shutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{TLS: ca.server(t)})
		target := r.network.MustListen(targetAt.String())
		f := r.frames(ca)
		f.connects(1, targetAt.String())
		far := r.next4(target)
		f.answered("200")
		done := make(chan error, 1)
		go func() { done <- r.server.Shutdown(context.Background()) }()
		if g := nextFrame[*http2.GoAwayFrame](f); g.ErrCode != http2.ErrCodeNo || g.LastStreamID != 1 {
			t.Errorf("%v", g)
		}
		f.connects(3, targetAt.String()) // was under way
		f.must(f.WriteData(1, true, []byte("bye")))
		proxytest.Hear(t, far, "bye")
		far.Close()
		if d := nextFrame[*http2.DataFrame](f); !d.StreamEnded() {
			t.Errorf("%v", d)
		}
		if _, err := f.ReadFrame(); !errors.Is(err, io.EOF) {
			t.Errorf("%v, want the end", err)
		}
		f.plain.Close()
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		r.next(Closed)
	})
}

// TestHTTP2BackPressure: what a target does not read, the client cannot send;
// what the client does not take, the target cannot.
func TestHTTP2BackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{TLS: ca.server(t)})
		target := r.network.MustListen(targetAt.String())
		c := proxytest.OverHTTP2(secure(r.client(), ca.client()))
		p := proxytest.HTTP2()
		proxytest.Say(t, c, p.Opening(targetAt))
		far := r.next4(target)
		if granted, err := p.Answer(c); err != nil || !granted {
			t.Fatalf("%v %v", granted, err)
		}
		var up, down atomic.Int64
		pour := func(to io.Writer, n *atomic.Int64) {
			for b := make([]byte, 4<<10); ; {
				m, err := to.Write(b)
				if n.Add(int64(m)); err != nil {
					return
				}
			}
		}
		go pour(c, &up)
		go pour(far, &down)
		time.Sleep(time.Minute) // of the bubble
		// What lies in memory: the windows, a relay's buffer, and the room of the network.
		if n := up.Load(); n > 512<<10 {
			t.Errorf("%d bytes were taken from the client, for nobody", n)
		}
		if n := down.Load(); n > 512<<10 {
			t.Errorf("%d bytes were taken from the target, for nobody", n)
		}
		proxytest.Reset(c)
		r.next(ClientReset)
	})
}
