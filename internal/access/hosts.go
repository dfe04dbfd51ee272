package access

import (
	"hash/maphash"
	"strings"
)

// hosts is a set of host names and of suffixes. It is made for a million of
// them: the names lie one behind the other in one piece of memory, and a hash
// table of offsets finds them, so that there is no pointer for the garbage
// collector to follow. A look-up costs one probe for each label of the host, as
// far as there are names with so many. The zero value is empty. It must not be
// changed once it is in use; safe for concurrent use after that.
type hosts struct {
	slots  []uint64 // hash in the upper half, offset in names in the lower one; 0: free
	names  []byte   // of each name: what it covers, its length, its bytes; the first byte is not used
	count  int
	labels int // of the name that has most
}

// What an entry covers.
const (
	itself = 1 << iota // the host of that name
	below              // every host whose name ends in a dot and that name
)

// hostSeed keeps whoever chooses names from choosing their hashes.
var hostSeed = maphash.MakeSeed()

// add takes in a name of 1 to 255 bytes, in lower case and without dot at its end.
func (h *hosts) add(name string, covers byte) {
	if h.slots == nil {
		h.slots, h.names = make([]uint64, 8), make([]byte, 1)
	}
	hash := maphash.String(hostSeed, name)
	slot, found := h.find(name, hash)
	if found {
		h.names[uint32(h.slots[slot])] |= covers
		return
	}
	h.slots[slot] = hash&^0xffffffff | uint64(len(h.names))
	h.names = append(append(h.names, covers, byte(len(name))), name...)
	h.labels = max(h.labels, strings.Count(name, ".")+1)
	if h.count++; h.count > len(h.slots)/4*3 {
		h.grow()
	}
}

// find returns the slot of a name, or the free one where it belongs.
func (h *hosts) find(name string, hash uint64) (slot int, found bool) {
	mask := len(h.slots) - 1
	for slot = int(hash>>32) & mask; h.slots[slot] != 0; slot = (slot + 1) & mask {
		s := h.slots[slot]
		if s>>32 != hash>>32 {
			continue
		}
		entry := h.names[uint32(s):]
		if string(entry[2:2+int(entry[1])]) == name {
			return slot, true
		}
	}
	return slot, false
}

// grow doubles the table. The upper half of a hash is all that is needed to
// place it anew.
func (h *hosts) grow() {
	old := h.slots
	h.slots = make([]uint64, 2*len(old))
	mask := len(h.slots) - 1
	for _, s := range old {
		if s == 0 {
			continue
		}
		slot := int(s>>32) & mask
		for h.slots[slot] != 0 {
			slot = (slot + 1) & mask
		}
		h.slots[slot] = s
	}
}

// has reports whether the set covers a host.
func (h *hosts) has(host string) bool {
	if h.count == 0 {
		return false
	}
	end := len(host)
	for range h.labels {
		end = strings.LastIndexByte(host[:end], '.')
		name := host[end+1:]
		slot, found := h.find(name, maphash.String(hostSeed, name))
		if found {
			covers := h.names[uint32(h.slots[slot])]
			if end < 0 && covers&itself != 0 || end >= 0 && covers&below != 0 {
				return true
			}
		}
		if end < 0 {
			return false
		}
	}
	return false
}
