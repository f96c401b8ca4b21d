package sluiceboxtest

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"sluicebox"
)

func upper(event *sluicebox.Event, out *sluicebox.Output) error {
	text, err := event.Text()
	if err != nil {
		return err
	}
	seen, err := event.Add("seen", 1)
	if err != nil {
		return err
	}
	out.EmitText(event, fmt.Sprint(strings.ToUpper(text), seen))
	return nil
}

func TestAnEventIsHandled(t *testing.T) {
	harness := New(sluicebox.Each(upper))
	is(t, harness.Send("k", "a").Texts(), []string{"A1"})
	is(t, harness.Send("k", "b").Texts(), []string{"B2"})
	is(t, harness.Send("other", "b").Texts(), []string{"B1"})
	is(t, harness.Counter("k", "seen"), 2)
}

func TestNothingOfAnEventThatFailedStands(t *testing.T) {
	harness := New(sluicebox.Each(upper))
	bad := Input{Key: "k", Payload: []byte{0xff}}
	result := harness.Handle(Input{Key: "k", Payload: []byte("a")}, bad,
		Input{Key: "k", Payload: []byte("b")})
	is(t, result.Texts(), []string{"A1", "B2"})
	is(t, result.Outputs[1].Cause, 2)
	is(t, len(result.Failures), 1)
	is(t, result.Failures[0].Event, 1)
	is(t, result.Failures[0].Err.Error(), "the payload is not UTF-8")
	is(t, sluicebox.IsRetry(result.Failures[0].Err), false)
}

func TestAnErrorOfACallTriesEachAlone(t *testing.T) {
	wrong := errors.New("no")
	harness := New(sluicebox.All(func([]*sluicebox.Event, *sluicebox.Output) error { return wrong }))
	one := harness.Send("k", "a")
	is(t, sluicebox.IsRetry(one.Failures[0].Err), false)
	two := harness.Handle(Input{Key: "k"}, Input{Key: "k"})
	is(t, len(two.Failures), 2)
	is(t, sluicebox.IsRetry(fmt.Errorf("wrapped: %w", two.Failures[0].Err)), true)
}

func TestTheFirstFailureOfAnEventCounts(t *testing.T) {
	harness := New(sluicebox.Each(func(event *sluicebox.Event, out *sluicebox.Output) error {
		out.Fail(event, sluicebox.Retryf("first"))
		return errors.New("second")
	}))
	failures := harness.Send("k", "").Failures
	is(t, len(failures), 1)
	is(t, failures[0].Err.Error(), "first")
}

func TestJSONIsReadAndWritten(t *testing.T) {
	type order struct{ Cents int }
	harness := New(sluicebox.JSON(func(e *sluicebox.Event, value order, out *sluicebox.Output) error {
		value.Cents *= 2
		out.EmitJSON(e, value)
		return nil
	}))
	is(t, harness.Send("k", `{"Cents":3}`).Texts(), []string{`{"Cents":6}`})
	is(t, len(harness.Send("k", `{`).Failures), 1)
	is(t, len(harness.Handle(Input{Kind: sluicebox.Timer, Payload: []byte("x")}).Failures), 0)
}

func TestEveryValueIsEmittedAsJSON(t *testing.T) {
	values := map[string]any{"null": nil, "0": 0, `""`: "", "[]": []int{}, "false": false}
	harness := New(sluicebox.Each(func(event *sluicebox.Event, out *sluicebox.Output) error {
		if event.Key == "bad" {
			out.EmitJSON(event, func() {})
			return nil
		}
		out.EmitJSON(event, values[event.Key])
		return nil
	}))
	for text := range values {
		is(t, harness.Send(text, "").Texts(), []string{text})
	}
	bad := harness.Send("bad", "")
	is(t, len(bad.Outputs), 0)
	message := "emitted what is not JSON: json: unsupported type: func()"
	is(t, bad.Failures[0].Err.Error(), message)
}

func TestWhatNoFrameCarriesFails(t *testing.T) {
	harness := New(sluicebox.Each(func(event *sluicebox.Event, out *sluicebox.Output) error {
		draft := sluicebox.Draft{Payload: event.Payload}
		switch event.Key {
		case "key":
			draft.Key = strings.Repeat("k", 513)
		case "time":
			draft.Time = time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC)
		case "fields":
			draft.Fields = []sluicebox.Field{{ID: 40000, Value: make([]byte, 20_000)}}
		case "port":
			draft.Port = 65_536
		case "json":
			draft.JSON = func() {}
		}
		out.Send(event, draft)
		return nil
	}))
	for key, message := range map[string]string{
		"key":    "emitted a key of 513 bytes, the limit is 512",
		"time":   "emitted a time that is not from 1970 to 2^53 microseconds later",
		"fields": "emitted 20004 bytes of fields, the limit is 16384",
		"port":   "emitted by port 65536, ports are from 0 to 65,535",
		"json":   "emitted what is not JSON: json: unsupported type: func()",
	} {
		result := harness.Send(key, "x")
		is(t, len(result.Failures), 1)
		is(t, result.Failures[0].Err.Error(), message)
	}
	is(t, harness.Send("none", "x").Texts(), []string{"x"})
}

func TestManyEventsLeaveInSeveralFrames(t *testing.T) {
	large := strings.Repeat("x", 100_000)
	harness := New(sluicebox.Each(func(event *sluicebox.Event, out *sluicebox.Output) error {
		for range 5 {
			out.EmitText(event, large)
		}
		return nil
	}))
	is(t, len(harness.Send("k", "").Outputs), 5)
	is(t, len(harness.memory.Frames), 3)
}

