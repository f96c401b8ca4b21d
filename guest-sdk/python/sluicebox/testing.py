"""A harness that runs a stage in plain Python, for its unit tests: no node, no WebAssembly.

    from sluicebox.testing import Harness
    from stage import upper

    def test_letters_become_large():
        assert Harness(upper).send("key", "a").outputs[0].text() == "A"

A harness is one instance of the stage with a host in memory. It does what the host does:

- An emitted event without a key gets the key of its cause; what is a trap there raises `Trap`.
- When events of a stage fail, nothing of the call stands: the host runs the others again without
  them, so the stage sees these twice. A stream function is not run again.
- Timers fire when the harness moves a clock, `advance_watermark` or `advance_clock`, and by
  nothing else.

It does not do what a manifest says: no retries, no dead letters, no limits but those of names.
"""

import json
from dataclasses import dataclass, field

from . import _frame, _host
from .state import Clock

_TIMERS_A_CALL_MAX = 256
# Calls after which a stage is said to set the same timers for ever.
_TIMER_CALLS_MAX = 10_000
_KINDS = {"data": _frame.DATA, "timer": _frame.TIMER, "open": _frame.OPEN, "end": _frame.END}


class Trap(Exception):
    """The host would have ended the call, and the instance with it."""


@dataclass
class Input:
    """An event to be given to a stage. Its payload is bytes or text, `json` gives it as JSON."""

    key: str
    payload: bytes = b""
    time: int = 0
    input: int = 0
    port: int = 0
    kind: str = "data"
    fields: list = field(default_factory=list)

    @classmethod
    def json(cls, key, value, **options):
        """An event whose payload is a value as JSON."""
        return cls(key, json.dumps(value), **options)


@dataclass
class Emitted:
    """An event that a stage emitted."""

    port: int
    cause: int
    time: int
    key: str
    payload: bytes
    fields: list

    def text(self):
        """The payload as text."""
        return self.payload.decode()

    def json(self):
        """The payload as JSON."""
        return json.loads(self.payload)


@dataclass
class Failed:
    """An event that failed: its place among those given, class and message."""

    event: int
    kind: str
    message: str


@dataclass
class Handled:
    """What a call came to."""

    outputs: list = field(default_factory=list)
    failures: list = field(default_factory=list)


