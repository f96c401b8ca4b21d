"""What windows are made of: a call's events by key, when an event is late, and slots that are read
in one call of the host and written in another.

- A call of 256 events costs two calls of the host, however many keys it has: one batch reads what
  the keys have, one writes what changed. Firing a window may need another, for its panes.
- Every key has at most one timer for each routine, set for the earliest thing it waits for.
- Slots and timers of a routine are named `@name` and `@name/…`; a stage that keeps slots of its
  own does not begin their names with `@`.
- What the host refuses fails the events that wanted it. Nothing is lost silently: an event is
  counted, goes to the late port, or fails.
"""

import bisect
import copy
import json
from contextlib import contextmanager

from . import _host
from ._frame import TIME_END
from .event import write_json
from .failure import RETRY, Reject
from .state import Clock, StateBatch

_NAME_BYTES_MAX = 32
_DROPPED = "late_events_dropped"
# Fields below this id are the host's, which writes them itself.
_FIELD_OF_ANYONE = 256


class Terms:
    """What every routine can be told."""

    def __init__(
        self, name, *, lateness=0, late_port=None, drop_late=False, by_clock=False, only=None
    ):
        if not 0 < len(name.encode()) <= _NAME_BYTES_MAX or "/" in name:
            raise ValueError("the name of a routine is 1 to 32 bytes long, without `/`")
        self.name, self.slot, self.lateness = name, f"@{name}", lateness
        self.late_port, self.drop_late, self.only = late_port, drop_late, only
        self.clock = Clock.WALL if by_clock else Clock.EVENT

    def time(self, event):
        """The time an event counts at."""
        return event.time if self.clock == Clock.EVENT else _host.now()

    def watermark(self):
        """The time before which nothing is expected any more."""
        return _host.watermark() if self.clock == Clock.EVENT else _host.now()

    def takes(self, event):
        """Whether the routine takes this event: its own timers, and data that passes the filter."""
        kind = event.kind
        if kind == "timer":
            return event.timer == self.slot
        return kind == "data" and (self.only is None or self.only(event))

    def too_late(self, event, behind):
        """Sends an event that is too late where the stage says."""
        if self.late_port is not None:
            fields = [(number, v) for number, v in event.fields() if number >= _FIELD_OF_ANYONE]
            event.emit(event.payload, port=self.late_port, fields=fields)
        elif self.drop_late:
            _host.metrics_count(_DROPPED, 1)
        else:
            raise Reject(
                f"{self.name}: too late, at {self.time(event)} with the watermark at {behind}; "
                "allow more lateness or give late events a port"
            )


def check_time(time, reach):
    """Checks that nothing an event at `time` leads to lies behind the end of time."""
    if time + reach >= TIME_END:
        raise Reject(f"the time {time} is too close to 2^53, where time ends")


def _unreadable(slot):
    return Reject(
        f"the slot {slot} holds what was kept in another form: name the routine anew, or discard "
        "the state of the stage"
    )


class _Key:
    """One key of a call: its first event, by which the host knows it, and all of them."""

    def __init__(self, event):
        self.event, self.events, self.fired = event, [], False


class _Call:
    """The events of a call that a routine takes, and their keys in the order of first events."""

    def __init__(self):
        self.events, self.keys = [], []

    def refuse(self, key, refused):
        """Fails all events of a key: what the host says concerns them together. If there are
        several the host is to try each alone, and finds the one that is too much."""
        events = self.keys[key].events
        for event in events:
            event._call.fail(event.index, refused, None if len(events) == 1 else RETRY)


def of_call(events, takes):
    """The events that `takes` lets through; what it raises fails the event."""
    call, places = _Call(), {}
    for event in events:
        try:
            if not takes(event):
                continue
        except MemoryError:
            raise
        except Exception as error:
            event.fail(error)
            continue
        place = places.setdefault(event.key, len(call.keys))
        if place == len(call.keys):
            call.keys.append(_Key(event))
        key = call.keys[place]
        key.events.append(event)
        key.fired |= event.kind == "timer"
        call.events.append((event, place))
    return call


class _Writes:
    """Writes of many keys, and which key asked for which."""

    def __init__(self, call):
        self._call, self._batch, self._asked = call, StateBatch(), []

    def put(self, key, slot, value):
        self._batch.put(self._call.keys[key].event, slot, value)
        self._asked.append(key)

    def delete(self, key, slot):
        self._batch.delete(self._call.keys[key].event, slot)
        self._asked.append(key)

    def timer(self, terms, key, was, wanted):
        """Sets the timer of a key from what it is set for to what is wanted."""
        of = self._call.keys[key]
        if (None if of.fired else was) == wanted:
            return
        if wanted is None:
            self._batch.cancel_timer(of.event, terms.slot)
        else:
            self._batch.set_timer(of.event, terms.slot, wanted, terms.clock)
        self._asked.append(key)

    def done(self):
        for key, reply in zip(self._asked, self._batch.run(refused=True)):
            if isinstance(reply, _host.Refused):
                self._call.refuse(key, reply)


