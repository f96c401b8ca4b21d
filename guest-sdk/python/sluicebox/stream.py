"""Stream functions: an async function that reads one stream from its first event to its end.

      host                       instance (serves one stream)
      handle(open, a, b)  ────►  starts the coroutine: it takes a and b, then waits
      handle(c)           ────►  it goes on: it takes c, then waits
      handle(end)         ────►  `async for` ends, the function returns

- Between calls the function is a coroutine in the memory of the instance; nothing of it is on a
  stack, which is why it is `async`: a plain `for` could not stop until the next call.
- The only thing it can wait for is its next event. No loop of `asyncio` runs; whoever waits for
  something else is told so, and the events left unread fail.
- After a function has raised, later events fail; after it has returned they are ignored.

When a stream opens and ends is decided by the host; the manifest says `scope = "stream"`.
"""

import inspect

from .event import Call, write_json
from .failure import Reject, describe
from .stage import Stage
from .state import State, Timers

_NO_EVENT = object()


class _Next:
    """Waits for the next event."""

    __slots__ = ("_stream",)

    def __init__(self, stream):
        self._stream = stream

    def __await__(self):
        while True:
            event = self._stream._take()
            if event is not _NO_EVENT:
                return event
            yield _NO_EVENT


class Stream:
    """The events of a stream, for `async for`, and what is emitted.

    What is emitted or written by the stream itself belongs to the event taken last, or to the end
    of the stream.
    """

    def __init__(self):
        self._events = iter(())
        self._call = None
        self._current = None
        self._key = None
        self._ended = False

    @property
    def key(self):
        """The key of the stream."""
        return self._key

    @property
    def state(self):
        """The state of the stream's key."""
        return State(self._current)

    @property
    def timers(self):
        """The timers of the stream's key."""
        return Timers(self._current)

    def emit(self, payload, **options):
        """Emits bytes or text, as `Event.emit` does."""
        self._current.emit(payload, **options)

    def emit_json(self, value, **options):
        """Emits a value as JSON."""
        self._current.emit(write_json(value), **options)

    def fail(self, error):
        """Says that the event taken last could not be handled; the stream goes on."""
        self._current.fail(error)

    def __aiter__(self):
        return self

    async def __anext__(self):
        event = await _Next(self)
        if event is None:
            raise StopAsyncIteration
        return event

    def _begin(self, call):
        """Takes the events of a call; the first is the one to emit for until one was taken."""
        self._call = call
        self._events = call.events()
        self._current = next(call.events(), None)

    def _take(self):
        """The next event for the author, None at the end, `_NO_EVENT` if the call has no more."""
        if self._ended:
            return None
        for event in self._events:
            self._current = event
            if self._key is None:
                self._key = event.key
            elif self._key != event.key:
                event.fail(Reject('a stream function needs scope = "stream" in the manifest'))
                continue
            if event.kind == "end":
                self._ended = True
                return None
            if event.kind != "open":
                return event
        return _NO_EVENT


class StreamStage(Stage):
    """A function that reads a stream. Made by `stream`."""

    undoes = False

    def instance(self):
        return _Instance(self.function).handle


class _Instance:
    """One instance of a stream function, and how far it has come."""

    def __init__(self, function):
        self._function = function
        self._coroutine = None
        self._stream = None
        self._error = None

    def handle(self, frame):
        call = Call(frame)
        first = next(call.events(), None)
        if first is None:
            return []
        if self._stream is None or first.kind == "open":
            self._stream, self._error = Stream(), None
            self._coroutine = self._function(self._stream)
        self._stream._begin(call)
        self._advance(call)
        return call.finish()

    def _advance(self, call):
        stream = self._stream
        if self._error is not None:
            self._fail_rest(call)
            return
        if self._coroutine is None:
            return
        try:
            waits_for = self._coroutine.send(None)
        except StopIteration:
            self._coroutine = None
        except MemoryError:
            raise
        except Exception as error:
            stream.fail(error)
            _, message = describe(error)
            self._end(f"the stream function failed before: {message}", call)
        else:
            if waits_for is not _NO_EVENT:
                self._end("the stream function waits for something else than its next event", call)

    def _end(self, message, call):
        self._coroutine, self._error = None, message
        self._fail_rest(call)

    def _fail_rest(self, call):
        for event in self._stream._events:
            if event.kind not in ("open", "end"):
                call.fail(event.index, Reject(self._error))


def stream(function):
    """Makes a stage of an async function that reads a stream from its first event to its last.

    @stream
    async def largest(stream):
        largest = None
        async for event in stream:
            value = event.json()
            largest = value if largest is None else max(largest, value)
        stream.emit_json(largest)
    """
    if not inspect.iscoroutinefunction(function):
        raise TypeError("`@stream` takes an async function, which reads by `async for`")
    return StreamStage(function)
