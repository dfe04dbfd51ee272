package relay

import "sync"

// bufferSizes are the sizes that a buffer can have, in bytes. The small one serves a conversation; from 64 to 256 KiB
// the CPU time of bulk halves, and beyond that nothing is won.
var bufferSizes = [...]int{16 << 10, 64 << 10, 256 << 10}

// bufferPools hold the memory that no direction needs at present, one pool a size. They are shared by all relays of the
// process, as that is what they are for.
var bufferPools [len(bufferSizes)]sync.Pool

// buffer is what one direction reads into: nothing while it waits, and memory as much as the last read suggests while it
// moves bytes, or a pipe, which the kernel fills without copying. The zero value is ready, and has memory only.
type buffer struct {
	mem   *[]byte // nil: none held
	class int     // index of the size to be used next
	piped bool    // both sides can be spliced: bulk goes through a pipe
	pipe  *pipe   // nil: none held
	most  int     // how much the next read may take, in bytes; 0: whatever there is
}

// cargo is what was read and is still to be written: bytes in memory, or else in a pipe.
type cargo struct {
	mem  []byte
	pipe *pipe
}

// left returns how many bytes are still to be written.
func (c cargo) left() int {
	if c.pipe != nil {
		return c.pipe.held
	}
	return len(c.mem)
}

// take returns the memory to read into. It is valid until the next take or giveBack.
func (b *buffer) take() []byte {
	if b.pipe != nil || b.mem != nil && len(*b.mem) != bufferSizes[b.class] {
		b.giveBack()
	}
	if b.mem == nil {
		b.mem, _ = bufferPools[b.class].Get().(*[]byte)
	}
	if b.mem == nil {
		mem := make([]byte, bufferSizes[b.class])
		b.mem = &mem
	}
	return (*b.mem)[:b.atMost(len(*b.mem))]
}

// atMost returns n, or what the next read may take where that is less.
func (b *buffer) atMost(n int) int {
	if b.most > 0 {
		return min(n, b.most)
	}
	return n
}

// takePipe returns the pipe to read into, or nil where it is memory that should be used: a read of little is cheaper
// than two splices, and pipes may have run out.
func (b *buffer) takePipe() *pipe {
	if !b.piped || b.class == 0 {
		return nil
	}
	if b.pipe == nil {
		if b.pipe = borrowPipe(); b.pipe != nil {
			b.giveBackMemory()
		}
	}
	return b.pipe
}

// filled returns the n bytes that were read into what was taken, and chooses the next size by them: a size more when
// they filled it, else the smallest that they would not have filled. From a pipe it goes back to the smallest only.
func (b *buffer) filled(n int) cargo {
	if b.pipe != nil {
		if n < bufferSizes[0] {
			b.class = 0
		}
		return cargo{pipe: b.pipe}
	}
	p := (*b.mem)[:n]
	if n == len(*b.mem) {
		b.class = min(b.class+1, len(bufferSizes)-1)
		return cargo{mem: p}
	}
	for b.class > 0 && n < bufferSizes[b.class-1] {
		b.class--
	}
	return cargo{mem: p}
}

// giveBack returns what is held to its pool. The size to be used next stays.
func (b *buffer) giveBack() {
	b.giveBackMemory()
	if b.pipe != nil {
		b.pipe.giveBack()
		b.pipe = nil
	}
}

func (b *buffer) giveBackMemory() {
	if b.mem == nil {
		return
	}
	for i, size := range bufferSizes {
		if size == len(*b.mem) {
			bufferPools[i].Put(b.mem)
		}
	}
	b.mem = nil
}
