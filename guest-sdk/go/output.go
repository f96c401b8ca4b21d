package sluicebox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sluicebox/internal/host"
)

// flushBytes is how large a frame of emitted events grows: just below what a stage is given in
// one.
const flushBytes = 240 << 10

// Output takes what a stage emits, and the events it could not handle.
type Output struct {
	frame    []byte
	count    uint32
	failures []failed
	fields   []byte
}

type failed struct {
	event uint32
	err   error
}

// Draft is an event to be emitted, where it is not as plain as those of [Output.Emit].
type Draft struct {
	// Port by which it leaves, counted from 0 in the order of the manifest.
	Port int
	// Key takes effect on edges with key = "emitted". If it is empty, it is that of the cause.
	Key string
	// Time of the event. If it is zero, it is that of the cause.
	Time time.Time
	// Payload, or a value that is written as JSON unless it is nil.
	Payload []byte
	JSON    any
	Fields  []Field
}

// Emit emits a payload on port 0 with the time and key of its cause, an event of this call.
func (out *Output) Emit(cause *Event, payload []byte) {
	push(out, cause.host(), 0, uint64(cause.Micros), "", payload)
}

// EmitText emits a text on port 0 with the time and key of its cause.
func (out *Output) EmitText(cause *Event, payload string) {
	push(out, cause.host(), 0, uint64(cause.Micros), "", payload)
}

// EmitJSON emits a value as JSON on port 0 with the time and key of its cause. If it cannot be
// written as JSON, the cause fails.
func (out *Output) EmitJSON(cause *Event, value any) {
	index := cause.host()
	// By itself, because a draft without a value is one whose payload is given, and nil is `null`.
	payload, err := json.Marshal(value)
	if err != nil {
		out.failAt(index, notJSON(err))
		return
	}
	push(out, index, 0, uint64(cause.Micros), "", payload)
}

func notJSON(err error) error { return fmt.Errorf("emitted what is not JSON: %w", err) }

// Send emits an event that differs from a plain one. If no frame can carry it (a key over 512
// bytes, fields over 16 KiB, a payload over 15 MiB, a port or time out of range), the cause fails.
func (out *Output) Send(cause *Event, draft Draft) {
	index := cause.host()
	if draft.JSON != nil {
		payload, err := json.Marshal(draft.JSON)
		if err != nil {
			out.failAt(index, notJSON(err))
			return
		}
		draft.Payload = payload
	}
	micros := uint64(cause.Micros)
	if !draft.Time.IsZero() {
		micros = microsOf(draft.Time)
	}
	if draft.Port < 0 || draft.Port > 65535 {
		out.failAt(index, fmt.Errorf("emitted by port %d, ports are from 0 to 65,535", draft.Port))
		return
	}
	out.fields = out.fields[:0]
	for _, field := range draft.Fields {
		if len(field.Value) > fieldMax {
			err := errors.New("emitted a field whose value is longer than 65,535 bytes")
			out.failAt(index, err)
			return
		}
		out.fields = binary.LittleEndian.AppendUint16(out.fields, field.ID)
		out.fields = binary.LittleEndian.AppendUint16(out.fields, uint16(len(field.Value)))
		out.fields = append(out.fields, field.Value...)
	}
	push(out, index, uint16(draft.Port), micros, draft.Key, draft.Payload)
	out.fields = out.fields[:0]
}

// Fail says that an event cannot be handled. Nothing that was emitted or written for it stands.
// The first failure of an event counts. See [Retry].
func (out *Output) Fail(event *Event, err error) { out.failAt(event.host(), err) }

func (out *Output) failAt(event uint32, err error) {
	for _, before := range out.failures {
		if before.event == event {
			return
		}
	}
	out.failures = append(out.failures, failed{event, err})
}

// push packs one event, with the fields that the output has at hand.
func push[P string | []byte](
	out *Output, cause uint32, port uint16, micros uint64, key string, payload P,
) {
	if err := excess(len(key), len(out.fields), len(payload), micros); err != nil {
		out.failAt(cause, err)
		return
	}
	size := eventHead + len(key) + len(payload) + len(out.fields)
	if len(out.frame)+size > flushBytes {
		out.flush()
	}
	if len(out.frame) == 0 {
		out.frame = append(out.frame, make([]byte, frameHeader)...)
	}
	var head [eventHead]byte
	binary.LittleEndian.PutUint32(head[0:], uint32(size))
	binary.LittleEndian.PutUint16(head[8:], port)
	binary.LittleEndian.PutUint16(head[10:], uint16(len(key)))
	binary.LittleEndian.PutUint32(head[12:], cause)
	binary.LittleEndian.PutUint64(head[16:], micros)
	binary.LittleEndian.PutUint32(head[24:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(head[28:], uint32(len(out.fields)))
	frame := append(out.frame, head[:]...)
	frame = append(frame, key...)
	frame = append(frame, payload...)
	out.frame = append(frame, out.fields...)
	out.count++
}

// excess says what of an event no frame can carry.
func excess(key, fields, payload int, micros uint64) error {
	switch {
	case key > keyMax:
		return fmt.Errorf("emitted a key of %d bytes, the limit is %d", key, keyMax)
	case fields > fieldsMax:
		return fmt.Errorf("emitted %d bytes of fields, the limit is %d", fields, fieldsMax)
	case payload > payloadMax:
		return fmt.Errorf("emitted a payload of %d bytes, the limit is 15 MiB", payload)
	case micros >= timeEnd:
		return errors.New("emitted a time that is not from 1970 to 2^53 microseconds later")
	}
	return nil
}

// flush gives what is packed to the host.
func (out *Output) flush() {
	if out.count == 0 {
		return
	}
	copy(out.frame, "SBXF\x01\x00\x01\x00")
	binary.LittleEndian.PutUint32(out.frame[8:], out.count)
	binary.LittleEndian.PutUint32(out.frame[12:], uint32(len(out.frame)))
	host.Emit(out.frame)
	out.count = 0
	out.frame = out.frame[:0]
	if cap(out.frame) > 2*flushBytes {
		// It grew for one large event; the next one like it may never come.
		out.frame = nil
	}
}
