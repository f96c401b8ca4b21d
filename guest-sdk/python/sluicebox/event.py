"""The events a stage receives, and emitting because of them.

- An event is of one call: what is emitted, written or said to have failed for it later than that
  raises, as its index would mean another event by then.
- Nothing of an event is taken out of its frame before it is asked for.
"""

import json
from enum import Enum

from . import _frame, _host
from ._frame import DATA, END, FIELDS_BYTES, HEAD_BYTES, INPUT, KEY_BYTES, KIND, OPEN
from ._frame import PAYLOAD_BYTES, PORT, TIME, TIMER
from .failure import Reject, describe
from .state import State, Timers

# A frame is given to the host when it would become larger than this: just below the 256 KiB a
# stage is given in one frame, so that the host need not cut it.
_FLUSH_BYTES = 240 << 10
_ATTACHMENTS_MAX = 256


class Kind(str, Enum):
    """Why an event is here."""

    DATA = "data"
    TIMER = "timer"
    OPEN = "open"
    END = "end"


_KINDS = {DATA: Kind.DATA, TIMER: Kind.TIMER, OPEN: Kind.OPEN, END: Kind.END}


class Field:
    """Ids of extension fields. Those from `OWN_FIRST` on are for stages' own use."""

    TRACE_CONTEXT = 1
    REQUEST = 2
    ATTACHMENTS = 3
    EVENT_ID = 256
    EVENT_SOURCE = 257
    CONTENT_TYPE = 258
    EVENT_TYPE = 259
    EVENT_SUBJECT = 260
    OWN_FIRST = 32_768


class Call:
    """One call of the host: the events it gave, what is emitted, and which events failed."""

    __slots__ = ("frame", "open", "failures", "_parts", "_bytes", "_count", "_attached")

    def __init__(self, frame):
        self.frame = frame
        self.open = True
        self.failures = {}
        self._parts = []
        self._bytes = _frame.HEADER_BYTES
        self._count = 0
        self._attached = 0

    def events(self):
        """The events of the call, one after another."""
        for index, (at, head) in enumerate(_frame.read_events(self.frame)):
            yield Event(self, index, at, head)

    def emit(self, index, time, payload, port, key, fields, attach):
        """Packs one event; raises if no frame can carry it."""
        if not self.open:
            raise RuntimeError("the event is of an earlier call: emit while it is handled")
        if payload.__class__ is not bytes:
            payload = _frame.to_bytes(payload)
        payload_bytes = len(payload)
        packed = b""
        if key or fields or attach or payload_bytes > _frame.PAYLOAD_BYTES_MAX:
            key, attach = key.encode(), list(attach or ())
            packed = _fields(fields, attach)
            _check(key, packed, payload_bytes)
        else:
            key, attach = b"", ()
        if time.__class__ is not int or not 0 <= time < _frame.TIME_END:
            raise Reject(f"emitted the time {time}, times are whole microseconds below 2^53")
        if not 0 <= port <= 65_535:
            raise Reject(f"emitted by the port {port}, ports are 0 to 65,535")
        size = HEAD_BYTES + len(key) + payload_bytes + len(packed)
        attached = len(attach)
        if self._bytes + size > _FLUSH_BYTES or self._attached + attached > _ATTACHMENTS_MAX:
            self.flush()
        self._parts += (
            _frame.HEAD.pack(
                size, 0, 0, 0, port, len(key), index, time, payload_bytes, len(packed)
            ),
            key,
            payload,
            packed,
        )
        self._bytes += size
        self._count += 1
        # Not before: buffers of an event that was not packed are still the stage's, to free.
        self._attached += attached
        for buffer in attach:
            if hasattr(buffer, "given"):
                buffer.given()

    def flush(self):
        """Gives the host what was emitted so far."""
        if self._count:
            _host.emit(_frame.header(self._count, self._bytes) + b"".join(self._parts))
            self._parts = []
            self._bytes = _frame.HEADER_BYTES
            self._count = 0
            self._attached = 0

    def fail(self, index, error, kind=None):
        """Notes the failure of an event; the first one of an event counts."""
        if not self.open:
            raise RuntimeError("the event is of an earlier call: it was handled")
        found, message = describe(error)
        self.failures.setdefault(index, (kind or found, message))

    def finish(self):
        """Ends the call; gives index, class and message of the events that failed."""
        self.flush()
        self.open = False
        return [(index, kind, message) for index, (kind, message) in self.failures.items()]


def _fields(fields, attach):
    """Extension fields, packed, with the buffers of a GPU that are attached."""
    fields = list(fields)
    if attach:
        handles = [getattr(buffer, "handle", buffer) for buffer in attach]
        if len(handles) > _ATTACHMENTS_MAX:
            raise Reject(f"emitted {len(handles)} attachments, the limit is 256")
        value = b"".join(handle.to_bytes(8, "little") for handle in handles)
        fields.append((Field.ATTACHMENTS, value))
    return _frame.pack_fields(fields)


