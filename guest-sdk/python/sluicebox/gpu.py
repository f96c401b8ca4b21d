"""A stage's share of a GPU, in the words of WebGPU: buffers, kernels in WGSL, graphs of steps.

- The manifest grants it, `grants = { gpu = {} }`, and the component is built for the world
  `stage-gpu`: `world = "stage-gpu"` in stage.toml.
- Whatever is made here is freed by `free`, when Python drops it, or with the instance. A buffer
  that was attached to an event is the batch's.
- What is on a device is a cache. It goes when the device is lost, and then functions raise an
  `Error` whose `is_lost` is true: make it anew, or let it fail the event, which is tried again.

`Map` is all that most stages need: a kernel over the events of a call.
"""

from struct import Struct

from .failure import REJECT, RETRY

try:
    from componentize_py_types import Err
    from wit_world.imports import compute
except ImportError:
    compute = None

# Errors after which the same may work a little later.
_PASSING = ("gpu.lost", "gpu.hung", "gpu.would-block", "gpu.memory", "gpu.none")
_GROUP_THREADS = 64


class Error(Exception):
    """The host would not do what was asked of the device, and says why.

    It fails its event, to be tried again if the cause may pass.
    """

    @property
    def code(self):
        """What happened, such as `gpu.memory`; all codes are in the guide's list of errors."""
        return str(self).split(":", 1)[0]

    @property
    def is_lost(self):
        """The device or its process was lost: whatever was made before is over."""
        return self.code in ("gpu.lost", "gpu.hung")

    @property
    def failure(self):
        """What the host is to do with the event."""
        return RETRY if self.code in _PASSING else REJECT


def _ask(name, *arguments):
    """A function of the host, with its errors as ours."""
    if compute is None:
        raise Error("gpu.none: there is no GPU here; a component for the world stage-gpu has one")
    try:
        return getattr(compute, name)(*arguments)
    except Err as error:
        raise Error(error.value) from None


def device():
    """The device there is, and what the stage may do with it: a record of the WIT."""
    return _ask("describe")


class _Made:
    """Something on the device, known by its handle."""

    handle = None

    def free(self):
        """Frees it. What submissions need of it stays until they have ended."""
        handle, self.handle = self.handle, None
        if handle is not None:
            try:
                _ask("free", handle)
            except Error:
                # It may have gone with the device, and nothing depends on it any more.
                pass

    def __del__(self):
        self.free()


class Buffer(_Made):
    """Bytes on the device: so many, a multiple of 4, which read as zeros; or these bytes."""

    def __init__(self, content):
        size = content if isinstance(content, int) else len(content)
        self.handle = _ask("create", size)
        if not isinstance(content, int):
            self.write(content)

    @classmethod
    def of_handle(cls, handle):
        """A buffer that came with an event: `Buffer.of_handle(event.attachments[0])`."""
        buffer = cls.__new__(cls)
        buffer.handle, buffer.free = handle, lambda: None
        return buffer

    @classmethod
    def constant(cls, asset):
        """A buffer with the bytes of an asset, not to be written; the device has it once."""
        buffer = cls.__new__(cls)
        buffer.handle = _ask("constant", asset)
        return buffer

    def write(self, content, offset=0):
        """Writes bytes; no submission may use the buffer now."""
        _ask("write", self.handle, offset, bytes(content))

    def read(self, offset=0, length=None):
        """Reads bytes, at most 64 MiB; no submission may write the buffer now."""
        length = self.size - offset if length is None else length
        return _ask("read", self.handle, offset, length)

    @property
    def size(self):
        """How many bytes it has."""
        return _ask("size", self.handle)

    def given(self):
        """It was attached to an event, and is the batch's from then on."""
        self.free = lambda: None


class Kernel(_Made):
    """A compute entry point of a source in WGSL that uses buffers of `@group(0)`."""

    def __init__(self, source, entry):
        self.handle = _ask("kernel", source, entry)

    def slots(self):
        """The buffers it uses, by ascending number: records of the WIT."""
        return _ask("slots", self.handle)


def _step(action, **fields):
    names = "kernel x y z slots source offset target target_offset bytes word".split()
    values = [fields.get(name, [] if name == "slots" else 0) for name in names]
    return compute.Step(action, *values)


def dispatch(kernel, groups, slots):
    """A step: runs a kernel with so many workgroups, `(x, y, z)`, over slots of the graph."""
    x, y, z = groups
    action = compute.Action.DISPATCH
    return _step(action, kernel=kernel.handle, x=x, y=y, z=z, slots=list(slots))


def copy(source, target, length, *, offset=0, target_offset=0):
    """A step: copies so many bytes from one slot of the graph to another."""
    places = {"source": source, "offset": offset, "target": target}
    return _step(compute.Action.COPY, target_offset=target_offset, bytes=length, **places)


def fill(target, length, word=0, *, target_offset=0):
    """A step: writes a word again and again, over so many bytes of a slot of the graph."""
    place = {"target": target, "target_offset": target_offset}
    return _step(compute.Action.FILL, bytes=length, word=word, **place)


