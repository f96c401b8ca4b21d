package window_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
	"time"

	"sluicebox"
	"sluicebox/sluiceboxtest"
	"sluicebox/window"
)

func at(seconds int64) time.Time { return time.UnixMicro(seconds * 1_000_000).UTC() }

func input(key string, seconds int64, value int64) sluiceboxtest.Input {
	payload, _ := json.Marshal(value)
	return sluiceboxtest.Input{Key: key, Time: at(seconds), Payload: payload}
}

func number(event *sluicebox.Event) (value int64, err error) {
	err = event.JSON(&value)
	return value, err
}

func summing(windows window.Window) *sluiceboxtest.Harness {
	return sluiceboxtest.New(sluicebox.All(
		func(events []*sluicebox.Event, out *sluicebox.Output) error {
			window.Run(windows, window.Sum(), number, events, out)
			return nil
		}))
}

// short says "start-end=value", with an f, e or l behind it for how it fired.
func short(result sluiceboxtest.Result) []string {
	var texts []string
	for _, output := range result.Outputs {
		var closed window.Closed[int64]
		output.JSON(&closed)
		text := fmt.Sprintf("%d-%d=%d%s", closed.Start/1_000_000, closed.End/1_000_000,
			closed.Value, closed.Firing)
		texts = append(texts, text)
	}
	return texts
}

func is[T any](t *testing.T, got, want T) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestATumblingWindowGivesItsResultWhenItIsOver(t *testing.T) {
	harness := summing(window.Tumbling(10 * time.Second))
	result := harness.Handle(
		input("k", 11, 1), input("k", 19, 2), input("k", 20, 4), input("o", 12, 8),
	)
	is(t, len(result.Outputs)+len(result.Failures), 0)
	is(t, harness.Batches(), 2)
	is(t, len(harness.AdvanceWatermark(at(19)).Outputs), 0)
	ended := harness.AdvanceWatermark(at(20))
	is(t, short(ended), []string{"10-20=3", "10-20=8"})
	is(t, ended.Outputs[0].Time, at(20).Add(-time.Microsecond))
	is(t, ended.Outputs[0].Key, "k")
	is(t, short(harness.AdvanceWatermark(at(30))), []string{"20-30=4"})
	is(t, len(harness.Slots("k"))+len(harness.Timers("k")), 0)
	is(t, len(harness.Slots("o"))+len(harness.Timers("o")), 0)
}

func TestSlidingWindowsShareTheirPanes(t *testing.T) {
	harness := summing(window.Sliding(6*time.Second, 4*time.Second))
	harness.Handle(input("k", 9, 1), input("k", 3, 2))
	is(t, harness.Slots("k"), []string{"@window", "@window/1", "@window/4"})
	is(t, short(harness.AdvanceWatermark(at(100))), []string{"0-6=2", "4-10=1", "8-14=1"})
	is(t, len(harness.Slots("k")), 0)
}

func TestALateEventCorrectsAResult(t *testing.T) {
	windows := window.Tumbling(10 * time.Second).AllowedLateness(5 * time.Second).LatePort(1)
	harness := summing(windows)
	harness.Handle(input("k", 11, 1))
	is(t, short(harness.AdvanceWatermark(at(22))), []string{"10-20=1"})
	is(t, short(harness.Handle(input("k", 12, 2))), []string{"10-20=3late"})
	harness.AdvanceWatermark(at(25))
	is(t, len(harness.Slots("k")), 0)
	late := harness.Handle(input("k", 13, 4))
	is(t, late.Outputs[0].Port, 1)
	is(t, late.Outputs[0].Text(), "4")
}

