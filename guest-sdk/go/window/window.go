// Package window makes one result of what came within a span of time: tumbling and sliding windows
// over keyed state and timers.
//
//	var hourly = window.Tumbling(time.Hour).AllowedLateness(5 * time.Minute).LatePort(1)
//
//	func revenue(events []*sluicebox.Event, out *sluicebox.Output) error {
//		window.Run(hourly, window.Sum(), cents, events, out)
//		return nil
//	}
//
//	func cents(event *sluicebox.Event) (int64, error) {
//		var order struct{ Cents int64 }
//		err := event.JSON(&order)
//		return order.Cents, err
//	}
//
//	func init() { sluicebox.Run(sluicebox.All(revenue)) }
//
// A window is of one key. Its result leaves when the watermark has passed its end, by port 0, as
// {"key":"shop 7","start":…,"end":…,"value":…}, with the last microsecond of the window as its
// time.
//
//   - An event behind the watermark still counts if its window is not over for longer than
//     [Window.AllowedLateness]: the result leaves at once, anew, with "firing":"late". Later ones
//     go to the [Window.LatePort], or fail; none is lost silently.
//   - Sliding windows keep panes, each as long as the greatest time that divides size and slide:
//     an event changes one pane, however many windows it is in.
//   - A call of 256 events costs two calls of the host, three if windows end in it. State goes
//     with the last window it is needed for.
//
// What is kept, and what it means, is the same as in the SDK for Rust: slots and timers are called
// "@window" and "@window/…".
package window

import (
	"fmt"
	"strings"
	"time"

	"sluicebox"
	"sluicebox/internal/host"
)

const (
	panesInWindow = 1_024
	nameMax       = 32
	timeEnd       = 1 << 53
)

// Window says which events belong together. Made by [Tumbling] or [Sliding].
type Window struct {
	name      string
	width     uint64 // microseconds of a pane
	size      uint64 // panes of a window
	slide     uint64 // panes from one window to the next
	shift     uint64 // added to a time before it is cut
	lateness  uint64
	early     uint64
	panesMax  int
	late      late
	latePort  int
	clock     sluicebox.Clock
	condition func(*sluicebox.Event) bool
}

// What becomes of an event that is too late.
type late uint8

const (
	lateFails late = iota
	lateLeaves
	lateDropped
)

// Tumbling makes windows of this size, one behind the other. They begin at multiples of their size
// since 1970, in UTC; see [Window.Shifted].
func Tumbling(size time.Duration) Window { return Sliding(size, size) }

// Sliding makes windows of this size, of which one begins each `slide`. It panics if the size is
// not positive, the slide not from a microsecond to the size, or a window would have more than
// 1,024 panes.
func Sliding(size, slide time.Duration) Window {
	whole, step := micros(size), micros(slide)
	if whole == 0 || step == 0 || step > whole {
		panic("window: size and slide are at least a microsecond, and the slide at most the size")
	}
	width, rest := whole, step
	for rest > 0 {
		width, rest = rest, width%rest
	}
	if whole/width > panesInWindow {
		panic("window: a window has at most 1,024 panes")
	}
	return Window{
		name: "window", width: width, size: whole / width, slide: step / width,
		panesMax: panesInWindow,
	}
}

func micros(duration time.Duration) uint64 {
	if duration < 0 || duration.Microseconds() >= timeEnd {
		panic("window: a time is from 0 to 2^53 microseconds")
	}
	return uint64(duration.Microseconds())
}

// Named names the windows: their slots and timer are called "@name". Two in one stage have two
// names, at most 32 bytes long and without "/".
func (window Window) Named(name string) Window {
	if name == "" || len(name) > nameMax || strings.Contains(name, "/") {
		panic("window: a name is 1 to 32 bytes long and has no /")
	}
	window.name = name
	return window
}

// Shifted lets windows begin at multiples of the slide and this much more: 23 hours for days that
// begin at midnight in UTC+1.
func (window Window) Shifted(by time.Duration) Window {
	slide := window.slide * window.width
	window.shift = (slide - micros(by)%slide) % slide
	return window
}

// AllowedLateness is for how long behind the watermark an event still counts.
func (window Window) AllowedLateness(lateness time.Duration) Window {
	window.lateness = micros(lateness)
	return window
}

// LatePort is the port by which events leave, as they came, that are too late. Without one such an
// event fails, and so is found among the dead letters.
func (window Window) LatePort(port int) Window {
	window.late, window.latePort = lateLeaves, port
	return window
}

// DropLate drops events that are too late, and counts them in the stage's metric
// late_events_dropped.
func (window Window) DropLate() Window {
	window.late = lateDropped
	return window
}

// ByClock goes by the time of day: an event counts at the time of its call, and none is late.
func (window Window) ByClock() Window {
	window.clock = sluicebox.WallTime
	return window
}

