package sluicebox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"
	"unsafe"
)

// Kind says why an event is here.
type Kind uint8

const (
	// Data is something a producer sent or a stage emitted.
	Data Kind = iota
	// Timer is a wake-up that the key asked for.
	Timer
	// Open is the beginning of a stream.
	Open
	// End is the end of a stream.
	End
)

func (kind Kind) String() string {
	if int(kind) < len(kindNames) {
		return kindNames[kind]
	}
	return "unknown"
}

var kindNames = [...]string{"data", "timer", "open", "end"}

// Event is one event of a call. It may be kept, but is a cause, and has state and timers, only in
// the call it came in.
type Event struct {
	// Index is its place in the call.
	Index int
	Kind  Kind
	// Input says which input of the stage it arrived at, in the order of the manifest.
	Input int
	// Port says by which port it left the stage before.
	Port int
	// Micros is its time, in microseconds since 1970.
	Micros  int64
	Key     string
	Payload []byte

	fields []byte
	call   uint64
}

// Time is the event's time.
func (event *Event) Time() time.Time { return timeOf(uint64(event.Micros)) }

// Text is the payload as text; an error if it is not UTF-8.
func (event *Event) Text() (string, error) {
	if !utf8.Valid(event.Payload) {
		return "", errors.New("the payload is not UTF-8")
	}
	return string(event.Payload), nil
}

// JSON reads the payload into what `value` points to, as [json.Unmarshal] does.
func (event *Event) JSON(value any) error { return json.Unmarshal(event.Payload, value) }

// Timer is the name of the timer that fired, if the event is one.
func (event *Event) Timer() (name string, ok bool) {
	if event.Kind != Timer {
		return "", false
	}
	return string(event.Payload), true
}

// Ids of extension fields. Those from OwnField on are for stages' own use.
const (
	EventID      uint16 = 256
	EventSource  uint16 = 257
	ContentType  uint16 = 258
	EventType    uint16 = 259
	EventSubject uint16 = 260
	OwnField     uint16 = 32768
)

// Field is the value of an extension field.
func (event *Event) Field(id uint16) ([]byte, bool) {
	for _, field := range event.Fields() {
		if field.ID == id {
			return field.Value, true
		}
	}
	return nil, false
}

// Field is an extension field of an event.
type Field struct {
	ID    uint16
	Value []byte
}

// Fields gives all extension fields.
func (event *Event) Fields() []Field {
	var fields []Field
	for rest := event.fields; len(rest) >= fieldHead; {
		end := fieldHead + int(binary.LittleEndian.Uint16(rest[2:]))
		id := binary.LittleEndian.Uint16(rest)
		fields = append(fields, Field{id, rest[fieldHead:end:end]})
		rest = rest[end:]
	}
	return fields
}

// Of a call: which one it is. Events of another are refused where they would be misunderstood.
var calls uint64

// host is the event's index, if it is one of the current call.
func (event *Event) host() uint32 {
	if event.call != calls {
		panic("sluicebox: the event is of an earlier call; it is no cause and has no state now")
	}
	return uint32(event.Index)
}

const (
	frameHeader = 16
	eventHead   = 32
	fieldHead   = 4
	keyMax      = 512
	fieldsMax   = 16384
	fieldMax    = 65535
	payloadMax  = 15 << 20
	timeEnd     = 1 << 53
)

// events reads a frame. The host has checked it. What it gives points into the frame.
func events(frame []byte) []*Event {
	count := int(binary.LittleEndian.Uint32(frame[8:]))
	list, pointers := make([]Event, count), make([]*Event, count)
	rest := frame[frameHeader:]
	for i := range list {
		head := rest[:eventHead]
		size := int(binary.LittleEndian.Uint32(head))
		key := eventHead + int(binary.LittleEndian.Uint16(head[10:]))
		payload := key + int(binary.LittleEndian.Uint32(head[24:]))
		list[i] = Event{
			Index:   i,
			Kind:    Kind(head[4]),
			Input:   int(binary.LittleEndian.Uint16(head[6:])),
			Port:    int(binary.LittleEndian.Uint16(head[8:])),
			Micros:  int64(binary.LittleEndian.Uint64(head[16:])),
			Key:     textOf(rest[eventHead:key]),
			Payload: rest[key:payload:payload],
			fields:  rest[payload:size],
			call:    calls,
		}
		pointers[i] = &list[i]
		rest = rest[size:]
	}
	return pointers
}

// textOf is a text in the frame, which nobody writes to.
func textOf(bytes []byte) string {
	return unsafe.String(unsafe.SliceData(bytes), len(bytes))
}

func timeOf(micros uint64) time.Time { return time.UnixMicro(int64(micros)).UTC() }

// microsOf is a time as the host has it; what lies before 1970 is behind the end of time, and so
// is refused wherever it is given.
func microsOf(at time.Time) uint64 { return uint64(at.UnixMicro()) }
