package window

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"time"

	"sluicebox"
)

// keyOf is one key of a call.
type keyOf struct {
	event  *sluicebox.Event // its first event, by which the host knows the key
	events int
	fired  bool // its timer fired in this call, so that it is not set any more
}

type eventOf struct {
	*sluicebox.Event
	of int
}

// calls is the events of a call that windows take, and their keys in the order of first events.
type calls struct {
	events []eventOf
	keys   []keyOf
}

func callOf(window Window, events []*sluicebox.Event) *calls {
	call := &calls{}
	places := map[string]int{}
	for _, event := range events {
		if !window.takes(event) {
			continue
		}
		place, ok := places[event.Key]
		if !ok {
			place = len(call.keys)
			places[event.Key] = place
			call.keys = append(call.keys, keyOf{event: event})
		}
		call.keys[place].events++
		call.keys[place].fired = call.keys[place].fired || event.Kind == sluicebox.Timer
		call.events = append(call.events, eventOf{event, place})
	}
	return call
}

// refuse fails all events of a key: what the host says concerns them together. If there are
// several the host is to try each alone, and finds the one that is too much.
func (call *calls) refuse(key int, err error, out *sluicebox.Output) {
	if call.keys[key].events > 1 {
		err = sluicebox.Retry(err)
	}
	for _, event := range call.events {
		if event.of == key {
			out.Fail(event.Event, err)
		}
	}
}

// notes are what is noted of a key beside its panes.
type notes struct {
	// What the panes were made with; 0 before there are any.
	width, size, slide, shift uint64
	// End of the next window to give its result; 0 if there is none.
	fire uint64
	// When open windows give results; 0 if nothing came since they last did.
	early uint64
}

// index is what is known of a key: the slot "@name", which lists the panes there are.
type index[Kept any] struct {
	notes
	ids    []uint64 // of panes, ascending
	wakes  uint64   // when it is to be woken; 0: not at all
	before []byte   // its bytes in the host
	set    uint64   // when its timer is set for in the host; 0: not at all
	panes  map[uint64]*pane[Kept]
	failed error // it could not be read
}

// pane is a pane that was read or made in this call: the slot "@name/1f".
type pane[Kept any] struct {
	kept    Kept
	there   bool
	stored  bool
	changed bool
}

// shelf is the panes of all keys of a call. They are read in one batch and written in another; a
// pane that was not read before it is needed is read then, alone.
type shelf[Kept any] struct {
	window Window
	call   *calls
	slot   string
	decode func([]byte) (Kept, error)
	keys   []*index[Kept]
	out    *sluicebox.Output
}

type paneOf struct {
	key int
	id  uint64
}

func comparePanes(a, b paneOf) int {
	if a.key != b.key {
		return a.key - b.key
	}
	switch {
	case a.id < b.id:
		return -1
	case a.id > b.id:
		return 1
	}
	return 0
}

func openShelf[Kept any](
	window Window, call *calls, decode func([]byte) (Kept, error), out *sluicebox.Output,
) *shelf[Kept] {
	shelf := &shelf[Kept]{
		window: window, call: call, slot: "@" + window.name, decode: decode, out: out,
	}
	var guessed []paneOf
	for _, event := range call.events {
		if event.Kind == sluicebox.Data {
			guessed = append(guessed, paneOf{event.of, window.pane(window.time(event.Event))})
		}
	}
	slices.SortFunc(guessed, comparePanes)
	guessed = slices.Compact(guessed)
	// All of a key one behind the other, so that the host looks it up once.
	var batch sluicebox.Batch
	rest := guessed
	for key := range call.keys {
		batch.Get(call.keys[key].event, shelf.slot)
		for len(rest) > 0 && rest[0].key == key {
			batch.Get(call.keys[key].event, shelf.paneSlot(rest[0].id))
			rest = rest[1:]
		}
	}
	replies := batch.Run()
	for key := range call.keys {
		index := shelf.read(key, replies[0])
		replies = replies[1:]
		for len(guessed) > 0 && guessed[0].key == key {
			shelf.take(index, guessed[0].id, replies[0])
			guessed, replies = guessed[1:], replies[1:]
		}
		shelf.keys = append(shelf.keys, index)
	}
	return shelf
}

func (shelf *shelf[Kept]) paneSlot(id uint64) string {
	return shelf.slot + "/" + strconv.FormatUint(id, 16)
}

func (shelf *shelf[Kept]) unreadable() error {
	return fmt.Errorf("the slot %s holds what was kept in another form: name the windows anew, or "+
		"discard the state of the stage", shelf.slot)
}

// read is what the host has of a key.
func (shelf *shelf[Kept]) read(key int, reply sluicebox.Reply) *index[Kept] {
	index := &index[Kept]{panes: map[uint64]*pane[Kept]{}}
	if err := reply.Err(); err != nil {
		shelf.call.refuse(key, err, shelf.out)
		index.failed = err
		return index
	}
	value, ok := reply.Value()
	if !ok {
		return index
	}
	rest := reader{bytes: value}
	if rest.number() == 1 {
		index.wakes = rest.number()
	}
	index.width, index.size = rest.number(), rest.number()
	index.slide, index.shift = rest.number(), rest.number()
	index.fire, index.early = rest.number(), rest.number()
	last := uint64(0)
	for range rest.number() {
		if rest.bad {
			break
		}
		last += rest.number()
		index.ids = append(index.ids, last)
	}
	if rest.bad || len(rest.bytes) > 0 || index.width == 0 {
		index.failed = shelf.unreadable()
	}
	index.before, index.set = value, index.wakes
	return index
}

