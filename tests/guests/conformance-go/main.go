// The conformance guest in Go, over the SDK; what it does: ../CONFORMANCE.md.
package main

import (
	"encoding/binary"
	"errors"
	"time"

	"sluicebox"
)

const (
	ownField  = 40000
	scanLimit = 100
)

var errUnknown = errors.New("unknown command")

// What the command `M` was given in the life of the instance.
var remembered []byte

func init() { sluicebox.Run(sluicebox.Each(run)) }

func main() {}

func run(event *sluicebox.Event, out *sluicebox.Output) error {
	if event.Kind != sluicebox.Data {
		describe(event, out)
		return nil
	}
	if len(event.Payload) == 0 {
		return errUnknown
	}
	command, operand := event.Payload[0], event.Payload[1:]
	if plain, ok := plainCommands[command]; ok {
		return plain(event, out, operand)
	}
	switch command {
	case 'k', 's', 'a':
		if len(operand) == 0 || len(operand)-1 < int(operand[0]) {
			return errUnknown
		}
		end := 1 + int(operand[0])
		return runSplit(event, out, command, operand[1:end], operand[end:])
	}
	return runNumbered(event, out, command, operand)
}

type command func(event *sluicebox.Event, out *sluicebox.Output, operand []byte) error

// Commands whose operand is free.
var plainCommands = map[byte]command{
	'e': func(event *sluicebox.Event, out *sluicebox.Output, operand []byte) error {
		out.Emit(event, operand)
		return nil
	},
	'd': func(event *sluicebox.Event, out *sluicebox.Output, _ []byte) error {
		describe(event, out)
		return nil
	},
	'f': emitFields,
	'r': func(_ *sluicebox.Event, _ *sluicebox.Output, operand []byte) error {
		return sluicebox.Retry(errors.New(string(operand)))
	},
	'x': func(_ *sluicebox.Event, _ *sluicebox.Output, operand []byte) error {
		return errors.New(string(operand))
	},
	't': func(*sluicebox.Event, *sluicebox.Output, []byte) error { panic("as told") },
	'g': func(event *sluicebox.Event, out *sluicebox.Output, operand []byte) error {
		value, ok := event.Get(string(operand))
		answer(event, out, ok, value)
		return nil
	},
	'D': func(event *sluicebox.Event, out *sluicebox.Output, operand []byte) error {
		answer(event, out, event.Delete(string(operand)), nil)
		return nil
	},
	'S': scan,
	'c': func(event *sluicebox.Event, out *sluicebox.Output, operand []byte) error {
		value, ok := sluicebox.Config(string(operand))
		answer(event, out, ok, []byte(value))
		return nil
	},
	'A': readAsset,
	'm': func(_ *sluicebox.Event, _ *sluicebox.Output, operand []byte) error {
		sluicebox.Count(string(operand), 1)
		return nil
	},
	'M': remember,
	'C': func(event *sluicebox.Event, out *sluicebox.Output, operand []byte) error {
		answer(event, out, event.CancelTimer(string(operand)), nil)
		return nil
	},
	'W': func(event *sluicebox.Event, out *sluicebox.Output, _ []byte) error {
		micros := int64(0)
		if watermark := sluicebox.Watermark(); !watermark.IsZero() {
			micros = watermark.UnixMicro()
		}
		out.Emit(event, binary.LittleEndian.AppendUint64(nil, uint64(micros)))
		return nil
	},
	'w': func(event *sluicebox.Event, out *sluicebox.Output, _ []byte) error {
		now := uint64(time.Now().UnixNano())
		out.Emit(event, binary.LittleEndian.AppendUint64(nil, now))
		return nil
	},
}

