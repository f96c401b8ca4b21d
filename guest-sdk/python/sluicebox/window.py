"""Windows: what came within a span of time, or how much of it, as one result.

    from datetime import timedelta
    from sluicebox import batch
    from sluicebox.window import Sum, Window

    hourly = Window.tumbling(timedelta(hours=1), late_port=1)
    revenue = hourly.aggregate(Sum(), lambda event: event.json()["cents"])

    @batch
    def stage(events):
        revenue.run(events)

A window is of one key. Its result leaves when the watermark has passed its end: by port 0, as
`{"key": "shop 7", "start": …, "end": …, "value": …}`, with the last microsecond of the window as
its time, so that windows of windows nest. It means what windows of the SDK for Rust mean, late
events, early results and bounds included: docs/guide/windows.md of the project.

What is kept lies in slots that begin with `@` and the name, as JSON. It is not what the SDK for
Rust keeps: a stage that is written anew in another language names its windows anew.
"""

import bisect
import copy
import math
from datetime import timedelta

from ._frame import TIME_END
from ._keyed import Cells, Shelf, Terms, check_time, of_call
from .event import write_json
from .failure import Reject

_PANES_A_WINDOW_MAX = 1_024
# Windows of a key that give their results in one call; the rest follow in the next.
_FIRED_MAX = 64


def _micros(time):
    if isinstance(time, timedelta):
        time = time // timedelta(microseconds=1)
    if not 0 <= time < TIME_END:
        raise ValueError(f"{time} microseconds are no length of time below 2^53")
    return time


class Aggregate:
    """What is made of the events of a window. What is kept of them has to be JSON.

    Of your own: `first` gives what is kept of one input, `merge` what is kept of two, the earlier
    one first, and `output` the result.
    """

    def first(self, value):
        """What is kept of one input."""
        return value

    def merge(self, kept, later):
        """What is kept of both; may change `kept`."""
        raise NotImplementedError

    def add(self, kept, value):
        """What is kept with one more input."""
        return self.merge(kept, self.first(value))

    def output(self, kept):
        """The result."""
        return kept


class Count(Aggregate):
    """How many events there were, whatever was read of them."""

    def first(self, value):
        return 1

    def merge(self, kept, later):
        return kept + later


class Sum(Aggregate):
    """The sum of numbers."""

    def merge(self, kept, later):
        return kept + later


class Min(Aggregate):
    """The least; of equals the first."""

    def merge(self, kept, later):
        return later if later < kept else kept


class Max(Aggregate):
    """The greatest; of equals the first."""

    def merge(self, kept, later):
        return later if later > kept else kept


class Mean(Aggregate):
    """The mean of numbers."""

    def first(self, value):
        return [value, 1]

    def merge(self, kept, later):
        return [kept[0] + later[0], kept[1] + later[1]]

    def output(self, kept):
        return kept[0] / kept[1]


class Distinct(Aggregate):
    """How many different values there were, exactly up to `most`: `{"count": …, "exact": …}`."""

    def __init__(self, most):
        if most < 1:
            raise ValueError("at least one value is told from none")
        self.most = most

    def first(self, value):
        return [[value], False]

    def merge(self, kept, later):
        values = sorted({*kept[0], *later[0]})
        return [values[: self.most], kept[1] or later[1] or len(values) > self.most]

    def output(self, kept):
        return {"count": len(kept[0]), "exact": not kept[1]}


class Top(Aggregate):
    """The `most` items with the greatest scores, best first; of equals the first to come.

    Its input is a pair of score and item, its result a list of `{"score": …, "item": …}`.
    """

    def __init__(self, most):
        self.most = most

    def first(self, value):
        return [list(value)]

    def merge(self, kept, later):
        return sorted(kept + later, key=lambda one: one[0], reverse=True)[: self.most]

    def output(self, kept):
        return [{"score": score, "item": item} for score, item in kept]


