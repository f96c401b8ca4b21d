//go:build !wasip1

// Package sluiceboxtest runs a stage natively, for its unit tests.
//
//	func TestLettersBecomeLarge(t *testing.T) {
//		harness := sluiceboxtest.New(sluicebox.Each(upper))
//		if got := harness.Send("key", "hello").Outputs[0].Text(); got != "HELLO" {
//			t.Error(got)
//		}
//	}
//
// A [Harness] is one instance of the stage with a host in memory. It does what a node does:
//
//   - An emitted event without a key gets the key of its cause. What a node ends a call for is a
//     panic.
//   - When events fail, nothing of the call stands: the others are run again without them, so the
//     stage sees these twice. A stream function is not run again; what it emitted stands.
//   - Timers fire when a test moves a clock, [Harness.AdvanceWatermark] or [Harness.AdvanceClock].
//
// It does not do what a manifest says: no retries, no dead letters, no limits but the largest
// value of a slot.
package sluiceboxtest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"sluicebox"
	"sluicebox/internal/host"
)

const (
	timersInCall = 256
	timerCalls   = 10_000
)

// Input is an event to be given to a stage.
type Input struct {
	Kind    sluicebox.Kind
	Input   int
	Port    int
	Time    time.Time
	Key     string
	Payload []byte
	Fields  []sluicebox.Field
}

// Output is an event that a stage emitted.
type Output struct {
	Port int
	// Cause is the place of the causing event among those that were given.
	Cause   int
	Time    time.Time
	Key     string
	Payload []byte
	Fields  []sluicebox.Field
}

// Text is the payload as text.
func (output Output) Text() string { return string(output.Payload) }

// JSON reads the payload into what `value` points to; a panic if it is not the JSON it should be.
func (output Output) JSON(value any) {
	if err := json.Unmarshal(output.Payload, value); err != nil {
		panic(fmt.Sprintf("the emitted payload %q: %v", output.Payload, err))
	}
}

// Result is what events came to.
type Result struct {
	Outputs  []Output
	Failures []sluicebox.Failed
}

// Texts are the payloads of all outputs, as text.
func (result Result) Texts() []string {
	texts := make([]string, len(result.Outputs))
	for i, output := range result.Outputs {
		texts[i] = output.Text()
	}
	return texts
}

// Harness is one instance of a stage, and its host.
type Harness struct {
	instance *sluicebox.Instance
	memory   *host.Memory
}

// New makes an instance of a stage.
func New(stage sluicebox.Stage) *Harness {
	return &Harness{sluicebox.NewInstance(stage), host.New()}
}

// SetConfig sets a setting of the manifest.
func (harness *Harness) SetConfig(name, value string) { harness.memory.Config[name] = value }

// SetAsset adds an asset.
func (harness *Harness) SetAsset(name string, bytes []byte) { harness.memory.Assets[name] = bytes }

// SetState fills a slot of a key.
func (harness *Harness) SetState(key, slot string, value []byte) {
	harness.memory.Slots[host.Place{Key: key, Name: slot}] = value
}

// SetValueMax sets the largest value a slot may have; it is 1 MiB.
func (harness *Harness) SetValueMax(bytes int) { harness.memory.ValueMax = bytes }

// State is what a slot of a key holds.
func (harness *Harness) State(key, slot string) (value []byte, ok bool) {
	value, ok = harness.memory.Slots[host.Place{Key: key, Name: slot}]
	return value, ok
}

// Counter is what a counter of a key says; 0 if there is none.
func (harness *Harness) Counter(key, slot string) int64 {
	value, ok := harness.State(key, slot)
	if !ok || len(value) != 8 {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(value))
}

// Slots are the names of a key's slots, in byte order.
func (harness *Harness) Slots(key string) []string {
	return namesOf(harness.memory.Slots, key)
}

// Timers are the names of a key's timers that wait, in byte order.
func (harness *Harness) Timers(key string) []string {
	return namesOf(harness.memory.Timers, key)
}

