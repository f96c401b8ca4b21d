//go:build !wasip1

// Package host is what the SDK asks of its host: natively a host in memory, for tests.
//
//   - It keeps the promises of the contract that a stage can see: keys from indexes of events,
//     refusals as in wit/. What the real host ends a call for is a panic here.
//   - Its two clocks stand still until a test moves them.
//   - It keeps no promise about size or speed.
package host

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	slotMax = 64
	timeEnd = 1 << 53
)

// Place names a slot or timer of a key.
type Place struct{ Key, Name string }

// Waiting is what a timer waits for.
type Waiting struct {
	Clock uint8
	At    uint64
}

// Due is a timer that fires.
type Due struct {
	Place
	Waiting
}

// Line is a line of the log.
type Line struct {
	Level uint8
	Text  string
}

// Memory is a host in memory.
type Memory struct {
	// Keys of the events of the current call.
	Keys      []string
	Slots     map[Place][]byte
	Timers    map[Place]Waiting
	Watermark uint64
	Now       uint64
	// ValueMax is the largest value a slot may have.
	ValueMax int
	Config   map[string]string
	Assets   map[string][]byte
	Frames   [][]byte
	Lines    []Line
	Counts   map[string]uint64
	Gauges   map[string]float64
	// Batches is how many batches of operations there were.
	Batches int
}

// New is an empty host.
func New() *Memory {
	return &Memory{
		Slots:    map[Place][]byte{},
		Timers:   map[Place]Waiting{},
		ValueMax: 1 << 20,
		Config:   map[string]string{},
		Assets:   map[string][]byte{},
		Counts:   map[string]uint64{},
		Gauges:   map[string]float64{},
	}
}

// Current is the host of the call that runs.
var Current *Memory

func current() *Memory {
	if Current == nil {
		panic("sluicebox: there is no host here; run the stage with the package sluiceboxtest")
	}
	return Current
}

func (memory *Memory) place(event uint32, name string) Place {
	if int(event) >= len(memory.Keys) {
		panic(fmt.Sprintf("trap: the call has no event %d", event))
	}
	if len(name) > slotMax {
		panic("trap: the name of a slot has at most 64 bytes")
	}
	return Place{memory.Keys[event], name}
}

// Emit takes a frame.
func Emit(frame []byte) { current().Frames = append(current().Frames, slices.Clone(frame)) }

// StateGet reads a slot.
func StateGet(event uint32, slot string) ([]byte, bool) {
	value, ok := current().Slots[current().place(event, slot)]
	return slices.Clone(value), ok
}

// StatePut writes a slot.
func StatePut(event uint32, slot string, value []byte) error {
	memory := current()
	place := memory.place(event, slot)
	if len(value) > memory.ValueMax {
		return fmt.Errorf("the value is %d bytes long, the limit is %d", len(value), memory.ValueMax)
	}
	memory.Slots[place] = append([]byte{}, value...)
	return nil
}

// StateDelete removes a slot.
func StateDelete(event uint32, slot string) bool {
	place := current().place(event, slot)
	_, ok := current().Slots[place]
	delete(current().Slots, place)
	return ok
}

// StateAdd adds to a counter.
func StateAdd(event uint32, slot string, delta int64) (int64, error) {
	place := current().place(event, slot)
	sum := delta
	if value, ok := current().Slots[place]; ok {
		if len(value) != 8 {
			return 0, fmt.Errorf("the slot holds %d bytes, a counter has 8", len(value))
		}
		sum += int64(binary.LittleEndian.Uint64(value))
	}
	current().Slots[place] = binary.LittleEndian.AppendUint64(nil, uint64(sum))
	return sum, nil
}

// StateScan reads slots that begin alike.
func StateScan(event uint32, prefix string, limit uint32) []Entry {
	from := current().place(event, prefix)
	entries := []Entry{}
	for place, value := range current().Slots {
		if place.Key == from.Key && strings.HasPrefix(place.Name, prefix) {
			entries = append(entries, Entry{place.Name, slices.Clone(value)})
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Slot, b.Slot) })
	return entries[:min(len(entries), int(limit))]
}