class Pair(Aggregate):
    """Two aggregates; inputs, and results, are pairs."""

    def __init__(self, one, other):
        self.both = (one, other)

    def first(self, value):
        return [of.first(part) for of, part in zip(self.both, value)]

    def merge(self, kept, later):
        return [of.merge(one, two) for of, one, two in zip(self.both, kept, later)]

    def output(self, kept):
        return [of.output(one) for of, one in zip(self.both, kept)]


class Window:
    """Which events belong together. Made once, for the module; lengths are `timedelta`s.

    All take these options: `name`, two in one stage have two; `allowed_lateness`, for how long
    behind the watermark an event still counts; `late_port`, by which later ones leave, or
    `drop_late=True`, and without either they fail; `by_clock=True` to go by the clock;
    `only`, a function that says which events of kind data to take; `panes_max`, the most panes or
    sessions of a key, 1,024 if it is not said; `early_every`, how often open windows give a result.
    """

    def __init__(self, shape, *, early_every=None, panes_max=1_024, **options):
        self.shape = shape
        self.early = 0 if early_every is None else _micros(early_every)
        if early_every is not None and (self.early == 0 or isinstance(shape, _Filled)):
            raise ValueError("early results are a microsecond apart, and none are of a count")
        self.panes_max = panes_max
        lateness = _micros(options.pop("allowed_lateness", 0))
        self.terms = Terms(options.pop("name", "window"), lateness=lateness, **options)

    @classmethod
    def tumbling(cls, size, **options):
        """Windows of this size, one behind the other, beginning at multiples of it since 1970.

        `shifted` lets them begin so much later: `timedelta(hours=23)` for days of UTC+1.
        """
        return cls.sliding(size, size, **options)

    @classmethod
    def sliding(cls, size, slide, *, shifted=0, **options):
        """Windows of this size, of which one begins each `slide`."""
        return cls(_Slices(_micros(size), _micros(slide), _micros(shifted)), **options)

    @classmethod
    def session(cls, gap, **options):
        """Sessions: events that follow each other by less than `gap`."""
        gap = _micros(gap)
        if gap == 0:
            raise ValueError("the gap of sessions is at least a microsecond")
        return cls(_Sessions(gap), **options)

    @classmethod
    def count(cls, events, *, or_after=None, **options):
        """Windows of so many events as they come.

        `or_after` this time one ends that is not full.
        """
        if events < 1 or (or_after is not None and _micros(or_after) == 0):
            raise ValueError("a window is of at least one event, and open for a microsecond")
        return cls(_Filled(events, 0 if or_after is None else _micros(or_after)), **options)

    def aggregate(self, aggregate, read=lambda event: None):
        """Says what is made of a window's events: of what `read` takes from each."""
        return Aggregated(self, aggregate, read)


class Aggregated:
    """Windows with what is made of them. Made by `Window.aggregate`."""

    def __init__(self, window, aggregate, read):
        self.window, self.aggregate, self.read = window, aggregate, read

    def run(self, events, emit=None):
        """Takes the events of a call.

        Each result is emitted as JSON by port 0. Or `emit(result, event, time)` is called with it,
        a dict, and says by `event.emit(…, time=time)` what leaves.
        """
        terms = self.window.terms
        call = of_call(events, terms.takes)
        if call.events:
            self.window.shape.run(_Job(self, emit, terms.watermark()), call)