class Cells:
    """One slot a key: read for all keys at once, changed in memory, written at once.

    A cell that is empty has no slot and no timer. Nothing is written that did not change.
    """

    def __init__(self, terms, call, make):
        self._terms, self._call = terms, call
        batch = StateBatch()
        for key in call.keys:
            batch.get(key.event, terms.slot)
        self._cells = []
        for place, before in enumerate(batch.run(refused=True)):
            self._cells.append(self._read(place, before, make))

    def _read(self, place, before, make):
        if isinstance(before, _host.Refused):
            self._call.refuse(place, before)
            return None
        if before is None:
            return {"before": None, "wakes": None, "cell": make()}
        try:
            kept = json.loads(before)
            return {"before": before, "wakes": kept["wakes"], "cell": kept["cell"]}
        except (ValueError, TypeError, KeyError):
            return None

    @contextmanager
    def of(self, event, key):
        """The cell of an event's key; an exception fails the event, and the cell is as before."""
        loaded = self._cells[key]
        try:
            if loaded is None:
                raise _unreadable(self._terms.slot)
            cell = copy.deepcopy(loaded["cell"])
            yield cell
            loaded["cell"] = cell
        except MemoryError:
            raise
        except Exception as error:
            event.fail(error)

    def close(self, is_empty, wakes):
        """Has the host write what changed."""
        writes, slot = _Writes(self._call), self._terms.slot
        for key, loaded in enumerate(self._cells):
            if loaded is None:
                continue
            cell, before = loaded["cell"], loaded["before"]
            empty = is_empty(cell)
            wanted = None if empty else wakes(cell)
            if empty and before is not None:
                writes.delete(key, slot)
            elif not empty:
                value = write_json({"wakes": wanted, "cell": cell})
                if value != before:
                    writes.put(key, slot, value)
            writes.timer(self._terms, key, loaded["wakes"], wanted)
        writes.done()


class _Index:
    """What is known of one key: what the routine notes, and which panes there are."""

    def __init__(self, key, before=None):
        self.key, self.before = key, before
        kept = {} if before is None else json.loads(before)
        self.notes, self.ids = kept.get("notes", {}), kept.get("panes", [])
        self.wakes = self.was = kept.get("wakes")
        # Panes that were read or made in this call, and those of them that changed.
        self.panes, self.stored, self.changed = {}, set(), set()

    def lists(self, pane):
        at = bisect.bisect_left(self.ids, pane)
        return at < len(self.ids) and self.ids[at] == pane


class Shelf:
    """A slot for each span of time of a key: panes, and an index that lists them.

        @name            index: when to wake, what the routine notes, numbers of panes, ascending
        @name/1f         the pane with the number 0x1f

    An event touches its own pane and the index; other panes are neither read nor written. The
    index is the truth: a pane it does not list is not there. Without panes there is no index, and
    no timer.
    """

    def __init__(self, terms, call, guess):
        self._terms, self._call, self._indices = terms, call, []
        batch, guessed = StateBatch(), []
        for key in call.keys:
            panes = sorted({pane for event in key.events for pane in guess(event)})
            guessed.append(panes)
            batch.get(key.event, terms.slot)
            for pane in panes:
                batch.get(key.event, self._slot(pane))
        replies = iter(batch.run(refused=True))
        for place, panes in enumerate(guessed):
            index = self._read(place, next(replies))
            self._indices.append(index)
            for pane in panes:
                self._take(place, pane, next(replies))

    def _slot(self, pane):
        return f"{self._terms.slot}/{pane:x}"

    def _read(self, place, before):
        if isinstance(before, _host.Refused):
            self._call.refuse(place, before)
            return None
        try:
            return _Index(place, before)
        except (ValueError, AttributeError):
            return None

    def _take(self, place, pane, value):
        """Takes what the host said of a pane."""
        index = self._indices[place]
        if index is None or isinstance(value, _host.Refused):
            return
        if value is not None:
            index.stored.add(pane)
        try:
            listed = value is not None and index.lists(pane)
            index.panes[pane] = json.loads(value) if listed else None
        except ValueError:
            self._indices[place] = None

    def fetch(self, wanted):
        """Reads panes that are listed and not yet read, as far as they are: key and number."""
        batch, asked = StateBatch(), []
        for key, pane in sorted(set(wanted)):
            index = self._indices[key]
            if index is not None and index.lists(pane) and pane not in index.panes:
                batch.get(self._call.keys[key].event, self._slot(pane))
                asked.append((key, pane))
        for (key, pane), value in zip(asked, batch.run(refused=True)):
            self._take(key, pane, value)

    def known(self, key):
        """What is known of a key; None if it could not be read."""
        return self._indices[key]

    def index(self, key):
        """What is known of a key; raises if it could not be read."""
        index = self._indices[key]
        if index is None:
            raise _unreadable(self._terms.slot)
        return index

    def readable(self):
        """All keys that could be read."""
        return [index for index in self._indices if index is not None]

    def pane(self, index, pane):
        """What a pane holds; None if there is none."""
        if index.lists(pane) and pane not in index.panes:
            self.fetch([(index.key, pane)])
        self.index(index.key)
        return index.panes.get(pane)

    def put(self, index, pane, kept):
        """Sets a pane."""
        if not index.lists(pane):
            bisect.insort(index.ids, pane)
        index.panes[pane] = kept
        index.changed.add(pane)

    def remove(self, index, panes):
        """Removes panes."""
        for pane in panes:
            index.ids.remove(pane)
            if pane not in index.panes:
                index.stored.add(pane)
            index.panes[pane] = None
            index.changed.add(pane)

    def close(self):
        """Has the host write what changed."""
        writes = _Writes(self._call)
        for index in self.readable():
            self._write(index, writes)
        writes.done()

    def _write(self, index, writes):
        for pane in sorted(index.changed):
            kept = index.panes[pane]
            if kept is not None:
                writes.put(index.key, self._slot(pane), write_json(kept))
            elif pane in index.stored:
                writes.delete(index.key, self._slot(pane))
        wanted = index.wakes if index.ids else None
        if index.ids:
            kept = {"wakes": wanted, "notes": index.notes, "panes": index.ids}
            value = write_json(kept)
            if value != index.before:
                writes.put(index.key, self._terms.slot, value)
        elif index.before is not None:
            writes.delete(index.key, self._terms.slot)
        writes.timer(self._terms, index.key, index.was, wanted)
