//go:build linux

package load

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a process and all that descend from it. The costs of nil are 0.
type Process struct{ PID int }

// CPU returns the CPU time that it has used, to the nanosecond: of threads that have ended too, and of descendants that
// have ended in steps of 10 ms.
func (p *Process) CPU() time.Duration {
	var sum time.Duration
	for _, pid := range p.tree() {
		var t unix.Timespec
		clock := int32(^pid<<3 | 2) // what clock_getcpuclockid(3) returns: all threads of pid, by the scheduler
		if unix.ClockGettime(clock, &t) == nil {
			sum += time.Duration(t.Nano())
		}
		sum += reaped(pid)
	}
	return sum
}

// ownCPU returns the CPU time that this process has used itself: clients and target.
func ownCPU() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) // it is there on every system
	return time.Duration(t.Nano())
}

// reaped returns the CPU time of the children of pid that have ended.
func reaped(pid int) time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every system that Go runs on
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 15 {
		return 0
	}
	user, _ := strconv.ParseInt(string(fields[13]), 10, 64)
	system, _ := strconv.ParseInt(string(fields[14]), 10, 64)
	return time.Duration(user+system) * tick
}

// tree returns p's process and its descendants.
func (p *Process) tree() (pids []int) {
	if p == nil {
		return nil
	}
	pids = []int{p.PID}
	for i := 0; i < len(pids); i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, list := range lists {
			children, _ := os.ReadFile(list) // a thread may have ended meanwhile
			for field := range bytes.FieldsSeq(children) {
				if child, err := strconv.Atoi(string(field)); err == nil {
					pids = append(pids, child)
				}
			}
		}
	}
	return pids
}

// Memory is what a process holds at one time.
type Memory struct {
	Own         int64 // bytes of the pages that belong to it alone
	Kernel      int64 // bytes of the slabs of the whole system
	Descriptors int64
}

// Memory reads it.
func (p *Process) Memory() (Memory, error) {
	var m Memory
	for _, pid := range p.tree() {
		private, err := sumKB(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Private_Clean", "Private_Dirty")
		if err != nil {
			return Memory{}, err
		}
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return Memory{}, err
		}
		m.Own += private
		m.Descriptors += int64(len(open))
	}
	kernel, err := sumKB("/proc/meminfo", "SUnreclaim", "KernelStack", "PageTables")
	m.Kernel = kernel
	return m, err
}

// sumKB adds up the lines of file with these names, and returns bytes.
func sumKB(file string, names ...string) (sum int64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		for _, wanted := range names {
			if name != wanted {
				continue
			}
			kB, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", file, err)
			}
			sum += kB << 10
		}
	}
	return sum, lines.Err()
}