class _Job:
    """A run of windows over one call."""

    def __init__(self, aggregated, emit, watermark):
        self.window, self.terms = aggregated.window, aggregated.window.terms
        self.aggregate, self.read = aggregated.aggregate, aggregated.read
        self.watermark = watermark
        self._emit = emit

    def emit(self, event, start, end, firing, kept, replaces=()):
        """Emits the result of a window because of an event."""
        result = {"key": event.key, "start": start, "end": end}
        if firing != "on-time":
            result["firing"] = firing
        if replaces:
            result["replaces"] = list(replaces)
        result["value"] = self.aggregate.output(kept)
        if self._emit is None:
            event.emit(write_json(result), time=end - 1)
        else:
            self._emit(result, event, end - 1)

    def next_early(self):
        early = self.window.early
        return min((self.watermark // early + 1) * early, TIME_END - 1)

    def watermark_at(self, timer):
        """The watermark at which a timer is handled: it fired, so it has come that far."""
        return max(self.watermark, timer.time)


class _Slices:
    """Tumbling and sliding windows, put together from panes.

        size 6, slide 4      panes of 2:   0 1 2 3 4 5 6 7
                             windows:      └─────┘ (ends at 3)
                                               └─────┘ (ends at 5)
                                                   └─────┘ (ends at 7)

    Times are counted in panes: a pane's id is its number, a window is known by the number of the
    pane behind it, its end. A key waits for the end of one window, `fire`: the first that is not
    over and has a pane. One before it is over or empty; if an event changes it, its result leaves
    at once.
    """

    def __init__(self, size, slide, shifted):
        if not 0 < slide <= size:
            raise ValueError("the slide of windows is from a microsecond to their size")
        self.width = math.gcd(size, slide)
        self.size, self.slide = size // self.width, slide // self.width
        self.shift = -shifted % slide
        if self.size > _PANES_A_WINDOW_MAX:
            raise ValueError("a window has at most 1,024 panes")
        self.cut = [self.width, self.size, self.slide, self.shift]

    def pane(self, time):
        return (time + self.shift) // self.width

    def time(self, pane):
        return max(pane * self.width - self.shift, 0)

    def first_end(self, pane):
        """The end of the first window a pane is in."""
        behind = max(pane + 1 - self.size, 0)
        return -(-behind // self.slide) * self.slide + self.size

    def last_end(self, pane):
        """The end of the last window a pane is in."""
        return pane // self.slide * self.slide + self.size

    def end_behind(self, after, panes):
        """The end of the first window behind `after` in which one of these panes is."""
        first = bisect.bisect_right(panes, after, key=self.last_end)
        if first == len(panes):
            return 0
        return max(self.first_end(panes[first]), after + self.slide)

    def run(self, job, call):
        def own_panes(event):
            return [] if event.kind == "timer" else [self.pane(job.terms.time(event))]

        shelf = Shelf(job.terms, call, own_panes)
        self._read_ahead(job, call, shelf)
        for event, key in call.events:
            try:
                index = shelf.index(key)
                had = index.notes.setdefault("cut", self.cut)
                if had != self.cut:
                    raise Reject(
                        f"the windows {job.terms.name} were kept with another size or slide: name "
                        "them anew, or discard the state of the stage"
                    )
                if event.kind == "timer":
                    self._timer(job, event, shelf, index)
                else:
                    self._data(job, event, shelf, index)
            except MemoryError:
                raise
            except Exception as error:
                event.fail(error)
        for index in shelf.readable():
            self._wake(job, index)
        shelf.close()

    def _read_ahead(self, job, call, shelf):
        """Reads the panes of windows that will give a result in this call."""
        wanted = []
        for event, key in call.events:
            index = shelf.known(key)
            if index is None:
                continue
            if event.kind == "timer":
                first = index.notes.get("fire", 0) - self.size
                ahead = self.size if job.window.early else 0
                end = self.pane(job.watermark_at(event)) + ahead
            else:
                pane = self.pane(job.terms.time(event))
                if self.time(self.first_end(pane)) > job.watermark:
                    continue
                first, end = self.first_end(pane) - self.size, self.last_end(pane)
            near = index.ids[bisect.bisect_left(index.ids, first) :]
            wanted += [(key, pane) for pane in near[:_PANES_A_WINDOW_MAX] if pane < end]
        shelf.fetch(wanted)

    def _data(self, job, event, shelf, index):
        lateness, time = job.terms.lateness, job.terms.time(event)
        check_time(time, (self.size + self.slide + 1) * self.width + lateness)
        pane = self.pane(time)
        last_end = self.last_end(pane)
        if self.time(last_end) + lateness <= job.watermark:
            job.terms.too_late(event, job.watermark)
            return
        self._add(job, event, shelf, index, pane)
        notes = index.notes
        for end in range(self.first_end(pane), last_end + 1, self.slide):
            fire = notes.get("fire", 0)
            if fire and end >= fire:
                break
            if self.time(end) > job.watermark:
                notes["fire"] = end
                break
            if self.time(end) + lateness > job.watermark:
                self._fire(job, event, shelf, index, end, "late")
        if job.window.early and self.time(last_end) > job.watermark and not notes.get("early"):
            notes["early"] = job.next_early()

    def _add(self, job, event, shelf, index, pane):
        value = job.read(event)
        kept = shelf.pane(index, pane)
        if kept is not None:
            shelf.put(index, pane, job.aggregate.add(kept, value))
            return
        most = job.window.panes_max
        if len(index.ids) >= most:
            raise Reject(
                f"the windows {job.terms.name} of this key have {most} panes already: raise "
                "`panes_max`"
            )
        shelf.put(index, pane, job.aggregate.first(value))

    def _timer(self, job, event, shelf, index):
        watermark, notes, left = job.watermark_at(event), index.notes, _FIRED_MAX
        while (fire := notes.get("fire", 0)) and self.time(fire) <= watermark:
            if left == 0:
                # The timer is set again, for a time that has come.
                return
            left -= 1
            self._fire(job, event, shelf, index, fire, "on-time")
            notes["fire"] = self.end_behind(fire, index.ids)
        self._early(job, event, shelf, index, watermark)
        lateness = job.terms.lateness
        over = [p for p in index.ids if self.time(self.last_end(p)) + lateness <= watermark]
        shelf.remove(index, over)

    def _early(self, job, event, shelf, index, watermark):
        """Lets windows that have begun and are not over give a result, if it is time."""
        notes = index.notes
        if not notes.get("early") or notes["early"] > watermark:
            return
        notes["early"] = 0
        end = notes.get("fire", 0)
        while end and self.time(end - self.size) < watermark:
            self._fire(job, event, shelf, index, end, "early")
            end = self.end_behind(end, index.ids)

    def _fire(self, job, event, shelf, index, end, firing):
        """Emits the result of the window with this end, if there is anything in it."""
        first, ids = end - self.size, index.ids
        panes = ids[bisect.bisect_left(ids, first) : bisect.bisect_left(ids, end)]
        shelf.fetch([(index.key, pane) for pane in panes])
        every = [kept for kept in (shelf.pane(index, pane) for pane in panes) if kept is not None]
        if every:
            kept = _merged(job.aggregate, every)
            job.emit(event, self.time(first), self.time(end), firing, kept)

    def _wake(self, job, index):
        """Says when the key is to be woken."""
        times = [index.notes.get("early", 0)]
        if index.ids:
            times.append(self.time(self.last_end(index.ids[0])) + job.terms.lateness)
        if index.notes.get("fire"):
            times.append(self.time(index.notes["fire"]))
        index.wakes = min((time for time in times if time), default=None)


def _merged(aggregate, every):
    """What is kept of several panes, which stay as they are."""
    kept = copy.deepcopy(every[0])
    for later in every[1:]:
        kept = aggregate.merge(kept, later)
    return kept


class _Sessions:
    """Events of a key that follow each other without a gap, kept in one slot.

    An event is a session of its own, as long as the gap, until it is put together with those it
    overlaps. A session that gave its result is kept while late events are allowed; if one changes
    it, the next result names those it takes the place of.
    """

    def __init__(self, gap):
        self.gap = gap

    def run(self, job, call):
        cells = Cells(job.terms, call, lambda: {"list": [], "early": 0})
        for event, key in call.events:
            with cells.of(event, key) as cell:
                if event.kind == "timer":
                    self._timer(job, event, cell)
                else:
                    self._data(job, event, cell)
        cells.close(lambda cell: not cell["list"], lambda cell: self._wakes(job, cell))

    def _data(self, job, event, cell):
        gap, lateness, time = self.gap, job.terms.lateness, job.terms.time(event)
        check_time(time, gap + lateness)
        every = cell["list"]
        first = sum(1 for one in every if one["end"] <= time)
        behind = sum(1 for one in every if one["start"] < time + gap)
        if first == behind and time + gap + lateness <= job.watermark:
            job.terms.too_late(event, job.watermark)
            return
        if first == behind and len(every) >= job.window.panes_max:
            raise Reject(
                f"the windows {job.terms.name} of this key have {len(every)} sessions already: "
                "raise `panes_max`"
            )
        value = job.read(event)
        whole = {"start": time, "end": time + gap, "told": False, "replaces": []}
        whole["kept"] = job.aggregate.first(value)
        waits = False
        for one in reversed(every[first:behind]):
            waits |= not one["told"] and one["end"] <= job.watermark
            whole["start"] = min(whole["start"], one["start"])
            whole["end"] = max(whole["end"], one["end"])
            whole["replaces"] = one["replaces"] + whole["replaces"]
            whole["kept"] = job.aggregate.merge(one["kept"], whole["kept"])
        every[first:behind] = [whole]
        # If one of them was over already its timer is on the way, and tells of all.
        if whole["end"] <= job.watermark and not waits:
            self._tell(job, event, whole, "late")
        if whole["end"] > job.watermark and job.window.early and not cell["early"]:
            cell["early"] = job.next_early()

    def _timer(self, job, event, cell):
        watermark, lateness = job.watermark_at(event), job.terms.lateness
        for one in cell["list"]:
            if not one["told"] and one["end"] <= watermark:
                self._tell(job, event, one, "on-time")
        if cell["early"] and cell["early"] <= watermark:
            cell["early"] = 0
            for one in cell["list"]:
                if not one["told"] and one["start"] < watermark:
                    span = (one["start"], one["end"])
                    job.emit(event, *span, "early", one["kept"], one["replaces"])
        cell["list"] = [one for one in cell["list"] if one["end"] + lateness > watermark]

    def _tell(self, job, event, one, firing):
        job.emit(event, one["start"], one["end"], firing, one["kept"], one["replaces"])
        one["told"], one["replaces"] = True, [one["start"]]

    def _wakes(self, job, cell):
        lateness = job.terms.lateness
        times = [one["end"] + (lateness if one["told"] else 0) for one in cell["list"]]
        if cell["early"]:
            times.append(cell["early"])
        return min(times, default=None)


class _Filled:
    """Windows of a number of events as they come: none is late. One slot holds what is filled."""

    def __init__(self, events, after):
        self.events, self.after = events, after

    def run(self, job, call):
        cells = Cells(job.terms, call, lambda: {"events": 0})
        for event, key in call.events:
            with cells.of(event, key) as cell:
                if event.kind == "timer":
                    if cell["events"] and self._wakes(cell) <= job.watermark_at(event):
                        self._give(job, event, cell)
                else:
                    self._add(job, event, cell)
        cells.close(lambda cell: not cell["events"], self._wakes)

    def _wakes(self, cell):
        return cell["began"] + self.after if self.after else None

    def _add(self, job, event, cell):
        time = job.terms.time(event)
        check_time(time, self.after)
        value = job.read(event)
        if cell["events"]:
            kept = job.aggregate.add(cell["kept"], value)
            first, last = min(cell["first"], time), max(cell["last"], time)
            cell.update(kept=kept, first=first, last=last)
        else:
            cell.update(kept=job.aggregate.first(value), began=time, first=time, last=time)
        cell["events"] += 1
        if cell["events"] >= self.events:
            self._give(job, event, cell)

    def _give(self, job, event, cell):
        job.emit(event, cell["first"], cell["last"] + 1, "on-time", cell["kept"])
        cell.clear()
        cell["events"] = 0