func TestAResultLeavesItsPanesAsTheyAre(t *testing.T) {
	type sum = map[string]int64
	sums := window.Aggregate[int64, sum, int64]{
		First: func(value int64) sum { return sum{"sum": value} },
		Merge: func(kept, later sum) sum {
			kept["sum"] += later["sum"]
			return kept
		},
		Output: func(kept sum) int64 {
			defer clear(kept)
			return kept["sum"]
		},
	}
	windows := window.Sliding(20*time.Second, 10*time.Second).AllowedLateness(time.Hour)
	harness := sluiceboxtest.New(sluicebox.All(
		func(events []*sluicebox.Event, out *sluicebox.Output) error {
			window.Run(windows, sums, number, events, out)
			return nil
		}))
	harness.Handle(input("k", 105, 1), input("k", 115, 2))
	is(t, short(harness.AdvanceWatermark(at(140))), []string{"90-110=1", "100-120=3", "110-130=2"})
	late := harness.Handle(input("k", 105, 4), input("k", 105, 8))
	is(t, short(late), []string{"90-110=5late", "100-120=7late", "90-110=13late", "100-120=15late"})
	is(t, short(harness.Handle(input("k", 105, 16))), []string{"90-110=29late", "100-120=31late"})
}

func TestTooLateAnEventFailsOrIsDropped(t *testing.T) {
	failing := summing(window.Tumbling(10 * time.Second))
	failing.AdvanceWatermark(at(30))
	is(t, len(failing.Handle(input("k", 11, 1)).Failures), 1)
	dropping := summing(window.Tumbling(10 * time.Second).DropLate())
	dropping.AdvanceWatermark(at(30))
	is(t, len(dropping.Handle(input("k", 11, 1)).Failures), 0)
	is(t, dropping.Count("late_events_dropped"), 1)
}

func TestOpenWindowsGiveEarlyResults(t *testing.T) {
	harness := summing(window.Tumbling(10 * time.Second).EarlyEvery(4 * time.Second))
	harness.Handle(input("k", 1, 1))
	is(t, short(harness.AdvanceWatermark(at(4))), []string{"0-10=1early"})
	is(t, len(harness.AdvanceWatermark(at(9)).Outputs), 0)
	is(t, short(harness.AdvanceWatermark(at(10))), []string{"0-10=1"})
}

func TestManyWindowsThatEndAtOnceGiveTheirResultsInSeveralCalls(t *testing.T) {
	harness := summing(window.Tumbling(10 * time.Second).AllowedLateness(time.Hour))
	for number := range int64(150) {
		harness.Handle(input("k", 10*number, number))
	}
	is(t, len(harness.AdvanceWatermark(at(1_500)).Outputs), 150)
}

func TestByTheClockNothingIsLate(t *testing.T) {
	harness := summing(window.Tumbling(10 * time.Second).ByClock())
	harness.AdvanceClock(at(5))
	harness.AdvanceWatermark(at(1000))
	harness.Handle(input("k", 0, 1))
	is(t, short(harness.AdvanceClock(at(10))), []string{"0-10=1"})
}

func TestWindowsAreShifted(t *testing.T) {
	harness := summing(window.Tumbling(10 * time.Second).Shifted(3 * time.Second))
	harness.Handle(input("k", 12, 1), input("k", 13, 2))
	is(t, short(harness.AdvanceWatermark(at(100))), []string{"3-13=1", "13-23=2"})
}

func TestABadEventFailsAlone(t *testing.T) {
	harness := summing(window.Tumbling(10 * time.Second))
	bad := sluiceboxtest.Input{Key: "k", Time: at(12), Payload: []byte("x")}
	result := harness.Handle(input("k", 11, 1), bad, input("k", 13, 2))
	is(t, len(result.Failures), 1)
	is(t, result.Failures[0].Event, 1)
	is(t, short(harness.AdvanceWatermark(at(20))), []string{"10-20=3"})
}

func TestOtherWindowsOverKeptStateAreRefused(t *testing.T) {
	harness := summing(window.Tumbling(10 * time.Second))
	harness.Handle(input("k", 11, 1))
	index, _ := harness.State("k", "@window")
	other := summing(window.Tumbling(20 * time.Second))
	other.SetState("k", "@window", index)
	is(t, len(other.Handle(input("k", 11, 1)).Failures), 1)
	other.SetState("k", "@window", []byte("nonsense"))
	is(t, len(other.Handle(input("k", 11, 1)).Failures), 1)
}