class _Memory:
    """The host's functions, in memory."""

    def __init__(self, config, assets):
        self.config, self.assets = dict(config), dict(assets)
        self.slots, self.timers = {}, {}
        self.watermark_now, self.clock = 0, 0
        self.keys, self.emitted, self.lines = [], [], []
        self.counts, self.gauges = {}, {}

    def functions(self):
        return {name: getattr(self, name) for name in _host.NAMES}

    def key(self, event):
        if not 0 <= event < len(self.keys):
            raise Trap(f"the call has no event {event}")
        return self.keys[event]

    def emit(self, frame):
        at = _frame.HEADER_BYTES
        for at, head in _frame.read_events(frame):
            kind, port, cause, time = head[1], head[4], head[6], head[7]
            key = at + _frame.HEAD_BYTES
            payload, fields, end = key + head[5], key + head[5] + head[8], at + head[0]
            if cause >= len(self.keys):
                raise Trap(f"an event names event {cause} as its cause, which is not there")
            assert kind == _frame.DATA and end == fields + head[9]
            self.emitted.append(
                Emitted(
                    port,
                    cause,
                    time,
                    frame[key:payload].decode() or self.keys[cause],
                    frame[payload:fields],
                    _frame.read_fields(frame[fields:end]),
                )
            )

    def state_get(self, event, slot):
        return self.slots.get((self.key(event), _name(slot)))

    def state_put(self, event, slot, value):
        self.slots[self.key(event), _name(slot)] = bytes(value)

    def state_delete(self, event, slot):
        return self.slots.pop((self.key(event), _name(slot)), None) is not None

    def state_add(self, event, slot, delta):
        value = self.state_get(event, slot)
        if value is not None and len(value) != 8:
            raise _host.Refused(f"the slot holds {len(value)} bytes, a counter has 8")
        number = int.from_bytes(value or b"", "little", signed=True) + delta
        number = (number + 2**63) % 2**64 - 2**63
        self.state_put(event, slot, number.to_bytes(8, "little", signed=True))
        return number

    def state_scan(self, event, prefix, limit):
        key = self.key(event)
        found = [(s, v) for (k, s), v in self.slots.items() if k == key and s.startswith(prefix)]
        return sorted(found, key=lambda entry: entry[0].encode())[:limit]

    def state_batch(self, operations):
        replies, at = bytearray(), 0
        while at < len(operations):
            code, name_bytes = operations[at], operations[at + 1]
            event = int.from_bytes(operations[at + 4 : at + 8], "little")
            value_bytes = int.from_bytes(operations[at + 8 : at + 12], "little")
            name, value = at + 16, at + 16 + name_bytes
            at = value + value_bytes
            slot = operations[name:value].decode()
            status, reply = self._operation(code, event, slot, operations[value:at])
            replies += bytes([status, 0, 0, 0]) + len(reply).to_bytes(4, "little") + reply
        return bytes(replies)

    def _operation(self, code, event, slot, value):
        try:
            if code == 1:
                found = self.state_get(event, slot)
                return (1, b"") if found is None else (0, found)
            if code == 2:
                self.state_put(event, slot, value)
            elif code == 3:
                return int(not self.state_delete(event, slot)), b""
            elif code == 4:
                number = self.state_add(event, slot, int.from_bytes(value, "little", signed=True))
                return 0, number.to_bytes(8, "little", signed=True)
            elif code == 5:
                self.timer_set(event, slot, value[0], int.from_bytes(value[1:], "little"))
            elif code == 6:
                return int(not self.timer_cancel(event, slot)), b""
            else:
                raise Trap(f"a state batch has the operation {code}")
        except _host.Refused as refused:
            return 2, str(refused).encode()
        return 0, b""

    def timer_set(self, event, name, clock, at):
        if len(name.encode()) > 64:
            raise _host.Refused("the name of a timer has at most 64 bytes")
        if not 0 <= at < _frame.TIME_END:
            raise _host.Refused(f"the time of a timer is below 2^53, not {at}")
        self.timers[self.key(event), name] = (Clock(clock), at)

    def timer_cancel(self, event, name):
        return self.timers.pop((self.key(event), name), None) is not None

    def take_due(self):
        times = {Clock.EVENT: self.watermark_now, Clock.WALL: self.clock}
        due = [
            (at, key, name)
            for (key, name), (clock, at) in self.timers.items()
            if at <= times[clock]
        ]
        due = sorted(due)[:_TIMERS_A_CALL_MAX]
        for _, key, name in due:
            del self.timers[key, name]
        return due

    def watermark(self):
        return self.watermark_now

    def now(self):
        return self.clock

    def config_get(self, name):
        return self.config.get(name)

    def config_names(self):
        return sorted(self.config, key=str.encode)

    def asset_size(self, name):
        return len(self.assets[name]) if name in self.assets else None

    def asset_read(self, name, offset, length):
        return self.assets.get(name, b"")[offset : offset + length]

    def log(self, level, message):
        self.lines.append((_host.LEVELS[level], message))

    def metrics_count(self, name, delta):
        self.counts[name] = self.counts.get(name, 0) + delta

    def metrics_gauge(self, name, value):
        self.gauges[name] = value


def _name(slot):
    if len(slot.encode()) > 64:
        raise Trap("the name of a slot is at most 64 bytes long")
    return slot


