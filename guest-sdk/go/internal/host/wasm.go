//go:build wasip1

// Package host is what the SDK asks of its host: in a component the imports of the world `stage`,
// by the canonical ABI, so that a stage needs no generator of bindings; natively a host in memory.
//
//   - What the host gives lies where cabi_realloc says: memory of Go's heap, which the collector
//     takes back when nobody has it any more.
//   - An option or result comes as its case, and from the next multiple of its alignment on its
//     value. Texts and lists are an address and a length, of 32 bits each.
//   - One place takes all results: an instance does one thing at a time.
package host

import (
	"errors"
	"time"
	"unsafe"
)

// result is where imports put what they give.
var result struct {
	words [8]uint32
	_     uint64
}

func pointer() unsafe.Pointer { return unsafe.Pointer(&result) }

func data(bytes []byte) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.SliceData(bytes)), uint32(len(bytes))
}

// bytesAt is memory that cabi_realloc gave.
func bytesAt(address, length uint32) []byte {
	if length == 0 {
		return []byte{}
	}
	//nolint:govet // an address of linear memory is a pointer
	return unsafe.Slice((*byte)(unsafe.Pointer(uintptr(address))), length)
}

func textAt(address, length uint32) string {
	if length == 0 {
		return ""
	}
	return unsafe.String((*byte)(unsafe.Pointer(uintptr(address))), length)
}

// taken gives bytes that the host has put somewhere, and lets go of what keeps them there.
func taken(address, length uint32) []byte {
	bytes := bytesAt(address, length)
	letGo()
	return bytes
}

func takenText(address, length uint32) string {
	text := textAt(address, length)
	letGo()
	return text
}

func refusal(is, address, length uint32) error {
	if is&0xff == 0 {
		return nil
	}
	return errors.New(takenText(address, length))
}

// Emit gives a frame to the host.
func Emit(frame []byte) { importEmit(data(frame)) }

// StateGet reads a slot.
func StateGet(event uint32, slot string) ([]byte, bool) {
	importGet(event, slot, pointer())
	if result.words[0]&0xff == 0 {
		return nil, false
	}
	return taken(result.words[1], result.words[2]), true
}

// StatePut writes a slot.
func StatePut(event uint32, slot string, value []byte) error {
	at, length := data(value)
	importPut(event, slot, at, length, pointer())
	return refusal(result.words[0], result.words[1], result.words[2])
}

// StateDelete removes a slot.
func StateDelete(event uint32, slot string) bool { return importDelete(event, slot) != 0 }

// StateAdd adds to a counter.
func StateAdd(event uint32, slot string, delta int64) (int64, error) {
	importAdd(event, slot, delta, pointer())
	if err := refusal(result.words[0], result.words[2], result.words[3]); err != nil {
		return 0, err
	}
	return int64(uint64(result.words[2]) | uint64(result.words[3])<<32), nil
}

// StateScan reads slots that begin alike.
func StateScan(event uint32, prefix string, limit uint32) []Entry {
	importScan(event, prefix, limit, pointer())
	address, count := result.words[0], result.words[1]
	entries := make([]Entry, count)
	for i := range entries {
		words := unsafe.Slice((*uint32)(unsafe.Pointer(uintptr(address)+uintptr(i)*16)), 4)
		entries[i] = Entry{textAt(words[0], words[1]), bytesAt(words[2], words[3])}
	}
	letGo()
	return entries
}

// StateBatch runs packed operations.
func StateBatch(operations []byte) []byte {
	at, length := data(operations)
	importBatch(at, length, pointer())
	return taken(result.words[0], result.words[1])
}

// TimerSet sets a timer.
func TimerSet(event uint32, name string, clock uint8, at uint64) error {
	importTimerSet(event, name, uint32(clock), at, pointer())
	return refusal(result.words[0], result.words[1], result.words[2])
}

// TimerCancel cancels a timer.
func TimerCancel(event uint32, name string) bool { return importTimerCancel(event, name) != 0 }