func TestABatchIsOneCallOfTheHost(t *testing.T) {
	harness := New(sluicebox.All(func(events []*sluicebox.Event, out *sluicebox.Output) error {
		var batch sluicebox.Batch
		for _, event := range events {
			batch.Add(event, "n", 1)
			batch.Put(event, "last", event.Payload)
			batch.Get(event, "last")
			batch.Delete(event, "none")
			batch.SetTimer(event, "t", sluicebox.EventTime, time.UnixMicro(7))
			batch.CancelTimer(event, "u")
		}
		replies := batch.Run()
		for i, event := range events {
			own := replies[6*i : 6*i+6]
			number, err := own[0].Number()
			value, _ := own[2].Value()
			out.EmitText(event, fmt.Sprintln(number, err, string(value), own[3].Found(), own[5].Found()))
		}
		return nil
	}))
	result := harness.Handle(
		Input{Key: "k", Payload: []byte("a")}, Input{Key: "k", Payload: []byte("b")},
	)
	is(t, result.Texts(), []string{"1 <nil> a false false\n", "2 <nil> b false false\n"})
	is(t, harness.Batches(), 1)
	is(t, harness.Timers("k"), []string{"t"})
}

func TestTimersFireWhenTimeMoves(t *testing.T) {
	minute := time.UnixMicro(60_000_000).UTC()
	harness := New(sluicebox.Each(func(event *sluicebox.Event, out *sluicebox.Output) error {
		if name, ok := event.Timer(); ok {
			out.EmitText(event, name+event.Time().Format(time.TimeOnly))
			return nil
		}
		return event.SetTimer("close", sluicebox.EventTime, minute)
	}))
	harness.Send("k", "")
	is(t, len(harness.AdvanceWatermark(minute.Add(-time.Microsecond)).Outputs), 0)
	is(t, harness.AdvanceWatermark(minute).Texts(), []string{"close00:01:00"})
	is(t, len(harness.AdvanceWatermark(minute).Outputs), 0)
}

func sum(events iter.Seq[*sluicebox.Event], out *sluicebox.StreamOutput) error {
	total := 0
	for event := range events {
		if string(event.Payload) == "enough" {
			break
		}
		var value int
		if err := event.JSON(&value); err != nil {
			return err
		}
		if value < 0 {
			out.Fail(errors.New("negative"))
			continue
		}
		total += value
	}
	out.EmitJSON(total)
	return nil
}

func TestAStreamGoesOnFromCallToCall(t *testing.T) {
	harness := New(sluicebox.Stream(sum))
	opened := harness.Handle(
		Input{Kind: sluicebox.Open, Key: "k"}, Input{Key: "k", Payload: []byte("1")},
	)
	is(t, len(opened.Outputs), 0)
	is(t, len(harness.Send("k", "-5").Failures), 1)
	harness.Send("k", "2")
	is(t, harness.End("k").Texts(), []string{"3"})
	harness.Open("k")
	harness.Send("k", "7")
	is(t, harness.End("k").Texts(), []string{"7"})
}

func TestAStreamThatFailedFailsWhatFollows(t *testing.T) {
	harness := New(sluicebox.Stream(sum))
	result := harness.Handle(Input{Kind: sluicebox.Open, Key: "k"},
		Input{Key: "k", Payload: []byte("x")}, Input{Key: "k", Payload: []byte("1")})
	is(t, len(result.Failures), 2)
	is(t, result.Failures[0].Event, 1)
	later := harness.Send("k", "1").Failures
	is(t, strings.HasPrefix(later[0].Err.Error(), "the stream function failed before: "), true)
}

func TestAStreamThatHasSeenEnoughIgnoresTheRest(t *testing.T) {
	harness := New(sluicebox.Stream(sum))
	harness.Open("k")
	is(t, harness.Send("k", "enough").Texts(), []string{"0"})
	later := harness.Send("k", "x")
	is(t, len(later.Failures)+len(later.Outputs), 0)
}

func TestAStreamFunctionNeedsItsScope(t *testing.T) {
	harness := New(sluicebox.Stream(sum))
	harness.Open("k")
	is(t, len(harness.Send("other", "1").Failures), 1)
}

func TestAnEventOfAnEarlierCallIsNoCause(t *testing.T) {
	var first *sluicebox.Event
	harness := New(sluicebox.Each(func(event *sluicebox.Event, out *sluicebox.Output) error {
		if first == nil {
			first = event
		}
		out.Emit(first, nil)
		return nil
	}))
	harness.Send("k", "")
	defer func() { is(t, recover() != nil, true) }()
	harness.Send("k", "")
}

func TestTheRest(t *testing.T) {
	harness := New(sluicebox.Each(func(event *sluicebox.Event, out *sluicebox.Output) error {
		value, _ := sluicebox.Config("name")
		asset, _ := sluicebox.Asset("table")
		sluicebox.Infof("%s %d", value, len(asset))
		sluicebox.Count("seen", 2)
		sluicebox.Gauge("level", 0.5)
		_ = event.PutJSON("a1", 1)
		_ = event.Put("a2", nil)
		for _, entry := range event.Scan("a", 10) {
			out.EmitText(event, entry.Slot)
		}
		return event.Put("large", make([]byte, 100))
	}))
	harness.SetConfig("name", "value")
	harness.SetAsset("table", make([]byte, 3_000_000))
	is(t, harness.Send("k", "").Texts(), []string{"a1", "a2"})
	is(t, harness.Log(), []string{"value 3000000"})
	is(t, harness.Count("seen"), 2)
	is(t, harness.Gauge("level"), 0.5)
	harness.SetValueMax(99)
	is(t, len(harness.Send("k", "").Failures), 1)
}

func is[T any](t *testing.T, got, want T) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
