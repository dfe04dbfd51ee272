package access

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/sallyport/sallyport/internal/regular"
)

// Set is what rules call by one name: host names, networks, and the entries of
// files, which are read again when they change (see [Set.Watch]). Make one with
// [OpenSet]. Safe for concurrent use.
type Set struct {
	name  string
	log   *slog.Logger
	files []*setFile
	now   atomic.Pointer[content]
}

// content is the state of a set, which a decision goes by to its end: what
// stands in the settings, then what is in each file.
type content []*entries

// setFile is one file of a set.
type setFile struct {
	watched
	entries *entries
}

// SetFault is a file of a set that cannot be used.
type SetFault struct {
	File string
	Err  error // it names the file; a [LineFaults], where lines are bad
}

// SetFaults are the files of a set that cannot be used.
type SetFaults []SetFault

// Error returns the text of all of them.
func (f SetFaults) Error() string {
	var texts []string
	for _, one := range f {
		texts = append(texts, one.Err.Error())
	}
	return strings.Join(texts, "\n")
}

// OpenSet returns the set with the given entries, whose classes do not count,
// and those of the files; parseEntries says what they look like. Files that
// cannot be read or have faults are a [SetFaults]. Later on that is a line in log,
// and the set stays as it was.
func OpenSet(name string, own []Destination, files []string, log *slog.Logger) (*Set, error) {
	s := &Set{name: name, log: log}
	written := newEntries()
	for _, d := range own {
		written.add(d)
	}
	all := content{written}
	var faults SetFaults
	for _, path := range files {
		f, err := openSetFile(path)
		if err != nil {
			faults = append(faults, SetFault{path, err})
			continue
		}
		s.files = append(s.files, f)
		all = append(all, f.entries)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	s.now.Store(&all)
	return s, nil
}

func openSetFile(path string) (*setFile, error) {
	f := &setFile{watched: watched{path: path, read: readSet}}
	data, err := f.open()
	if err != nil {
		return nil, err
	}
	f.entries, err = parseSet(path, data)
	return f, err
}

// Name returns what the settings call the set.
func (s *Set) Name() string { return s.name }

// Len returns how many host names and how many networks are in the set, counting
// what stands in two of its files twice.
func (s *Set) Len() (hosts, networks int) {
	for _, e := range *s.now.Load() {
		hosts += e.hosts.count
		networks += e.networks.Size()
	}
	return hosts, networks
}

// Watch looks at the files twice a second until ctx ends, and takes what has
// changed; then it calls changed. A decision never waits for it. It is for one
// goroutine; a set without files needs none.
func (s *Set) Watch(ctx context.Context, changed func()) {
	if len(s.files) == 0 {
		return
	}
	watch(ctx, func() {
		if s.refresh() {
			changed()
		}
	})
}

// refresh takes the files that have changed, and reports whether there were any.
func (s *Set) refresh() (changed bool) {
	for _, f := range s.files {
		changed = s.look(f) || changed
	}
	if changed {
		all := content{(*s.now.Load())[0]}
		for _, f := range s.files {
			all = append(all, f.entries)
		}
		s.now.Store(&all)
	}
	return changed
}

// look takes the file if it has changed, and reports whether it did.
func (s *Set) look(f *setFile) (changed bool) {
	f.checking.Lock()
	defer f.checking.Unlock()
	f.lookNow(func(data []byte, err error) {
		var e *entries
		if err == nil {
			e, err = parseSet(f.path, data)
		}
		if err != nil {
			s.log.Error("the set stays as it was", "set", Escape(s.name), "error", Escape(err.Error()))
			return
		}
		f.entries, changed = e, true
		s.log.Info("a file of the set was read again", "set", Escape(s.name), "file", Escape(f.path), "hosts", e.hosts.count, "prefixes", e.networks.Size())
	})
	return changed
}

func readSet(path string) ([]byte, fs.FileInfo, error) {
	data, info, err := regular.Read(path, maxSetFile, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("the set's file %s: %w", path, err)
	}
	return data, info, nil
}

func parseSet(path string, data []byte) (*entries, error) {
	e, err := parseEntries(data)
	if err != nil {
		return nil, fmt.Errorf("the set's file %s:\n%w", path, err)
	}
	return e, nil
}

func (c content) hasHost(name string) bool {
	for _, e := range c {
		if e.hosts.has(name) {
			return true
		}
	}
	return false
}

func (c content) hasAddr(a netip.Addr) bool {
	for _, e := range c {
		if e.hasAddr(a) {
			return true
		}
	}
	return false
}

// hasNetworks reports whether there is a network in it at all: if not, no name
// need be resolved for it.
func (c content) hasNetworks() bool {
	for _, e := range c {
		if e.networks.Size() > 0 {
			return true
		}
	}
	return false
}
