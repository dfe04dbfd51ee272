//go:build unix

package relay

import (
	"context"
	"io"
	"math"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// ways are what the benchmarks compare: the relay, and what one would write without it.
var ways = []struct {
	name string
	run  func(client, target net.Conn)
}{
	{"streams", relayBy(streams)},
	{"sockets", relayBy(sockets)},
	{"looped", relayBy(looped)},
	{"paced", pacedRelay},
	{"iocopy", copyBoth},
}

func relayBy(best means) func(client, target net.Conn) {
	return func(client, target net.Conn) {
		_ = run(context.Background(), Side{Conn: client}, Side{Conn: target}, new(Meter), Limits{Idle: time.Hour}, best)
	}
}

// pacedRelay is the relay with a pacer that never bites: what asking it costs.
func pacedRelay(client, target net.Conn) {
	never := &metronome{chunk: math.MaxInt}
	_ = run(context.Background(), Side{Conn: client}, Side{Conn: target}, new(Meter), Limits{Idle: time.Hour, Up: never, Down: never}, looped)
}

func copyBoth(client, target net.Conn) {
	var wg sync.WaitGroup
	for _, c := range [][2]net.Conn{{client, target}, {target, client}} {
		wg.Go(func() {
			_, _ = io.Copy(c[0], c[1])
			_ = c[0].(*net.TCPConn).CloseWrite()
		})
	}
	wg.Wait()
}

// connect starts a way between two connections, and returns their far ends.
func connect(b *testing.B, run func(client, target net.Conn)) (client, target socketConn) {
	ln := listen(b, "tcp")
	client, nearClient := socketPair(b, ln)
	target, nearTarget := socketPair(b, ln)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		run(nearClient, nearTarget)
	}()
	b.Cleanup(func() {
		_ = client.CloseWrite()
		_ = target.CloseWrite()
		<-ended
	})
	return client, target
}

// BenchmarkBulk moves megabytes one way.
func BenchmarkBulk(b *testing.B) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			client, target := connect(b, way.run)
			chunk := make([]byte, 1<<20)
			b.SetBytes(int64(len(chunk)))
			before := cpuTime(b)
			b.ResetTimer()
			go func() {
				for range b.N {
					_, _ = client.Write(chunk)
				}
			}()
			sink := make([]byte, len(chunk))
			for range b.N {
				if _, err := io.ReadFull(target, sink); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkPingPong sends 64 bytes there and back.
func BenchmarkPingPong(b *testing.B) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			client, target := connect(b, way.run)
			go func() { _, _ = io.Copy(struct{ io.Writer }{target}, struct{ io.Reader }{target}) }()
			ball := make([]byte, 64)
			b.SetBytes(int64(len(ball)))
			b.ReportAllocs()
			before := cpuTime(b)
			b.ResetTimer()
			for range b.N {
				if _, err := client.Write(ball); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(client, ball); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime returns the nanoseconds of CPU that the process has used, both ends of the connections among them.
func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