// Watermark is the watermark of the batch.
func Watermark() uint64 { return importWatermark() }

// Now is the recorded time of the batch.
func Now() uint64 { return uint64(time.Now().UnixMicro()) }

// Config reads a setting.
func Config(name string) (string, bool) {
	importConfig(name, pointer())
	if result.words[0]&0xff == 0 {
		return "", false
	}
	return takenText(result.words[1], result.words[2]), true
}

// ConfigNames gives the names of all settings.
func ConfigNames() []string {
	importConfigNames(pointer())
	address, count := result.words[0], result.words[1]
	names := make([]string, count)
	for i := range names {
		words := unsafe.Slice((*uint32)(unsafe.Pointer(uintptr(address)+uintptr(i)*8)), 2)
		names[i] = textAt(words[0], words[1])
	}
	letGo()
	return names
}

// AssetSize gives the size of an asset.
func AssetSize(name string) (uint64, bool) {
	importAssetSize(name, pointer())
	size := uint64(result.words[2]) | uint64(result.words[3])<<32
	return size, result.words[0]&0xff != 0
}

// AssetRead reads a part of an asset.
func AssetRead(name string, offset uint64, length uint32) []byte {
	importAssetRead(name, offset, length, pointer())
	return taken(result.words[0], result.words[1])
}

// Log writes a line.
func Log(level uint8, line string) { importLog(uint32(level), line) }

// MetricCount adds to a counter.
func MetricCount(name string, delta uint64) { importCount(name, delta) }

// MetricGauge sets a gauge.
func MetricGauge(name string, value float64) { importGauge(name, value) }

//go:wasmimport sluicebox:stage/output@0.1.0 emit
func importEmit(frame unsafe.Pointer, length uint32)

//go:wasmimport sluicebox:stage/state@0.1.0 get
func importGet(event uint32, slot string, result unsafe.Pointer)

//go:wasmimport sluicebox:stage/state@0.1.0 put
func importPut(event uint32, slot string, value unsafe.Pointer, length uint32, r unsafe.Pointer)

//go:wasmimport sluicebox:stage/state@0.1.0 delete
func importDelete(event uint32, slot string) uint32

//go:wasmimport sluicebox:stage/state@0.1.0 add
func importAdd(event uint32, slot string, delta int64, result unsafe.Pointer)

//go:wasmimport sluicebox:stage/state@0.1.0 scan
func importScan(event uint32, prefix string, limit uint32, result unsafe.Pointer)

//go:wasmimport sluicebox:stage/state@0.1.0 batch
func importBatch(operations unsafe.Pointer, length uint32, result unsafe.Pointer)

//go:wasmimport sluicebox:stage/timers@0.1.0 set
func importTimerSet(event uint32, name string, clock uint32, at uint64, result unsafe.Pointer)

//go:wasmimport sluicebox:stage/timers@0.1.0 cancel
func importTimerCancel(event uint32, name string) uint32

//go:wasmimport sluicebox:stage/timers@0.1.0 watermark
func importWatermark() uint64

//go:wasmimport sluicebox:stage/config@0.1.0 get
func importConfig(name string, result unsafe.Pointer)

//go:wasmimport sluicebox:stage/config@0.1.0 names
func importConfigNames(result unsafe.Pointer)

//go:wasmimport sluicebox:stage/assets@0.1.0 size
func importAssetSize(name string, result unsafe.Pointer)

//go:wasmimport sluicebox:stage/assets@0.1.0 read
func importAssetRead(name string, offset uint64, length uint32, result unsafe.Pointer)

//go:wasmimport sluicebox:stage/log@0.1.0 write
func importLog(level uint32, line string)

//go:wasmimport sluicebox:stage/metrics@0.1.0 count
func importCount(name string, delta uint64)

//go:wasmimport sluicebox:stage/metrics@0.1.0 gauge
func importGauge(name string, value float64)
