package window

import (
	"fmt"
	"sort"
	"time"

	"sluicebox"
)

const (
	firedMax = 64    // windows of a key that give their results in one call; the rest follow
	aheadMax = 1_024 // panes of a key that are read ahead
)

// work is the windows of one call, at work. Times here are counted in panes; a window is known by
// its end, the number of the pane behind it. A key waits for the end of one window: the first
// that is not over and has a pane. A window before it is over, or empty; if an event changes it,
// its result leaves at once.
type work[In, Kept, Out any] struct {
	Window
	aggregate Aggregate[In, Kept, Out]
	read      func(*sluicebox.Event) (In, error)
	emit      func(Closed[Out], sluicebox.Draft, func(sluicebox.Draft))
	out       *sluicebox.Output
	watermark uint64
	shelf     *shelf[Kept]
}

func (work *work[In, Kept, Out]) run() {
	work.readAhead()
	for _, event := range work.shelf.call.events {
		if err := work.handle(event); err != nil {
			work.out.Fail(event.Event, err)
		}
	}
	for _, index := range work.shelf.keys {
		if index.failed == nil {
			work.wake(index)
		}
	}
	work.shelf.close(work.aggregate.Encode)
}

// readAhead reads the panes of windows that will give a result in this call.
func (work *work[In, Kept, Out]) readAhead() {
	var wanted []paneOf
	for _, event := range work.shelf.call.events {
		index := work.shelf.keys[event.of]
		if index.failed != nil {
			continue
		}
		var first, end uint64
		if event.Kind == sluicebox.Timer {
			first = index.fire - min(index.fire, work.size)
			end = work.pane(work.watermarkAt(event.Event))
			if work.early > 0 {
				end += work.size
			}
		} else {
			pane := work.pane(work.time(event.Event))
			firstEnd := work.firstEnd(pane)
			if work.begins(firstEnd) > work.watermark {
				continue
			}
			first, end = firstEnd-work.size, work.lastEnd(pane)
		}
		near := index.between(first, end)
		for _, id := range near[:min(len(near), aheadMax)] {
			wanted = append(wanted, paneOf{event.of, id})
		}
	}
	if len(wanted) > 0 {
		work.shelf.fetch(wanted)
	}
}

// between are the panes from `first` to before `end`.
func (index *index[Kept]) between(first, end uint64) []uint64 {
	from := sort.Search(len(index.ids), func(i int) bool { return index.ids[i] >= first })
	to := sort.Search(len(index.ids), func(i int) bool { return index.ids[i] >= end })
	return index.ids[from:max(from, to)]
}

// The watermark at which a timer is handled: it fired, so the watermark has come that far.
func (work *work[In, Kept, Out]) watermarkAt(timer *sluicebox.Event) uint64 {
	return max(work.watermark, uint64(timer.Micros))
}

func (work *work[In, Kept, Out]) handle(event eventOf) error {
	index := work.shelf.keys[event.of]
	if index.failed != nil {
		return index.failed
	}
	if index.width == 0 {
		index.width, index.size = work.width, work.size
		index.slide, index.shift = work.slide, work.shift
	} else if index.width != work.width || index.size != work.size ||
		index.slide != work.slide || index.shift != work.shift {
		return fmt.Errorf("the windows %s were kept with another size or slide: name them anew, or "+
			"discard the state of the stage", work.name)
	}
	if event.Kind == sluicebox.Timer {
		return work.timer(event, index)
	}
	return work.data(event, index)
}

func (work *work[In, Kept, Out]) data(event eventOf, index *index[Kept]) error {
	at := work.time(event.Event)
	if at+(work.size+work.slide+1)*work.width+work.lateness >= timeEnd {
		return fmt.Errorf("the time %d is too close to 2^53, where time ends", at)
	}
	pane := work.pane(at)
	lastEnd := work.lastEnd(pane)
	if work.begins(lastEnd)+work.lateness <= work.watermark {
		return work.tooLate(event.Event, work.watermark, work.out)
	}
	if err := work.add(event, index, pane); err != nil {
		return err
	}
	for end := work.firstEnd(pane); end <= lastEnd; end += work.slide {
		if index.fire != 0 && end >= index.fire {
			break
		}
		endsAt := work.begins(end)
		if endsAt > work.watermark {
			index.fire = end
			break
		}
		if endsAt+work.lateness > work.watermark {
			if err := work.fire(event, end, Late); err != nil {
				return err
			}
		}
	}
	if work.early > 0 && work.begins(lastEnd) > work.watermark && index.early == 0 {
		index.early = min((work.watermark/work.early+1)*work.early, timeEnd-1)
	}
	return nil
}

