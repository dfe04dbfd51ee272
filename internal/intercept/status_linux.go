//go:build amd64 || arm64

package intercept

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// status is what the system tells of a thread, by the names of proc_pid_status(5).
type status map[string]string

// statusOf reads it.
func statusOf(thread uint32) (status, error) {
	const most = 1 << 20 // bytes; a process may be of many groups
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", thread))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, most))
	if err != nil {
		return nil, err
	}
	s := status{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		s[name] = strings.TrimSpace(value)
	}
	return s, nil
}

// process is the one that the thread is of.
func (s status) process() (int, error) { return strconv.Atoi(s["Tgid"]) }

// isFirst reports whether the thread is the first of its process.
func (s status) isFirst() bool { return s["Tgid"] == s["Pid"] }

// set is one of those that are written as bits, in hexadecimal.
func (s status) set(name string) uint64 {
	bits, _ := strconv.ParseUint(s[name], 16, 64) // the system writes nothing else
	return bits
}

// isCapable reports whether the thread has a capability, such as unix.CAP_NET_RAW.
func (s status) isCapable(capability int) bool { return s.set("CapEff")>>capability&1 != 0 }

// user is whose the sockets are that the thread makes: the last of four numbers.
func (s status) user() (int, error) {
	numbers := strings.Fields(s["Uid"])
	if len(numbers) == 0 {
		return 0, unix.ESRCH
	}
	return strconv.Atoi(numbers[len(numbers)-1])
}