func TestPanesAreBounded(t *testing.T) {
	harness := summing(window.Tumbling(10 * time.Second).PanesMax(2))
	result := harness.Handle(input("k", 1, 1), input("k", 11, 1), input("k", 21, 1))
	is(t, len(result.Failures), 1)
	is(t, len(harness.Slots("k")), 3)
}

func TestWhatIsKeptLiesAsTheSDKForRustHasIt(t *testing.T) {
	harness := summing(window.Sliding(6*time.Second, 4*time.Second))
	harness.Handle(input("k", 3, -2), input("k", 9, 300))
	pane, _ := harness.State("k", "@window/1")
	is(t, pane, []byte{0x01, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	index, _ := harness.State("k", "@window")
	// Woken at 6 s; panes of 2 s, windows of 3 panes each 2; the next to fire ends at pane 3.
	want := []byte{1, 0x80, 0x9b, 0xee, 0x02, 0x80, 0x89, 0x7a, 3, 2, 0, 3, 0, 2, 1, 3}
	is(t, index, want)
}

func TestAggregates(t *testing.T) {
	run := func(stage func([]*sluicebox.Event, *sluicebox.Output) error) string {
		harness := sluiceboxtest.New(sluicebox.All(stage))
		// In three calls, so that what is kept is read again.
		harness.Handle(input("k", 1, 3))
		harness.Handle(input("k", 2, math.MaxInt64))
		harness.Handle(input("k", 3, -4))
		var closed window.Closed[json.RawMessage]
		harness.AdvanceWatermark(at(10)).Outputs[0].JSON(&closed)
		return string(closed.Value)
	}
	ten := window.Tumbling(10 * time.Second)
	type events = []*sluicebox.Event
	is(t, run(func(events events, out *sluicebox.Output) error {
		window.Run(ten, window.Count(), window.Anything, events, out)
		return nil
	}), "3")
	is(t, run(func(events events, out *sluicebox.Output) error {
		window.Run(ten, window.Sum(), number, events, out)
		return nil
	}), "9223372036854775806")
	is(t, run(func(events events, out *sluicebox.Output) error {
		window.Run(ten, window.Min[int64](), number, events, out)
		return nil
	}), "-4")
	is(t, run(func(events events, out *sluicebox.Output) error {
		window.Run(ten, window.Max[int64](), number, events, out)
		return nil
	}), "9223372036854775807")
	is(t, run(func(events events, out *sluicebox.Output) error {
		window.Run(ten, window.Mean(), number, events, out)
		return nil
	}), "3074457345618258400")
	half := func(event *sluicebox.Event) (float64, error) {
		value, err := number(event)
		return float64(value%10) / 2, err
	}
	is(t, run(func(events events, out *sluicebox.Output) error {
		window.Run(ten, window.SumFloat(), half, events, out)
		return nil
	}), "3")
}

// Against windows that are reckoned from all events at once.
func TestAnyWindowsGiveWhatTheirEventsGive(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 7))
		slide := 1 + random.Int64N(5)
		size := slide + random.Int64N(8)
		seconds := time.Second
		harness := summing(window.Sliding(time.Duration(size)*seconds, time.Duration(slide)*seconds))
		expected := map[string]int64{}
		var now int64
		got := []string{}
		for range 30 {
			var inputs []sluiceboxtest.Input
			for range 1 + random.IntN(4) {
				// None is late.
				when, value := now+random.Int64N(20), random.Int64N(100)
				inputs = append(inputs, input("k", when, value))
				for start := when / slide * slide; start >= 0 && start+size > when; start -= slide {
					expected[fmt.Sprintf("%d-%d", start, start+size)] += value
				}
			}
			got = append(got, short(harness.Handle(inputs...))...)
			now += random.Int64N(8)
			got = append(got, short(harness.AdvanceWatermark(at(now)))...)
		}
		got = append(got, short(harness.AdvanceWatermark(at(now+100)))...)
		var want []string
		for span, sum := range expected {
			want = append(want, fmt.Sprintf("%s=%d", span, sum))
		}
		sort.Strings(want)
		sort.Strings(got)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d, size %d, slide %d: got %v, want %v", seed, size, slide, got, want)
		}
		is(t, len(harness.Slots("k"))+len(harness.Timers("k")), 0)
	}
}