// add adds an event to its pane.
func (work *work[In, Kept, Out]) add(event eventOf, index *index[Kept], id uint64) error {
	input, err := work.read(event.Event)
	if err != nil {
		return err
	}
	first := work.aggregate.First(input)
	pane, err := work.shelf.pane(event.of, id)
	if err != nil {
		return err
	}
	if pane != nil {
		pane.kept, pane.changed = work.aggregate.Merge(pane.kept, first), true
		return nil
	}
	if len(index.ids) >= work.panesMax {
		return fmt.Errorf("the windows %s of this key have %d panes already: raise PanesMax",
			work.name, work.panesMax)
	}
	index.insert(id, first)
	return nil
}

func (work *work[In, Kept, Out]) timer(event eventOf, index *index[Kept]) error {
	watermark := work.watermarkAt(event.Event)
	for left := firedMax; index.fire != 0 && work.begins(index.fire) <= watermark; left-- {
		if left == 0 {
			// The timer is set again, for a time that has come.
			return nil
		}
		if err := work.fire(event, index.fire, ""); err != nil {
			return err
		}
		index.fire = work.endBehind(index.fire, index.ids)
	}
	if err := work.fireEarly(event, index, watermark); err != nil {
		return err
	}
	over := sort.Search(len(index.ids), func(i int) bool {
		return work.begins(work.lastEnd(index.ids[i]))+work.lateness > watermark
	})
	index.removeFirst(over)
	return nil
}

// endBehind is the end of the first window behind the one that ends at `after` in which one of
// these panes is; 0 if there is none.
func (work *work[In, Kept, Out]) endBehind(after uint64, ids []uint64) uint64 {
	first := sort.Search(len(ids), func(i int) bool { return work.lastEnd(ids[i]) > after })
	if first == len(ids) {
		return 0
	}
	return max(work.firstEnd(ids[first]), after+work.slide)
}

// fireEarly lets windows that have begun and are not over give a result, if it is time.
func (work *work[In, Kept, Out]) fireEarly(
	event eventOf, index *index[Kept], watermark uint64,
) error {
	if index.early == 0 || index.early > watermark {
		return nil
	}
	index.early = 0
	end := index.fire
	for end != 0 && work.begins(end-work.size) < watermark {
		if err := work.fire(event, end, Early); err != nil {
			return err
		}
		end = work.endBehind(end, index.ids)
	}
	return nil
}

// fire emits the result of the window with this end, if there is anything in it.
func (work *work[In, Kept, Out]) fire(event eventOf, end uint64, firing Firing) error {
	first := end - work.size
	var all Kept
	found := false
	for _, id := range work.shelf.keys[event.of].between(first, end) {
		pane, err := work.shelf.pane(event.of, id)
		if err != nil {
			return err
		}
		if pane == nil {
			continue
		}
		kept, err := work.copied(pane.kept)
		if err != nil {
			return err
		}
		if found {
			kept = work.aggregate.Merge(all, kept)
		}
		all, found = kept, true
	}
	if !found {
		return nil
	}
	start, over := int64(work.begins(first)), int64(work.begins(end))
	result := Closed[Out]{event.Key, start, over, firing, work.aggregate.Output(all)}
	draft := sluicebox.Draft{Time: time.UnixMicro(over - 1)}
	work.emit(result, draft, func(draft sluicebox.Draft) { work.out.Send(event.Event, draft) })
	return nil
}

// copied is another of the same. A result is made of copies: Merge may change what it is given and
// may give back either, and Output may change it too, but the pane is kept as it is.
func (work *work[In, Kept, Out]) copied(kept Kept) (Kept, error) {
	other, err := work.aggregate.Decode(work.aggregate.Encode(nil, kept))
	if err != nil {
		err = fmt.Errorf("what the windows %s keep is not read as it was written: %w", work.name, err)
	}
	return other, err
}

// wake says when a key is to be woken: for its next result, an early one, or to let panes go.
func (work *work[In, Kept, Out]) wake(index *index[Kept]) {
	index.wakes = 0
	earliest := func(at uint64) {
		if index.wakes == 0 || at < index.wakes {
			index.wakes = at
		}
	}
	if len(index.ids) > 0 {
		earliest(work.begins(work.lastEnd(index.ids[0])) + work.lateness)
	}
	if index.fire != 0 {
		earliest(work.begins(index.fire))
	}
	if index.early != 0 {
		earliest(index.early)
	}
}