// runNumbered runs commands whose operand begins with numbers.
func runNumbered(event *sluicebox.Event, out *sluicebox.Output, command byte, operand []byte) error {
	needed := map[byte]int{'n': 1, 'p': 1, 'u': 4, 'l': 1, 'T': 9}
	if length, ok := needed[command]; !ok || len(operand) < length {
		return errUnknown
	}
	switch command {
	case 'n':
		for value := range operand[0] {
			out.Emit(event, []byte{value})
		}
	case 'p':
		out.Send(event, sluicebox.Draft{Port: int(operand[0]), Payload: operand[1:]})
	case 'u':
		cause := *event
		cause.Index = int(binary.LittleEndian.Uint32(operand))
		out.Emit(&cause, operand[4:])
	case 'l':
		if operand[0] > byte(sluicebox.ErrorLevel) {
			return errUnknown
		}
		sluicebox.Log(sluicebox.Level(operand[0]), string(operand[1:]))
	case 'T':
		at := time.UnixMicro(int64(binary.LittleEndian.Uint64(operand[1:])))
		err := event.SetTimer(string(operand[9:]), sluicebox.Clock(operand[0]), at)
		answerDone(event, out, err, nil)
	}
	return nil
}

// runSplit runs commands whose operand begins with a length.
func runSplit(
	event *sluicebox.Event, out *sluicebox.Output, command byte, head, rest []byte,
) error {
	switch command {
	case 'k':
		out.Send(event, sluicebox.Draft{Key: string(head), Payload: rest})
	case 's':
		answerDone(event, out, event.Put(string(head), rest), nil)
	case 'a':
		if len(rest) != 8 {
			return errUnknown
		}
		sum, err := event.Add(string(head), int64(binary.LittleEndian.Uint64(rest)))
		answerDone(event, out, err, binary.LittleEndian.AppendUint64(nil, uint64(sum)))
	}
	return nil
}

func describe(event *sluicebox.Event, out *sluicebox.Output) {
	payload := []byte{byte(event.Kind)}
	payload = binary.LittleEndian.AppendUint16(payload, uint16(event.Input))
	payload = binary.LittleEndian.AppendUint64(payload, uint64(event.Micros))
	out.Emit(event, append(payload, event.Key...))
}

func emitFields(event *sluicebox.Event, out *sluicebox.Output, operand []byte) error {
	fields := []sluicebox.Field{{ID: ownField, Value: operand}}
	if value, ok := event.Field(sluicebox.ContentType); ok {
		fields = append(fields, sluicebox.Field{ID: sluicebox.ContentType, Value: value})
	}
	out.Send(event, sluicebox.Draft{Fields: fields})
	return nil
}

// answer emits whether there was something, and what it was.
func answer(event *sluicebox.Event, out *sluicebox.Output, found bool, value []byte) {
	payload := []byte{0}
	if found {
		payload[0] = 1
	}
	out.Emit(event, append(payload, value...))
}

// answerDone emits 0 and a value, or 2 and why it was refused.
func answerDone(event *sluicebox.Event, out *sluicebox.Output, err error, value []byte) {
	if err != nil {
		out.Emit(event, append([]byte{2}, err.Error()...))
		return
	}
	out.Emit(event, append([]byte{0}, value...))
}

func scan(event *sluicebox.Event, out *sluicebox.Output, prefix []byte) error {
	var payload []byte
	for _, entry := range event.Scan(string(prefix), scanLimit) {
		payload = append(payload, byte(len(entry.Slot)))
		payload = append(payload, entry.Slot...)
		payload = binary.LittleEndian.AppendUint32(payload, uint32(len(entry.Value)))
		payload = append(payload, entry.Value...)
	}
	out.Emit(event, payload)
	return nil
}

func readAsset(event *sluicebox.Event, out *sluicebox.Output, name []byte) error {
	size, ok := sluicebox.AssetSize(string(name))
	if !ok {
		return nil
	}
	payload := binary.LittleEndian.AppendUint64(nil, size)
	out.Emit(event, append(payload, sluicebox.AssetAt(string(name), 0, 16)...))
	return nil
}

func remember(event *sluicebox.Event, out *sluicebox.Output, operand []byte) error {
	remembered = append(remembered, operand...)
	sum := uint32(0)
	for _, value := range remembered {
		sum += uint32(value)
	}
	payload := binary.LittleEndian.AppendUint32(nil, uint32(len(remembered)))
	out.Emit(event, binary.LittleEndian.AppendUint32(payload, sum))
	return nil
}
