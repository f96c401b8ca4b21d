//go:build wasip1

package host

import (
	"time"
	"unsafe"
)

// What the host was given and nobody holds yet. It keeps the collector away.
var given [][]byte

// started says that Go's runtime runs. The adapter of WASI asks for its memory before that.
var started bool

func init() {
	started = true
	holdClock(1)
}

// BeginCall lets the clock go on to the time of the call that begins.
func BeginCall() {
	holdClock(0)
	_ = time.Now()
	holdClock(1)
	Collect()
}

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

// No import may be called while the host waits for cabi_realloc, and Go's scheduler and collector
// ask for the time whenever they run. So the adapter is told to answer with the time it knows,
// always but at the beginning of a call. Time stands still in a call anyway.
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
	// Larger than the alignment of anything in the contract asks for, which is 8.
	block := make([]byte, (size+7)&^7)
	given = append(given, block)
	at := unsafe.Pointer(unsafe.SliceData(block))
	if oldSize > 0 {
		copy(block, unsafe.Slice((*byte)(old), min(oldSize, size)))
	}
	return at
}
