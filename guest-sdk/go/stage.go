// Package sluicebox is the SDK for stages in Go: functions that process events, in a component
// that a node runs.
//
//	func upper(event *sluicebox.Event, out *sluicebox.Output) error {
//		text, err := event.Text()
//		if err != nil {
//			return err
//		}
//		out.EmitText(event, strings.ToUpper(text))
//		return nil
//	}
//
//	func init() { sluicebox.Run(sluicebox.Each(upper)) }
//
//	func main() {}
//
// What holds:
//
//   - A returned error is the failure of its event: nothing that was emitted or written for it
//     stands. [Retry] asks the host to try again. A panic ends the instance.
//   - State and timers belong to the key of an event. What is written stands if the call does.
//   - Package variables are the memory of an instance, which is a cache; what must last is state.
//     With scope "stream" an instance serves one stream.
//
// Tests run without a node, see the package sluiceboxtest.
package sluicebox

import (
	"errors"
	"fmt"

	"sluicebox/internal/host"
)

// Stage is a function in one of its forms: [Each], [JSON], [All] or [Stream].
type Stage struct {
	start func() runner
}

// runner is an instance of a stage.
type runner interface {
	// run handles the events of one call.
	run(events []*Event, out *Output)
	// undoes says whether what is done for an event that fails is taken back.
	undoes() bool
}

// Each makes a stage of a function that is called once for each event.
func Each(function func(event *Event, out *Output) error) Stage {
	return Stage{func() runner { return each(function) }}
}

// JSON makes a stage of a function that is called once for each event of kind [Data], with what
// its payload says. A payload that is no such JSON fails.
func JSON[T any](function func(event *Event, value T, out *Output) error) Stage {
	return Each(func(event *Event, out *Output) error {
		if event.Kind != Data {
			return nil
		}
		var value T
		if err := event.JSON(&value); err != nil {
			return err
		}
		return function(event, value, out)
	})
}

// All makes a stage of a function that is called once for all events of a call, at most 256. Which
// of them failed it says with [Output.Fail]; an error it returns has the host try each alone.
func All(function func(events []*Event, out *Output) error) Stage {
	return Stage{func() runner { return all(function) }}
}

type each func(*Event, *Output) error

func (function each) run(events []*Event, out *Output) {
	for i, event := range events {
		if err := function(event, out); err != nil {
			out.Fail(event, err)
		}
		if i%eventsBetweenCollections == eventsBetweenCollections-1 {
			host.Collect()
		}
	}
}

// Looking whether there is anything to collect costs about a microsecond.
const eventsBetweenCollections = 16

func (each) undoes() bool { return true }

type all func([]*Event, *Output) error

func (function all) run(events []*Event, out *Output) {
	err := function(events, out)
	if err == nil {
		return
	}
	// The error names no event. One that is alone it must be of.
	if len(events) > 1 {
		err = Retry(err)
	}
	for _, event := range events {
		out.Fail(event, err)
	}
}

func (all) undoes() bool { return true }

// Run says what the instance does. To be called once, from an init function.
func Run(stage Stage) {
	if stage.start == nil {
		panic("sluicebox: Run needs a stage made by Each, JSON, All or Stream")
	}
	if registered.start != nil {
		panic("sluicebox: Run is called once")
	}
	registered = stage
}

var registered Stage

// retry is an error whose cause may pass.
type retry struct{ error }

func (r retry) Unwrap() error { return r.error }

// Retry marks an error: the host tries the event again, alone, as often as the manifest says. Any
// other error rejects it.
func Retry(err error) error { return retry{err} }

// Retryf is [Retry] of a text put together as by [fmt.Errorf].
func Retryf(format string, arguments ...any) error {
	return Retry(fmt.Errorf(format, arguments...))
}

// IsRetry says whether an error asks for another try.
func IsRetry(err error) bool {
	var marked retry
	return errors.As(err, &marked)
}