// StateBatch runs packed operations.
func StateBatch(operations []byte) []byte {
	current().Batches++
	var replies []byte
	for len(operations) > 0 {
		event := binary.LittleEndian.Uint32(operations[4:])
		slot := 16 + int(operations[1])
		end := slot + int(binary.LittleEndian.Uint32(operations[8:]))
		name, value := string(operations[16:slot]), operations[slot:end]
		status, reply := operate(operations[0], event, name, value)
		replies = append(replies, status, 0, 0, 0)
		replies = binary.LittleEndian.AppendUint32(replies, uint32(len(reply)))
		replies = append(replies, reply...)
		operations = operations[end:]
	}
	return replies
}

func operate(operation uint8, event uint32, name string, value []byte) (uint8, []byte) {
	absent := func(ok bool) uint8 {
		if ok {
			return 0
		}
		return 1
	}
	refused := func(err error) (uint8, []byte) {
		if err != nil {
			return 2, []byte(err.Error())
		}
		return 0, nil
	}
	switch operation {
	case 1:
		found, ok := StateGet(event, name)
		return absent(ok), found
	case 2:
		return refused(StatePut(event, name, value))
	case 3:
		return absent(StateDelete(event, name)), nil
	case 4:
		sum, err := StateAdd(event, name, int64(binary.LittleEndian.Uint64(value)))
		if err != nil {
			return refused(err)
		}
		return 0, binary.LittleEndian.AppendUint64(nil, uint64(sum))
	case 5:
		return refused(TimerSet(event, name, value[0], binary.LittleEndian.Uint64(value[1:])))
	case 6:
		return absent(TimerCancel(event, name)), nil
	}
	panic(fmt.Sprintf("trap: there is no operation %d", operation))
}

// TimerSet sets a timer.
func TimerSet(event uint32, name string, clock uint8, at uint64) error {
	memory := current()
	if int(event) >= len(memory.Keys) {
		panic(fmt.Sprintf("trap: the call has no event %d", event))
	}
	if len(name) > slotMax {
		return fmt.Errorf("the name of a timer has at most 64 bytes")
	}
	if at >= timeEnd {
		return fmt.Errorf("the time of a timer is below 2^53, not %d", at)
	}
	memory.Timers[Place{memory.Keys[event], name}] = Waiting{clock, at}
	return nil
}

// TimerCancel cancels a timer.
func TimerCancel(event uint32, name string) bool {
	place := current().place(event, name)
	_, ok := current().Timers[place]
	delete(current().Timers, place)
	return ok
}

// TakeDue takes at most `most` timers that are due, by clock, time, key and name.
func (memory *Memory) TakeDue(most int) []Due {
	var due []Due
	for place, waiting := range memory.Timers {
		if waiting.At <= [...]uint64{memory.Watermark, memory.Now}[waiting.Clock] {
			due = append(due, Due{place, waiting})
		}
	}
	slices.SortFunc(due, func(a, b Due) int {
		return cmp.Or(cmp.Compare(a.Clock, b.Clock), cmp.Compare(a.At, b.At),
			strings.Compare(a.Key, b.Key), strings.Compare(a.Name, b.Name))
	})
	due = due[:min(len(due), most)]
	for _, one := range due {
		delete(memory.Timers, one.Place)
	}
	return due
}

// Watermark is the watermark of the batch.
func Watermark() uint64 { return current().Watermark }

// Now is the recorded time of the batch.
func Now() uint64 { return current().Now }

// Config reads a setting.
func Config(name string) (string, bool) {
	value, ok := current().Config[name]
	return value, ok
}

// ConfigNames gives the names of all settings.
func ConfigNames() []string { return slices.Sorted(maps.Keys(current().Config)) }

// AssetSize gives the size of an asset.
func AssetSize(name string) (uint64, bool) {
	bytes, ok := current().Assets[name]
	return uint64(len(bytes)), ok
}

// AssetRead reads a part of an asset.
func AssetRead(name string, offset uint64, length uint32) []byte {
	bytes := current().Assets[name]
	bytes = bytes[min(offset, uint64(len(bytes))):]
	return slices.Clone(bytes[:min(len(bytes), int(length))])
}

// Log takes a line.
func Log(level uint8, line string) { current().Lines = append(current().Lines, Line{level, line}) }

// MetricCount adds to a counter.
func MetricCount(name string, delta uint64) { current().Counts[name] += delta }

// MetricGauge sets a gauge.
func MetricGauge(name string, value float64) { current().Gauges[name] = value }

// Collect has nothing to do here.
func Collect() {}
