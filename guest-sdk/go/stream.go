package sluicebox

import (
	"errors"
	"fmt"
	"iter"
	"strings"
)

// Stream makes a stage of a function that reads one stream from its first event to its last. What
// it knows is in its local variables. The stage needs scope = "stream" in the manifest.
//
//	func largest(events iter.Seq[*sluicebox.Event], out *sluicebox.StreamOutput) error {
//		largest := math.Inf(-1)
//		for event := range events {
//			var value float64
//			if err := event.JSON(&value); err != nil {
//				return err
//			}
//			largest = max(largest, value)
//		}
//		out.EmitJSON(largest)
//		return nil
//	}
//
// What holds:
//
//   - The loop waits between two calls; nothing else may be waited for.
//   - An error ends the function: this event and those that follow fail. [StreamOutput.Fail] fails
//     the event at hand, and the stream goes on. A function that returns nil has seen enough;
//     later events are ignored.
//   - Events are those of kind data and timer. Each may be kept, but has state only until its call
//     ends.
func Stream(function func(events iter.Seq[*Event], out *StreamOutput) error) Stage {
	return Stage{func() runner { return &stream{function: function} }}
}

// StreamOutput takes what a stream function emits. The cause is the event that was taken last, or
// the end of the stream.
type StreamOutput struct{ stream *stream }

// Emit emits a payload on port 0 with the time of the event taken last.
func (out *StreamOutput) Emit(payload []byte) { out.stream.out.Emit(out.stream.current, payload) }

// EmitText emits a text on port 0 with the time of the event taken last.
func (out *StreamOutput) EmitText(payload string) {
	out.stream.out.EmitText(out.stream.current, payload)
}

// EmitJSON emits a value as JSON on port 0. If it cannot be written as JSON, the event taken last
// fails.
func (out *StreamOutput) EmitJSON(value any) { out.stream.out.EmitJSON(out.stream.current, value) }

// Send emits an event with a port, key, time or fields of its own.
func (out *StreamOutput) Send(draft Draft) { out.stream.out.Send(out.stream.current, draft) }

// Fail says that the event taken last could not be handled; the stream goes on.
func (out *StreamOutput) Fail(err error) { out.stream.out.Fail(out.stream.current, err) }

type progress uint8

const (
	waiting progress = iota
	returned
	broken
)

// stream is an instance of a stream function: a coroutine that is resumed by each call and yields
// when it has read what the call gave it.
type stream struct {
	function func(iter.Seq[*Event], *StreamOutput) error

	resume   func() (struct{}, bool)
	progress progress
	why      error
	key      string

	// Of the current call.
	out     *Output
	rest    []*Event
	current *Event
}

func (*stream) undoes() bool { return false }

func (s *stream) run(events []*Event, out *Output) {
	if len(events) == 0 {
		return
	}
	s.out, s.rest, s.current = out, events, events[0]
	if s.resume == nil || events[0].Kind == Open {
		s.begin(events[0].Key)
	}
	if s.progress == waiting {
		s.resume()
	}
	if s.progress == broken {
		for _, event := range s.rest {
			if event.Kind == Data || event.Kind == Timer {
				out.Fail(event, fmt.Errorf("the stream function failed before: %w", s.why))
			}
		}
	}
	s.out, s.rest, s.current = nil, nil, nil
}

// begin starts the function anew. It runs until it first asks for an event only when it is
// resumed.
func (s *stream) begin(key string) {
	s.key, s.progress, s.why = strings.Clone(key), waiting, nil
	s.resume, _ = iter.Pull(func(yield func(struct{}) bool) {
		err := s.function(s.events(yield), &StreamOutput{s})
		s.progress = returned
		if err != nil {
			s.progress, s.why = broken, err
			s.out.Fail(s.current, err)
		}
	})
}

// events are the events for the function; `pause` gives control back until the next call.
func (s *stream) events(pause func(struct{}) bool) iter.Seq[*Event] {
	ended := false
	return func(body func(*Event) bool) {
		for !ended {
			if len(s.rest) == 0 {
				if !pause(struct{}{}) {
					return
				}
				continue
			}
			event := s.rest[0]
			s.rest, s.current = s.rest[1:], event
			switch {
			case event.Key != s.key:
				err := errors.New("a stream function needs scope = \"stream\" in the manifest")
				s.out.Fail(event, err)
			case event.Kind == End:
				ended = true
			case event.Kind != Open && !body(event):
				return
			}
		}
	}
}
