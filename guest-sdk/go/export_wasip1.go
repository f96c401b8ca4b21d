package sluicebox

import (
	"strings"
	"unsafe"

	"sluicebox/internal/host"
)

// failure is one failure as the contract has it.
type failure struct {
	event   uint32
	class   uint32
	message uint32
	length  uint32
}

// What a call gives back. It stays until the next one, and so do the messages.
var outcome struct {
	list     [2]uint32
	failures []failure
	messages []string
}

//go:wasmexport handle
func exportHandle(frame unsafe.Pointer, length uint32) unsafe.Pointer {
	bytes := host.Given(frame, length)
	host.BeginCall()
	outcome.failures, outcome.messages = outcome.failures[:0], outcome.messages[:0]
	for _, failed := range handle(bytes) {
		message, class := strings.ToValidUTF8(failed.err.Error(), "\uFFFD"), uint32(1)
		if IsRetry(failed.err) {
			class = 0
		}
		outcome.messages = append(outcome.messages, message)
		at := uint32(uintptr(unsafe.Pointer(unsafe.StringData(message))))
		one := failure{failed.event, class, at, uint32(len(message))}
		outcome.failures = append(outcome.failures, one)
	}
	at := unsafe.Pointer(unsafe.SliceData(outcome.failures))
	outcome.list = [2]uint32{uint32(uintptr(at)), uint32(len(outcome.failures))}
	return unsafe.Pointer(&outcome.list)
}
