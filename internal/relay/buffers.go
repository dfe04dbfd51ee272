package relay

import "sync"

// bufferSizes are the sizes that a buffer can have, in bytes. The small one serves a conversation; from 64 to 256 KiB
// the CPU time of bulk halves, and beyond that nothing is won.
var bufferSizes = [...]int{16 << 10, 64 << 10, 256 << 10}

// bufferPools hold the memory that no direction needs at present, one pool a size. They are shared by all relays of the
// process, as that is what they are for.
var bufferPools [len(bufferSizes)]sync.Pool

// buffer is what one direction reads into: nothing while it waits, and memory as much as the last read suggests while it
// moves bytes. The zero value is ready.
type buffer struct {
	mem   *[]byte // nil: none held
	class int     // index of the size to be used next
	most  int     // how much the next read may take, in bytes; 0: whatever there is
}

// take returns the memory to read into. It is valid until the next take or giveBack.
func (b *buffer) take() []byte {
	if b.mem != nil && len(*b.mem) != bufferSizes[b.class] {
		b.giveBack()
	}
	if b.mem == nil {
		b.mem = borrowMemory(b.class)
	}
	if b.most > 0 {
		return (*b.mem)[:min(len(*b.mem), b.most)]
	}
	return *b.mem
}

// filled returns the n bytes that were read into what was taken, and chooses the next size by them: a size more when
// they filled it, else the smallest that they would not have filled.
func (b *buffer) filled(n int) []byte {
	p := (*b.mem)[:n]
	if n == len(*b.mem) {
		b.class = min(b.class+1, len(bufferSizes)-1)
		return p
	}
	for b.class > 0 && n < bufferSizes[b.class-1] {
		b.class--
	}
	return p
}

// giveBack returns what is held to its pool. The size to be used next stays.
func (b *buffer) giveBack() {
	if b.mem != nil {
		giveBackMemory(b.mem)
		b.mem = nil
	}
}

// borrowMemory returns memory of a size.
func borrowMemory(class int) *[]byte {
	if mem, ok := bufferPools[class].Get().(*[]byte); ok {
		return mem
	}
	mem := make([]byte, bufferSizes[class])
	return &mem
}

// giveBackMemory ends the borrowing.
func giveBackMemory(mem *[]byte) {
	for i, size := range bufferSizes {
		if size == len(*mem) {
			bufferPools[i].Put(mem)
		}
	}
}
