package daemon

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// rendererMemory is the memory in bytes that the processes which show the browser's pages
// have for themselves: what would be free if they ended (proc_pid_smaps_rollup(5)). Where
// there are several, of which one is kept ready for the next page, it is that of the
// largest.
func (h *house) rendererMemory() (most int64) {
	h.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		h.Fatal(err)
	}
	for _, folder := range all {
		command, _ := os.ReadFile(filepath.Join(folder, "cmdline")) // it may have ended
		if !strings.Contains(string(command), "--type=renderer") || !h.isOfBrowser(filepath.Base(folder)) {
			continue
		}
		text, _ := os.ReadFile(filepath.Join(folder, "smaps_rollup"))
		var own int64
		for line := range strings.Lines(string(text)) {
			if name, size, found := strings.Cut(line, ":"); found && strings.HasPrefix(name, "Private_") {
				kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(size), " kB"), 10, 64)
				if err != nil {
					h.Fatalf("%s: %v", line, err)
				}
				own += kilobytes << 10
			}
		}
		most = max(most, own)
	}
	if most == 0 {
		h.Fatal("no process shows pages")
	}
	return most
}

// isOfBrowser reports whether a process descends from the test's browser.
func (h *house) isOfBrowser(pid string) bool {
	for pid != "" && pid != "0" && pid != "1" {
		command, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
		if err != nil {
			return false
		}
		if strings.Contains(string(command), "--user-data-dir="+h.profile+"\x00") {
			return true
		}
		status, _ := os.ReadFile(filepath.Join("/proc", pid, "status"))
		_, parent, _ := strings.Cut(string(status), "\nPPid:")
		parent, _, _ = strings.Cut(parent, "\n")
		pid = strings.TrimSpace(parent)
	}
	return false
}
