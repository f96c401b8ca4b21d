"""From a function of the author's to what the host calls.

    @stage                 def f(event)            once for each event
    @batch                 def f(events)           once for all events of a call, a list
    @stream                async def f(stream)     once for each stream, see `stream.py`

- An exception that leaves a function of the first form is the failure of that event; the next one
  is handled.
- One that leaves a function of the second form names no event. So it asks the host to try each
  event of the call again, alone; a call with one event takes it as it is. `event.fail` is exact.
- `MemoryError` and what is no `Exception`, such as `SystemExit`, end the call with a trap.

A module holds one such function. What the decorator gives is found there by the component, and is
what tests give to a `Harness`; called, it is the function.
"""

import functools
import inspect

from .event import Call
from .failure import RETRY


class Stage:
    """A function of the author's with its form. Made by the decorators of this package."""

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function

    def __call__(self, *arguments, **named):
        return self.function(*arguments, **named)

    # Whether what an event did is undone when it fails.
    undoes = True

    def instance(self):
        """A function that handles frames: it gives index, class and message of what failed."""

        def handle(frame):
            call = Call(frame)
            self.run(call)
            return call.finish()

        return handle

    def run(self, call):
        """Handles the events of a call."""
        raise NotImplementedError


class EachEvent(Stage):
    """A function that is called for each event. Made by `stage`."""

    _timer = None

    def timer(self, function):
        """Has timers that fire given to another function: `@name.timer`, name being the stage."""
        _check(function, "timer")
        self._timer = function
        return function

    def run(self, call):
        function, timer = self.function, self._timer
        for event in call.events():
            try:
                if timer is not None and event.kind == "timer":
                    timer(event)
                else:
                    function(event)
            except MemoryError:
                raise
            except Exception as error:
                call.fail(event.index, error)


class AllEvents(Stage):
    """A function that is called for all events of a call. Made by `batch`."""

    def run(self, call):
        events = list(call.events())
        try:
            self.function(events)
        except MemoryError:
            raise
        except Exception as error:
            kind = None if len(events) == 1 else RETRY
            for event in events:
                call.fail(event.index, error, kind)


def _check(function, name):
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"`@{name}` takes a plain function; an async one is for `@stream`")
    if inspect.isgeneratorfunction(function):
        raise TypeError(f"`@{name}` takes a function without `yield`: it emits by `event.emit`")


def stage(function):
    """Makes a stage of a function that is called for each event.

    @stage
    def upper(event):
        event.emit(event.text().upper())
    """
    _check(function, "stage")
    return EachEvent(function)


def batch(function):
    """Makes a stage of a function that is called for all events of a call, at most 256."""
    _check(function, "batch")
    return AllEvents(function)


def find(module):
    """The one stage of a module."""
    found = {id(value): value for value in vars(module).values() if isinstance(value, Stage)}
    if len(found) != 1:
        raise TypeError(
            f"{module.__name__} has {len(found)} stages and should have one: put `@stage`, "
            "`@batch` or `@stream` before the function that handles events"
        )
    return next(iter(found.values()))