func (index *index[Kept]) bytes() []byte {
	var bytes []byte
	if index.wakes == 0 {
		bytes = append(bytes, 0)
	} else {
		bytes = binary.AppendUvarint(append(bytes, 1), index.wakes)
	}
	for _, number := range [...]uint64{
		index.width, index.size, index.slide, index.shift, index.fire, index.early,
		uint64(len(index.ids)),
	} {
		bytes = binary.AppendUvarint(bytes, number)
	}
	last := uint64(0)
	for _, id := range index.ids {
		bytes = binary.AppendUvarint(bytes, id-last)
		last = id
	}
	return bytes
}

func (index *index[Kept]) lists(id uint64) bool {
	_, found := slices.BinarySearch(index.ids, id)
	return found
}

// take takes what the host said of a pane. One that the index does not list is not there.
func (shelf *shelf[Kept]) take(index *index[Kept], id uint64, reply sluicebox.Reply) {
	value, stored := reply.Value()
	pane := &pane[Kept]{stored: stored}
	if stored && index.lists(id) {
		kept, err := shelf.decode(value)
		if err != nil {
			index.failed = shelf.unreadable()
			return
		}
		pane.kept, pane.there = kept, true
	}
	index.panes[id] = pane
}

// fetch reads panes that are listed and not yet read.
func (shelf *shelf[Kept]) fetch(wanted []paneOf) {
	slices.SortFunc(wanted, comparePanes)
	wanted = slices.DeleteFunc(slices.Compact(wanted), func(one paneOf) bool {
		index := shelf.keys[one.key]
		return index.failed != nil || index.panes[one.id] != nil || !index.lists(one.id)
	})
	var batch sluicebox.Batch
	for _, one := range wanted {
		batch.Get(shelf.call.keys[one.key].event, shelf.paneSlot(one.id))
	}
	for i, reply := range batch.Run() {
		shelf.take(shelf.keys[wanted[i].key], wanted[i].id, reply)
	}
}

// pane is a pane that is listed and there; nil if there is none.
func (shelf *shelf[Kept]) pane(key int, id uint64) (*pane[Kept], error) {
	index := shelf.keys[key]
	if index.panes[id] == nil && index.lists(id) {
		shelf.fetch([]paneOf{{key, id}})
	}
	if pane := index.panes[id]; pane != nil && pane.there {
		return pane, index.failed
	}
	return nil, index.failed
}

// insert makes a pane that is not listed.
func (index *index[Kept]) insert(id uint64, kept Kept) {
	if place, found := slices.BinarySearch(index.ids, id); !found {
		index.ids = slices.Insert(index.ids, place, id)
	}
	before := index.panes[id]
	stored := before != nil && before.stored
	index.panes[id] = &pane[Kept]{kept: kept, there: true, stored: stored, changed: true}
}

// removeFirst removes the first panes of a key.
func (index *index[Kept]) removeFirst(count int) {
	for _, id := range index.ids[:count] {
		// A pane that was made in this call has nothing to be deleted.
		before := index.panes[id]
		stored := before == nil || before.stored
		index.panes[id] = &pane[Kept]{stored: stored, changed: true}
	}
	index.ids = slices.Delete(index.ids, 0, count)
}

// close has the host write all that changed.
func (shelf *shelf[Kept]) close(encode func([]byte, Kept) []byte) {
	var batch sluicebox.Batch
	var asked []int
	for key, index := range shelf.keys {
		if index.failed != nil {
			continue
		}
		shelf.write(key, index, encode, &batch)
		for len(asked) < batch.Len() {
			asked = append(asked, key)
		}
	}
	for i, reply := range batch.Run() {
		if err := reply.Err(); err != nil {
			shelf.call.refuse(asked[i], err, shelf.out)
		}
	}
}

func (shelf *shelf[Kept]) write(
	key int, index *index[Kept], encode func([]byte, Kept) []byte, batch *sluicebox.Batch,
) {
	event := shelf.call.keys[key].event
	changed := make([]uint64, 0, len(index.panes))
	for id, pane := range index.panes {
		if pane.changed {
			changed = append(changed, id)
		}
	}
	// In one order, so that the same call always writes the same.
	slices.Sort(changed)
	for _, id := range changed {
		pane := index.panes[id]
		switch {
		case pane.there:
			batch.Put(event, shelf.paneSlot(id), encode(nil, pane.kept))
		case pane.stored:
			batch.Delete(event, shelf.paneSlot(id))
		}
	}
	empty := len(index.ids) == 0
	if empty {
		index.wakes = 0
		if index.before != nil {
			batch.Delete(event, shelf.slot)
		}
	} else if now := index.bytes(); !bytes.Equal(now, index.before) {
		batch.Put(event, shelf.slot, now)
	}
	set := index.set
	if shelf.call.keys[key].fired {
		set = 0
	}
	switch {
	case set == index.wakes:
	case index.wakes == 0:
		batch.CancelTimer(event, shelf.slot)
	default:
		at := time.UnixMicro(int64(index.wakes))
		batch.SetTimer(event, shelf.slot, shelf.window.clock, at)
	}
}