class Harness:
    """One instance of a stage, and its host."""

    def __init__(self, stage, *, config=None, assets=None):
        self._handle = stage.instance()
        self._undoes = stage.undoes
        self._memory = _Memory(config or {}, assets or {})

    def send(self, key, payload=b"", **options):
        """Gives the stage one event of kind data. Options are those of `Input`."""
        return self.handle([Input(key, payload, **options)])

    def send_json(self, key, value, **options):
        """Gives the stage one event whose payload is a value as JSON."""
        return self.handle([Input.json(key, value, **options)])

    def open(self, key, **options):
        """Opens the stream of a key."""
        return self.handle([Input(key, kind="open", **options)])

    def end(self, key, **options):
        """Ends the stream of a key."""
        return self.handle([Input(key, kind="end", **options)])

    def handle(self, events):
        """Gives the stage these events, in calls of at most 256."""
        events, all_of_them = list(events), Handled()
        for first in range(0, len(events), 256):
            handled = self._handle_call(events[first : first + 256])
            for output in handled.outputs:
                output.cause += first
            for failed in handled.failures:
                failed.event += first
            all_of_them.outputs += handled.outputs
            all_of_them.failures += handled.failures
        return all_of_them

    def _handle_call(self, events):
        memory, given, handled = self._memory, list(range(len(events))), Handled()
        while given:
            before = (dict(memory.slots), dict(memory.timers))
            failures, emitted = self._call([events[place] for place in given])
            again = self._undoes and failures
            if again:
                memory.slots, memory.timers = before
            else:
                for output in emitted:
                    output.cause = given[output.cause]
                handled.outputs = emitted
            failed = [Failed(given[event], kind, message) for event, kind, message in failures]
            handled.failures += failed
            places = {one.event for one in failed}
            given = [place for place in given if place not in places]
            if not again:
                break
        return handled

    def _call(self, events):
        memory = self._memory
        memory.keys, memory.emitted = [event.key for event in events], []
        before = {name: getattr(_host, name) for name in _host.NAMES}
        vars(_host).update(memory.functions())
        try:
            failures = self._handle(_frame_of(events))
        finally:
            vars(_host).update(before)
        return failures, memory.emitted

    def advance_watermark(self, micros):
        """Moves the watermark, and gives the stage every event-time timer that is due then."""
        self._memory.watermark_now = max(self._memory.watermark_now, micros)
        return self._fire()

    def advance_clock(self, micros):
        """Moves the time of day, and gives the stage every wall timer that is due then."""
        self._memory.clock = max(self._memory.clock, micros)
        return self._fire()

    def _fire(self):
        handled, fired = Handled(), 0
        for _ in range(_TIMER_CALLS_MAX):
            due = self._memory.take_due()
            if not due:
                return handled
            events = [Input(key, name, time=at, kind="timer") for at, key, name in due]
            one = self.handle(events)
            for output in one.outputs:
                output.cause += fired
            for failed in one.failures:
                failed.event += fired
            handled.outputs += one.outputs
            handled.failures += one.failures
            fired += len(due)
        raise AssertionError("the stage keeps setting timers for a time that has come")

    def state(self, key, slot):
        """What a slot of a key holds; None if there is none."""
        return self._memory.slots.get((key, slot))

    def slots(self, key):
        """The slots of a key and what they hold."""
        return {slot: value for (of, slot), value in self._memory.slots.items() if of == key}

    def counter(self, key, slot):
        """What a counter of a key says; None if there is none."""
        value = self.state(key, slot)
        return None if value is None else int.from_bytes(value, "little", signed=True)

    def timers(self, key):
        """The timers of a key that wait: clock and time, by name."""
        return {name: when for (of, name), when in self._memory.timers.items() if of == key}

    @property
    def log(self):
        """The lines the stage wrote to its log, pairs of level and text."""
        return self._memory.lines

    @property
    def counts(self):
        """What the stage added to its counters, by name."""
        return self._memory.counts

    @property
    def gauges(self):
        """What the stage set its gauges to, by name."""
        return self._memory.gauges


def _frame_of(events):
    packed = bytearray()
    for event in events:
        key, payload = event.key.encode(), _frame.to_bytes(event.payload)
        fields = _frame.pack_fields([(number, _frame.to_bytes(value)) for number, value in event.fields])
        packed += _frame.HEAD.pack(
            _frame.HEAD_BYTES + len(key) + len(payload) + len(fields),
            _KINDS[event.kind],
            0,
            event.input,
            event.port,
            len(key),
            _frame.NO_CAUSE,
            event.time,
            len(payload),
            len(fields),
        )
        packed += key + payload + fields
    return _frame.header(len(events), _frame.HEADER_BYTES + len(packed)) + bytes(packed)
