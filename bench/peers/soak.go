//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/bench/load"
	"github.com/sallyport/sallyport/bench/soak"
)

// What a soak puts on the proxy, and what may be left of it.
const (
	soakBulk      = 64
	soakPingPongs = 1000
	soakChurn     = 32
	soakStall     = 30 * time.Second
	soakSpare     = 8 // descriptors more than after the warm-up
)

// soakOurs soaks this proxy: no relay may stall, no byte and no end be another than it has to be, no race be seen, the heap not
// grow, and afterwards descriptors have to be about what they were after the first minute or so.
func soakOurs(ctx context.Context, o options, out, progress io.Writer) error {
	y, err := newYard(o.user)
	if err != nil {
		return err
	}
	defer y.clear()
	if o.hog {
		if err := y.hog(ctx); err != nil {
			return err
		}
	}
	s, err := y.soaked(ctx, o.race)
	if err != nil {
		return err
	}
	s.out = out
	plan := soak.Soak{For: o.soak / 20, Bulk: soakBulk, PingPongs: soakPingPongs, Churn: soakChurn, Stall: soakStall, Seed: rand.Uint64()}
	fmt.Fprintf(progress, "seed %d\n", plan.Seed)
	if _, err := s.run(ctx, plan); err != nil { // everything that the proxy holds for later is there then
		return err
	}
	before, err := s.settled(ctx)
	if err != nil {
		return err
	}
	plan.For, plan.Seed = o.soak, plan.Seed+1
	from := time.Since(s.began)
	summary, err := s.run(ctx, plan)
	if err != nil {
		return err
	}
	heap, err := heapGrows(collectionsIn(s.said()), from, time.Since(s.began))
	if err != nil {
		return err
	}
	after, err := s.settled(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n%s\nbefore: %s\nafter:  %s\n", summary, heap, holds(before), holds(after))
	if after.Descriptors > before.Descriptors+soakSpare {
		return fmt.Errorf("%d descriptors are left over", after.Descriptors-before.Descriptors)
	}
	return s.leave()
}

// soaked is the proxy of a soak.
type soaked struct {
	runner
	cmd   *exec.Cmd
	began time.Time
	log   string // its standard error
	race  string // where the race detector writes
	out   io.Writer
}

// soaked builds and starts it.
func (y *yard) soaked(ctx context.Context, race bool) (*soaked, error) {
	binary := filepath.Join(y.dir, "sallyport")
	build := []string{"go", "build", "-o", binary, "./cmd/sallyport"}
	if race {
		build = append([]string{"go", "build", "-race"}, build[2:]...)
	}
	if err := tool(ctx, nil, build...); err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	s := &soaked{log: filepath.Join(y.dir, "log"), race: filepath.Join(y.dir, "race")}
	s.address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	state := filepath.Join(y.dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		return nil, err
	}
	if y.credential != nil {
		if err := errors.Join(os.Chown(state, int(y.credential.Uid), int(y.credential.Gid)), os.Chmod(y.dir, 0o777)); err != nil {
			return nil, err
		}
	}
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.cmd = exec.CommandContext(ctx, binary, "serve", "--listen", s.address.String())
	s.cmd.Dir, s.cmd.Stderr = y.dir, log
	s.cmd.Env = append(traced(os.Environ()), "STATE_DIRECTORY="+state, "GORACE=log_path="+s.race)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: y.credential}
	s.began = time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	y.processes = append(y.processes, s.cmd)
	s.process = &load.Process{PID: s.cmd.Process.Pid}
	return s, answers(ctx, s.address)
}

// run soaks it with plan, and says now and then how far it is. After a stall it has the proxy say what it is doing.
func (s *soaked) run(ctx context.Context, plan soak.Soak) (string, error) {
	counts := &soak.Counts{}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() {
		done <- plan.Run(ctx, &load.Proxy{Address: s.address, Protocol: load.Socks5, Process: s.process}, counts)
	}()
	began := time.Now()
	tick := time.NewTicker(max(plan.For/20, 10*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m, err := s.process.Memory()
			if err != nil {
				return "", fmt.Errorf("the proxy is gone: %w\n%s", err, s.words())
			}
			fmt.Fprintf(s.out, "%v: %v; %s\n", time.Since(began).Round(time.Second), counts, holds(m))
		case err := <-done:
			if err != nil {
				s.stop()
				return "", fmt.Errorf("%w\n%s", err, s.words())
			}
			return fmt.Sprintf("%v: %v", time.Since(began).Round(time.Second), counts), s.raced()
		}
	}
}

// stop ends a proxy that has failed, after it has said what its goroutines are at: that alone does not end it.
func (s *soaked) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGQUIT)
	end := time.AfterFunc(5*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer end.Stop()
	_, _ = s.cmd.Process.Wait()
}

// settled returns what the proxy holds when nothing is left to do.
func (s *soaked) settled(ctx context.Context) (load.Memory, error) {
	select {
	case <-time.After(5 * time.Second):
	case <-ctx.Done():
		return load.Memory{}, ctx.Err()
	}
	return s.process.Memory()
}

// leave asks the proxy to end, which it has to do well.
func (s *soaked) leave() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("the end of the proxy: %w\n%s", err, s.words())
	}
	return s.raced()
}

// raced returns what the race detector has seen.
func (s *soaked) raced() error {
	reports, err := filepath.Glob(s.race + ".*")
	if err != nil || len(reports) == 0 {
		return err
	}
	report, err := os.ReadFile(reports[0])
	return errors.Join(fmt.Errorf("a race:\n%.8000s", report), err)
}

// said is all that the proxy has said, or why it cannot be read.
func (s *soaked) said() string {
	words, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(words)
}

// words are the last of it.
func (s *soaked) words() string {
	lines := strings.Split(s.said(), "\n")
	return strings.Join(lines[max(0, len(lines)-2000):], "\n")
}

func holds(m load.Memory) string {
	return fmt.Sprintf("%.1f MB own, %d descriptors", float64(m.Own)/1e6, m.Descriptors)
}