def _check(key, fields, payload_bytes):
    if len(key) > _frame.KEY_BYTES_MAX:
        raise Reject(f"emitted a key of {len(key)} bytes, the limit is 512")
    if len(fields) > _frame.FIELDS_BYTES_MAX:
        raise Reject(f"emitted {len(fields)} bytes of fields, the limit is 16,384")
    if payload_bytes > _frame.PAYLOAD_BYTES_MAX:
        raise Reject(f"emitted a payload of {payload_bytes} bytes, the limit is 15 MiB")


def write_json(value):
    """A value as JSON, without blanks."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class Event:
    """One event of the call that is being handled."""

    __slots__ = ("_call", "index", "_at", "_head")

    def __init__(self, call, index, at, head):
        self._call = call
        self.index = index
        self._at = at
        self._head = head

    @property
    def kind(self):
        """Why it is here, a `Kind`, which is a text as well: `event.kind == "timer"`."""
        return _KINDS[self._head[KIND]]

    @property
    def input(self):
        """Which input of the stage it arrived at, counted from 0 in the order of the manifest."""
        return self._head[INPUT]

    @property
    def port(self):
        """The port it left the stage before by; 0 from the ingest."""
        return self._head[PORT]

    @property
    def time(self):
        """Event time in microseconds since 1970."""
        return self._head[TIME]

    @property
    def key(self):
        """The key."""
        at = self._at + HEAD_BYTES
        return self._call.frame[at : at + self._head[KEY_BYTES]].decode()

    @property
    def payload(self):
        """The payload, bytes."""
        head = self._head
        at = self._at + HEAD_BYTES + head[KEY_BYTES]
        return self._call.frame[at : at + head[PAYLOAD_BYTES]]

    def text(self):
        """The payload as text; `Reject` if it is not UTF-8."""
        try:
            return self.payload.decode()
        except UnicodeDecodeError as error:
            raise Reject(f"the payload is not UTF-8: {error}") from None

    def json(self):
        """The payload read as JSON; `Reject` if it is none."""
        try:
            return json.loads(self.payload)
        except ValueError as error:
            raise Reject(f"the payload is not JSON: {error}") from None

    def fields(self):
        """All extension fields, pairs of id and bytes, in order."""
        head = self._head
        if not head[FIELDS_BYTES]:
            return []
        at = self._at + HEAD_BYTES + head[KEY_BYTES] + head[PAYLOAD_BYTES]
        return _frame.read_fields(self._call.frame[at : at + head[FIELDS_BYTES]])

    def field(self, number):
        """The value of the first extension field with this id, or None; ids are in `Field`."""
        return next((value for found, value in self.fields() if found == number), None)

    @property
    def attachments(self):
        """Handles of what is attached, for `sluicebox.gpu`."""
        packed = self.field(Field.ATTACHMENTS) or b""
        return [int.from_bytes(packed[at : at + 8], "little") for at in range(0, len(packed), 8)]

    @property
    def timer(self):
        """The name of the timer that fires; None if the event is none."""
        return self.payload.decode() if self._head[KIND] == TIMER else None

    @property
    def state(self):
        """The state of the event's key."""
        return State(self)

    @property
    def timers(self):
        """The timers of the event's key."""
        return Timers(self)

    def emit(self, payload, *, port=0, key="", time=None, fields=(), attach=(), cause=None):
        """Emits bytes or text because of this event.

        It leaves by port 0 with this event's time unless said otherwise. A key of its own takes
        effect on edges with `key = "emitted"`. `fields` are pairs of id and bytes; `attach` are
        buffers of a GPU; `cause` is the index of another event of this call to name as the cause.
        """
        if time is None:
            time = self._head[TIME]
        index = self.index if cause is None else cause
        self._call.emit(index, time, payload, port, key, fields, attach)

    def emit_json(self, value, **options):
        """Emits a value as JSON; otherwise as `emit`."""
        self.emit(write_json(value), **options)

    def fail(self, error):
        """Says that the event could not be handled: an exception, or a text to reject it with."""
        self._call.fail(self.index, error)

    def of_call(self):
        """The index by which the host knows the event, as long as its call lasts."""
        if not self._call.open:
            raise RuntimeError("the event is of an earlier call: its state is not to be had")
        return self.index

    def __repr__(self):
        return (
            f"<Event {self.index} {self.kind.value} input={self.input} time={self.time} "
            f"key={self.key!r} payload={self.payload!r}>"
        )