class Graph(_Made):
    """Steps that are done one after the other; what is bound to its slots is said each time."""

    def __init__(self, steps):
        self.handle = _ask("graph", list(steps))

    def submit(self, buffers, *, deadline_ms=0):
        """Does the steps once and waits; gives the device's time in nanoseconds.

        Bound is a buffer, or a part of one, `(buffer, offset, length)`, for each slot. Raises an
        `Error` if it did not end whole.
        """
        return _whole(_ask("submit", self.handle, _bindings(buffers), deadline_ms))

    def begin(self, buffers, *, deadline_ms=0):
        """Begins that, and gives a `Submission` to wait for."""
        return Submission(_ask("try_submit", self.handle, _bindings(buffers), deadline_ms))


class Submission:
    """Work on the device that has been begun."""

    def __init__(self, handle):
        self._handle = handle

    def wait(self):
        """Waits until it has ended, as `Graph.submit` does."""
        return _whole(_ask("wait", self._handle))

    def cancel(self):
        """Has it end soon. It has still to be waited for."""
        _ask("cancel", self._handle)


def _bindings(buffers):
    bound = []
    for part in buffers:
        buffer, offset, length = part if isinstance(part, tuple) else (part, 0, 0)
        bound.append(compute.Binding(buffer.handle, offset, length))
    return bound


def _whole(outcome):
    if outcome.end == compute.End.WHOLE:
        return outcome.device_nanos
    how = outcome.end.name.lower()
    code = "gpu.lost" if outcome.end == compute.End.LOST else "gpu.end"
    raise Error(f"{code}: the submission ended by {how}")


class Map:
    """A kernel over the events of a call: each gives a record, and gets one.

    Records are written and read by formats of `struct`, such as `"2f"` and `"I"`, little-endian and
    a multiple of 4 bytes long. The kernel has `@workgroup_size(64)` and three bindings of
    `@group(0)`: 0 is the records in (`storage, read`), 1 the records out (`storage, read_write`), 2
    a `uniform` whose first word is how many there are.

        norm = Map(SOURCE, "norm", "2f", "f")

        @batch
        def stage(events):
            norm.run(events, lambda event: event.json(), lambda event, n: event.emit_json(n[0]))
    """

    def __init__(self, source, entry, given, made, *, deadline_ms=0):
        self._source, self._entry, self._deadline_ms = source, entry, deadline_ms
        self._given, self._made = Struct("<" + given), Struct("<" + made)
        for record in (self._given, self._made):
            if record.size == 0 or record.size % 4:
                raise ValueError("a record takes a multiple of 4 bytes")
        self._kept = None

    def run(self, events, pack, emit):
        """Runs the kernel over these events.

        `pack(event)` gives the numbers of its record; `emit(event, numbers)` is called with what
        the kernel made of it, a tuple. What they raise fails the event; if the device does not do
        its part, all fail.
        """
        packed, records = [], bytearray()
        for event in events:
            try:
                records += self._given.pack(*pack(event))
                packed.append(event)
            except MemoryError:
                raise
            except Exception as error:
                event.fail(error)
        if not packed:
            return
        try:
            answers = self._compute(len(packed), bytes(records))
        except Error as error:
            for event in packed:
                event.fail(error)
            return
        for event, numbers in zip(packed, self._made.iter_unpack(answers)):
            try:
                emit(event, numbers)
            except MemoryError:
                raise
            except Exception as error:
                event.fail(error)

    def _compute(self, count, records):
        kept = self._ready(count, records)
        room, given, made, counted, uses, graph = kept
        length = count * self._made.size
        # Only the bytes of this call are bound, so that nothing of an earlier one can be seen.
        whole = [(given, 0, len(records)), (made, 0, length), counted]
        graph.submit([whole[number] for number in uses], deadline_ms=self._deadline_ms)
        return made.read(0, length)

    def _ready(self, count, records):
        """What is on the device, with these records in it; made anew if it is over."""
        if self._kept is not None and self._kept[0] >= count:
            try:
                self._put(self._kept, count, records)
                return self._kept
            except Error:
                # The device was lost since, or the instance goes on from an image.
                pass
        self._kept = None
        kept = self._make(count)
        self._put(kept, count, records)
        self._kept = kept
        return kept

    def _put(self, kept, count, records):
        kept[1].write(records)
        kept[3].write(count.to_bytes(4, "little"))

    def _make(self, count):
        room = _GROUP_THREADS
        while room < count:
            room *= 2
        kernel = Kernel(self._source, self._entry)
        uses = [slot.number for slot in kernel.slots()]
        if any(number > 2 for number in uses):
            raise Error("gpu.graph: the kernel of a map has bindings 0, 1 and 2 only")
        graph = Graph([dispatch(kernel, (room // _GROUP_THREADS, 1, 1), range(len(uses)))])
        given, made = Buffer(room * self._given.size), Buffer(room * self._made.size)
        return room, given, made, Buffer(16), uses, graph
