package sluicebox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sluicebox/internal/host"
)

const (
	operationHead = 16
	replyHead     = 8
	slotMax       = 64
)

// Get reads a slot of the event's key.
func (event *Event) Get(slot string) (value []byte, ok bool) {
	return host.StateGet(event.host(), slot)
}

// Put writes a slot of the event's key. The error says why the host refused it.
func (event *Event) Put(slot string, value []byte) error {
	return host.StatePut(event.host(), slot, value)
}

// Delete removes a slot of the event's key; true if there was one.
func (event *Event) Delete(slot string) bool { return host.StateDelete(event.host(), slot) }

// Add adds to a counter of the event's key, and gives the new number. A slot that was not written
// counts as 0.
func (event *Event) Add(slot string, delta int64) (int64, error) {
	return host.StateAdd(event.host(), slot, delta)
}

// Entry is a slot and what it holds.
type Entry = host.Entry

// Scan gives the slots of the event's key that begin with `prefix`, in byte order, at most
// `limit`.
func (event *Event) Scan(prefix string, limit int) []Entry {
	return host.StateScan(event.host(), prefix, uint32(max(limit, 0)))
}

// GetJSON reads a slot into what `value` points to; false if there is none.
func (event *Event) GetJSON(slot string, value any) (ok bool, err error) {
	bytes, ok := event.Get(slot)
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal(bytes, value)
}

// PutJSON writes a value as JSON to a slot.
func (event *Event) PutJSON(slot string, value any) error {
	bytes, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return event.Put(slot, bytes)
}

// Clock is a time that a timer waits for.
type Clock uint8

const (
	// EventTime is the watermark.
	EventTime Clock = iota
	// WallTime is the time of day.
	WallTime
)

// SetTimer sets a timer of the event's key. It fires once, as an event of kind [Timer] whose time
// is `at` and whose payload is the name. One of the same name is replaced.
func (event *Event) SetTimer(name string, clock Clock, at time.Time) error {
	return host.TimerSet(event.host(), name, uint8(clock), microsOf(at))
}

// CancelTimer cancels a timer of the event's key; true if there was one.
func (event *Event) CancelTimer(name string) bool { return host.TimerCancel(event.host(), name) }

// Watermark is the event time up to which everything is here; the zero time if it is not known.
func Watermark() time.Time {
	if micros := host.Watermark(); micros > 0 {
		return timeOf(micros)
	}
	return time.Time{}
}

// Now is the time of day, the same for all of a call.
func Now() time.Time { return timeOf(host.Now()) }

// Batch is many operations on state and timers in one call of the host, which costs about as much
// as one operation. The zero value is empty.
//
//	var batch sluicebox.Batch
//	for _, event := range events {
//		batch.Add(event, "count", 1)
//	}
//	for i, reply := range batch.Run() {
//		count, err := reply.Number()
//		…
type Batch struct {
	operations []byte
	count      int
}

const (
	opGet = iota + 1
	opPut
	opDelete
	opAdd
	opSetTimer
	opCancelTimer
)

// Get reads a slot.
func (batch *Batch) Get(event *Event, slot string) { batch.begin(opGet, event, slot, 0) }

// Put writes a slot.
func (batch *Batch) Put(event *Event, slot string, value []byte) {
	batch.begin(opPut, event, slot, len(value))
	batch.operations = append(batch.operations, value...)
}

// Delete removes a slot.
func (batch *Batch) Delete(event *Event, slot string) { batch.begin(opDelete, event, slot, 0) }

// Add adds to a counter.
func (batch *Batch) Add(event *Event, slot string, delta int64) {
	batch.begin(opAdd, event, slot, 8)
	batch.operations = binary.LittleEndian.AppendUint64(batch.operations, uint64(delta))
}

// SetTimer sets a timer.
func (batch *Batch) SetTimer(event *Event, name string, clock Clock, at time.Time) {
	batch.begin(opSetTimer, event, name, 9)
	batch.operations = append(batch.operations, uint8(clock))
	batch.operations = binary.LittleEndian.AppendUint64(batch.operations, microsOf(at))
}

// CancelTimer cancels a timer.
func (batch *Batch) CancelTimer(event *Event, name string) {
	batch.begin(opCancelTimer, event, name, 0)
}

// Len is how many operations there are.
func (batch *Batch) Len() int { return batch.count }

func (batch *Batch) begin(operation uint8, event *Event, name string, value int) {
	if len(name) > slotMax {
		panic(fmt.Sprintf("sluicebox: %q: the name of a slot or timer has at most 64 bytes", name))
	}
	var head [operationHead]byte
	head[0], head[1] = operation, uint8(len(name))
	binary.LittleEndian.PutUint32(head[4:], event.host())
	binary.LittleEndian.PutUint32(head[8:], uint32(value))
	batch.operations = append(batch.operations, head[:]...)
	batch.operations = append(batch.operations, name...)
	batch.count++
}

// Run has the host do all operations, in order, and gives a reply for each. The batch is empty
// then.
func (batch *Batch) Run() []Reply {
	if batch.count == 0 {
		return nil
	}
	rest := host.StateBatch(batch.operations)
	replies := make([]Reply, batch.count)
	for i := range replies {
		end := replyHead + int(binary.LittleEndian.Uint32(rest[4:]))
		replies[i] = Reply{rest[0], rest[replyHead:end:end]}
		rest = rest[end:]
	}
	batch.operations, batch.count = batch.operations[:0], 0
	return replies
}

// Reply is what one operation of a batch came to.
type Reply struct {
	status uint8
	value  []byte
}

// Err says why the host refused the operation.
func (reply Reply) Err() error {
	if reply.status < 2 {
		return nil
	}
	return errors.New(string(reply.value))
}

// Found says whether there was what the operation was about.
func (reply Reply) Found() bool { return reply.status == 0 }

// Value is what a slot holds, for [Batch.Get].
func (reply Reply) Value() (value []byte, ok bool) {
	if reply.status != 0 {
		return nil, false
	}
	return reply.value, true
}

// Number is the new number, for [Batch.Add].
func (reply Reply) Number() (int64, error) {
	if err := reply.Err(); err != nil {
		return 0, err
	}
	if len(reply.value) != 8 {
		return 0, errors.New("the operation was no addition")
	}
	return int64(binary.LittleEndian.Uint64(reply.value)), nil
}