// EarlyEvery gives results of open windows as well, with "firing":"early", when the watermark
// passes multiples of this time; of keys that had no event since the last time it gives none.
func (window Window) EarlyEvery(every time.Duration) Window {
	window.early = micros(every)
	return window
}

// PanesMax is how many panes of a key are kept at most, 1,024 if it is not said. An event that
// needs one more fails.
func (window Window) PanesMax(panes int) Window {
	window.panesMax = panes
	return window
}

// Only takes only these events of kind data; the others are left to the rest of the stage.
func (window Window) Only(condition func(*sluicebox.Event) bool) Window {
	window.condition = condition
	return window
}

// Firing says why there is a result: "" when the window is over.
type Firing string

const (
	// Early is the result of a window that is open.
	Early Firing = "early"
	// Late is the result of a window that was over when an event came.
	Late Firing = "late"
)

// Closed is the result of one window. Its end is not in it.
type Closed[Out any] struct {
	Key    string `json:"key"`
	Start  int64  `json:"start"`
	End    int64  `json:"end"`
	Firing Firing `json:"firing,omitempty"`
	Value  Out    `json:"value"`
}

// Run takes the events of a call, and emits each result as JSON by port 0. What `read` takes of an
// event is put together by the aggregate; if it gives an error, the event fails.
func Run[In, Kept, Out any](
	window Window, aggregate Aggregate[In, Kept, Out], read func(*sluicebox.Event) (In, error),
	events []*sluicebox.Event, out *sluicebox.Output,
) {
	RunWith(window, aggregate, read, events, out,
		func(result Closed[Out], draft sluicebox.Draft, send func(sluicebox.Draft)) {
			draft.JSON = result
			send(draft)
		})
}

// RunWith takes the events of a call, and lets `emit` make an event of each result, or none. The
// draft has the time of the result.
func RunWith[In, Kept, Out any](
	window Window, aggregate Aggregate[In, Kept, Out], read func(*sluicebox.Event) (In, error),
	events []*sluicebox.Event, out *sluicebox.Output,
	emit func(result Closed[Out], draft sluicebox.Draft, send func(sluicebox.Draft)),
) {
	call := callOf(window, events)
	if len(call.events) == 0 {
		return
	}
	work := work[In, Kept, Out]{
		Window: window, aggregate: aggregate.complete(), read: read, emit: emit, out: out,
		watermark: window.watermark(),
	}
	work.shelf = openShelf[Kept](window, call, work.aggregate.Decode, out)
	work.run()
}

// The time before which nothing is expected any more.
func (window Window) watermark() uint64 {
	if window.clock == sluicebox.WallTime {
		return host.Now()
	}
	return host.Watermark()
}

// The time an event counts at.
func (window Window) time(event *sluicebox.Event) uint64 {
	if window.clock == sluicebox.WallTime {
		return host.Now()
	}
	return uint64(event.Micros)
}

// Whether an event is for these windows: their own timer, and data that passes the condition.
func (window Window) takes(event *sluicebox.Event) bool {
	switch event.Kind {
	case sluicebox.Data:
		return window.condition == nil || window.condition(event)
	case sluicebox.Timer:
		return string(event.Payload) == "@"+window.name
	default:
		return false
	}
}

// The pane a time is in.
func (window Window) pane(time uint64) uint64 { return (time + window.shift) / window.width }

// The time at which a pane begins.
func (window Window) begins(pane uint64) uint64 {
	at := pane * window.width
	return at - min(at, window.shift)
}

// The end of the first window a pane is in, as the number of the pane behind it.
func (window Window) firstEnd(pane uint64) uint64 {
	behind := pane + 1 - min(pane+1, window.size)
	return (behind+window.slide-1)/window.slide*window.slide + window.size
}

// The end of the last window a pane is in.
func (window Window) lastEnd(pane uint64) uint64 {
	return pane/window.slide*window.slide + window.size
}

// tooLate sends an event that is too late where the stage says.
func (window Window) tooLate(
	event *sluicebox.Event, behind uint64, out *sluicebox.Output,
) error {
	switch window.late {
	case lateLeaves:
		draft := sluicebox.Draft{Port: window.latePort, Payload: event.Payload}
		for _, field := range event.Fields() {
			// Those below are the host's, which writes them itself.
			if field.ID >= sluicebox.EventID {
				draft.Fields = append(draft.Fields, field)
			}
		}
		out.Send(event, draft)
		return nil
	case lateDropped:
		sluicebox.Count("late_events_dropped", 1)
		return nil
	default:
		return fmt.Errorf("%s: too late, at %d with the watermark at %d; allow more lateness or "+
			"give late events a port", window.name, window.time(event), behind)
	}
}
