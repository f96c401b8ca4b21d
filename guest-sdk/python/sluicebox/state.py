"""Keyed state and timers: named slots, and wake-ups, that belong to the key of an event.

- A stage reaches those of an event's key and no others.
- What is written stands if the call that wrote it succeeds and the event does not fail.

Each method of `State` and `Timers` is one call of the host. `StateBatch` makes one call for many
operations; for a call of 256 events that costs about as much as one `get`.
"""

import json
from enum import IntEnum
from struct import Struct

from . import _host
from ._frame import to_bytes
from ._host import Refused

_SLOT_BYTES_MAX = 64
_OPERATION = Struct("<BBHIII")
_REPLY = Struct("<BBHI")
_GET, _PUT, _DELETE, _ADD, _SET_TIMER, _CANCEL_TIMER = range(1, 7)


class Clock(IntEnum):
    """Which time a timer waits for."""

    EVENT = 0
    WALL = 1


def _json(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _counter(value):
    if len(value) != 8:
        raise Refused(f"the slot holds {len(value)} bytes, a counter has 8")
    return int.from_bytes(value, "little", signed=True)


class State:
    """The state of one event's key. Slots are named by at most 64 bytes of UTF-8."""

    __slots__ = ("_event",)

    def __init__(self, event):
        self._event = event

    def get(self, slot):
        """The bytes in a slot; None if there is none."""
        return _host.state_get(self._event.of_call(), slot)

    def get_json(self, slot, default=None):
        """The value in a slot, read as JSON."""
        value = self.get(slot)
        return default if value is None else json.loads(value)

    def put(self, slot, value):
        """Sets a slot to bytes or text. `Refused` if something would be larger than its limit."""
        _host.state_put(self._event.of_call(), slot, to_bytes(value))

    def put_json(self, slot, value):
        """Sets a slot to a value as JSON."""
        self.put(slot, _json(value))

    def delete(self, slot):
        """Removes a slot; true if there was one."""
        return _host.state_delete(self._event.of_call(), slot)

    def add(self, slot, delta=1):
        """Adds to a counter of 64 bits and gives its new number.

        One that is not there counts as 0. `Refused` if the slot holds something else.
        """
        return _host.state_add(self._event.of_call(), slot, delta)

    def counter(self, slot):
        """The number in a counter; 0 if there is none."""
        value = self.get(slot)
        return 0 if value is None else _counter(value)

    def scan(self, prefix="", limit=1_000):
        """The slots that begin with `prefix` and their values, in byte order: a list of pairs."""
        return _host.state_scan(self._event.of_call(), prefix, limit)


class Timers:
    """The timers of one event's key. Names are at most 64 bytes of UTF-8."""

    __slots__ = ("_event",)

    def __init__(self, event):
        self._event = event

    def set(self, name, at, clock=Clock.EVENT):
        """Has the key woken at a time in microseconds; replaces a timer of the same name."""
        _host.timer_set(self._event.of_call(), name, int(clock), at)

    def cancel(self, name):
        """Takes a timer back; true if there was one."""
        return _host.timer_cancel(self._event.of_call(), name)


class StateBatch:
    """Operations on the state and the timers of many events' keys, done in one call of the host.

    batch = StateBatch()
    for event in events:
        batch.add(event, "seen")
    for event, seen in zip(events, batch.run()):
        event.emit_json(seen)
    """

    def __init__(self):
        self._parts = []
        self._codes = []

    def get(self, event, slot):
        """Asks for a slot. Reply: its bytes, or None."""
        self._push(_GET, event, slot)

    def put(self, event, slot, value):
        """Sets a slot. Reply: True."""
        self._push(_PUT, event, slot, to_bytes(value))

    def put_json(self, event, slot, value):
        """Sets a slot to a value as JSON. Reply: True."""
        self._push(_PUT, event, slot, _json(value))

    def delete(self, event, slot):
        """Removes a slot. Reply: whether there was one."""
        self._push(_DELETE, event, slot)

    def add(self, event, slot, delta=1):
        """Adds to a counter. Reply: its new number."""
        self._push(_ADD, event, slot, delta.to_bytes(8, "little", signed=True))

    def set_timer(self, event, name, at, clock=Clock.EVENT):
        """Sets a timer. Reply: True."""
        self._push(_SET_TIMER, event, name, bytes([clock]) + at.to_bytes(8, "little"))

    def cancel_timer(self, event, name):
        """Takes a timer back. Reply: whether there was one."""
        self._push(_CANCEL_TIMER, event, name)

    def _push(self, code, event, slot, value=b""):
        slot = slot.encode()
        if len(slot) > _SLOT_BYTES_MAX:
            raise ValueError("the name of a slot or timer is at most 64 bytes long")
        head = _OPERATION.pack(code, len(slot), 0, event.of_call(), len(value), 0)
        self._parts += (head, slot, value)
        self._codes.append(code)

    def run(self, *, refused=False):
        """Has the host do it, and gives the replies in order.

        A refusal is raised, unless `refused` says that it is to stand in its place in the list.
        """
        codes, parts = self._codes, self._parts
        self._codes, self._parts = [], []
        if not codes:
            return []
        packed = _host.state_batch(b"".join(parts))
        replies, at = [], 0
        for code in codes:
            status, _, _, length = _REPLY.unpack_from(packed, at)
            at += 8
            reply = _reply(code, status, packed[at : at + length])
            at += length
            if reply.__class__ is Refused and not refused:
                raise reply
            replies.append(reply)
        return replies


def _reply(code, status, value):
    if status == 2:
        return Refused(value.decode(errors="replace"))
    if code == _GET:
        return value if status == 0 else None
    if code == _ADD:
        return int.from_bytes(value, "little", signed=True)
    return status == 0