func namesOf[V any](of map[host.Place]V, key string) []string {
	var names []string
	for place := range of {
		if place.Key == key {
			names = append(names, place.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Log are the lines that the stage wrote.
func (harness *Harness) Log() []string {
	lines := make([]string, len(harness.memory.Lines))
	for i, line := range harness.memory.Lines {
		lines[i] = line.Text
	}
	return lines
}

// Count is what a counter among the stage's metrics says.
func (harness *Harness) Count(metric string) uint64 { return harness.memory.Counts[metric] }

// Gauge is what a gauge among the stage's metrics says.
func (harness *Harness) Gauge(metric string) float64 { return harness.memory.Gauges[metric] }

// Batches is how many batches of operations the stage had the host do.
func (harness *Harness) Batches() int { return harness.memory.Batches }

// Send gives the stage one event of kind data.
func (harness *Harness) Send(key, payload string) Result {
	return harness.Handle(Input{Key: key, Payload: []byte(payload)})
}

// Open begins a stream.
func (harness *Harness) Open(key string) Result {
	return harness.Handle(Input{Kind: sluicebox.Open, Key: key})
}

// End ends a stream.
func (harness *Harness) End(key string) Result {
	return harness.Handle(Input{Kind: sluicebox.End, Key: key})
}

// Handle gives the stage these events in one call.
func (harness *Harness) Handle(inputs ...Input) Result {
	places := make([]int, len(inputs))
	for i := range places {
		places[i] = i
	}
	var result Result
	for len(places) > 0 {
		slots, timers := maps.Clone(harness.memory.Slots), maps.Clone(harness.memory.Timers)
		failures, outputs := harness.call(inputs, places)
		again := len(failures) > 0 && harness.instance.Undoes()
		if again {
			harness.memory.Slots, harness.memory.Timers = slots, timers
		} else {
			result.Outputs = outputs
		}
		result.Failures = append(result.Failures, failures...)
		if !again {
			break
		}
		failed := func(place int) bool {
			return slices.ContainsFunc(failures, func(one sluicebox.Failed) bool {
				return one.Event == place
			})
		}
		places = slices.DeleteFunc(places, failed)
	}
	return result
}

// call runs the stage once; what it gives names events by their place among `inputs`.
func (harness *Harness) call(inputs []Input, places []int) ([]sluicebox.Failed, []Output) {
	memory := harness.memory
	memory.Keys, memory.Frames = nil, nil
	frame := make([]byte, 16)
	for _, place := range places {
		memory.Keys = append(memory.Keys, inputs[place].Key)
		frame = append(frame, inputs[place].bytes()...)
	}
	copy(frame, "SBXF\x01\x00\x01\x00")
	binary.LittleEndian.PutUint32(frame[8:], uint32(len(places)))
	binary.LittleEndian.PutUint32(frame[12:], uint32(len(frame)))
	failures := harness.instance.Handle(memory, frame)
	for i := range failures {
		failures[i].Event = places[failures[i].Event]
	}
	var outputs []Output
	for _, frame := range memory.Frames {
		outputs = append(outputs, harness.outputs(frame, places)...)
	}
	return failures, outputs
}

func (harness *Harness) outputs(frame []byte, places []int) []Output {
	var outputs []Output
	at := 16
	for _, event := range sluicebox.EventsOf(frame) {
		cause := int(binary.LittleEndian.Uint32(frame[at+12:]))
		at += int(binary.LittleEndian.Uint32(frame[at:]))
		if cause >= len(places) {
			panic(fmt.Sprintf("trap: the call has no event %d that could be a cause", cause))
		}
		key := event.Key
		if key == "" {
			key = harness.memory.Keys[cause]
		}
		outputs = append(outputs, Output{
			event.Port, places[cause], event.Time(), key, event.Payload, event.Fields(),
		})
	}
	return outputs
}

// bytes is the event as a node packs it.
func (input Input) bytes() []byte {
	var fields []byte
	for _, field := range input.Fields {
		fields = binary.LittleEndian.AppendUint16(fields, field.ID)
		fields = binary.LittleEndian.AppendUint16(fields, uint16(len(field.Value)))
		fields = append(fields, field.Value...)
	}
	micros := uint64(0)
	if !input.Time.IsZero() {
		micros = uint64(input.Time.UnixMicro())
	}
	size := 32 + len(input.Key) + len(input.Payload) + len(fields)
	head := binary.LittleEndian.AppendUint32(nil, uint32(size))
	head = append(head, byte(input.Kind), 0)
	head = binary.LittleEndian.AppendUint16(head, uint16(input.Input))
	head = binary.LittleEndian.AppendUint16(head, uint16(input.Port))
	head = binary.LittleEndian.AppendUint16(head, uint16(len(input.Key)))
	head = binary.LittleEndian.AppendUint32(head, 0xffff_ffff)
	head = binary.LittleEndian.AppendUint64(head, micros)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(input.Payload)))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(fields)))
	return slices.Concat(head, []byte(input.Key), input.Payload, fields)
}

// AdvanceWatermark moves the watermark, and gives the stage every timer by event time that is due,
// those included that it sets then. A watermark never goes back. Events in the result are numbered
// through all that fired.
func (harness *Harness) AdvanceWatermark(to time.Time) Result {
	harness.memory.Watermark = max(harness.memory.Watermark, uint64(to.UnixMicro()))
	return harness.fire()
}

// AdvanceClock moves the time of day, as [Harness.AdvanceWatermark] does the watermark.
func (harness *Harness) AdvanceClock(to time.Time) Result {
	harness.memory.Now = max(harness.memory.Now, uint64(to.UnixMicro()))
	return harness.fire()
}

func (harness *Harness) fire() Result {
	var all Result
	fired := 0
	for range timerCalls {
		due := harness.memory.TakeDue(timersInCall)
		if len(due) == 0 {
			return all
		}
		inputs := make([]Input, len(due))
		for i, one := range due {
			at := time.UnixMicro(int64(one.At)).UTC()
			inputs[i] = Input{Kind: sluicebox.Timer, Key: one.Key, Payload: []byte(one.Name), Time: at}
		}
		result := harness.Handle(inputs...)
		for _, output := range result.Outputs {
			output.Cause += fired
			all.Outputs = append(all.Outputs, output)
		}
		for _, failed := range result.Failures {
			failed.Event += fired
			all.Failures = append(all.Failures, failed)
		}
		fired += len(due)
	}
	panic("the stage keeps setting timers for a time that has come; they fire for ever")
}
