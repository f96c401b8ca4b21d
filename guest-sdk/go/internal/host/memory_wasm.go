//go:build wasip1

package host

import "unsafe"

// What the host was given and nobody holds yet. It keeps the collector away.
var given [][]byte

// started says that Go's runtime runs. The adapter of WASI asks for its memory before that.
var started bool

func init() { started = true }

// letGo lets go of what was given; the caller has what it needs.
func letGo() {
	clear(given)
	given = given[:0]
}

// Given is what the host gave as an argument.
func Given(at unsafe.Pointer, length uint32) []byte {
	bytes := unsafe.Slice((*byte)(at), length)
	letGo()
	return bytes
}

// Before the runtime has started, memory comes from where the runtime takes its own.
//
//go:linkname sbrk runtime.sbrk
func sbrk(size uintptr) unsafe.Pointer

// The collector asks for the time, and no import may be called from cabi_realloc. So the adapter
// is told to answer with the time it knows.
//
//go:wasmimport wasi_snapshot_preview1 adapter_monotonic_clock_set_paused
func holdClock(held uint32)

// reallocate is where the host gets memory. It never enlarges what it gave before.
//
//go:wasmexport cabi_realloc
func reallocate(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer {
	if !started {
		at := uintptr(sbrk(uintptr(size + align)))
		return unsafe.Pointer((at + uintptr(align) - 1) &^ (uintptr(align) - 1))
	}
	if size == 0 {
		return unsafe.Pointer(uintptr(align))
	}
	holdClock(1)
	// Larger than the alignment of anything in the contract asks for, which is 8.
	block := make([]byte, (size+7)&^7)
	given = append(given, block)
	holdClock(0)
	at := unsafe.Pointer(unsafe.SliceData(block))
	if oldSize > 0 {
		copy(block, unsafe.Slice((*byte)(old), min(oldSize, size)))
	}
	return at
}
