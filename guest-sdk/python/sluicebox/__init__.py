"""Stages of sluicebox in Python: write a handler, and see neither frames nor bindings.

    from sluicebox import stage

    @stage
    def upper(event):
        event.emit(event.text().upper())

Other forms are a function over all events of a call (`batch`) and an async function that reads a
stream (`stream`). `StateBatch`, `config`, `assets`, `log`, `metrics` and, if the manifest grants
one, `sluicebox.gpu` are what else there is of the host; `sluicebox.window` has windows, and
`sluicebox.testing` runs a stage in plain Python, for its tests.
"""

from . import _host, assets, config, log, metrics
from ._host import Refused
from .event import Event, Field, Kind
from .failure import Failure, Reject, Retry
from .stage import batch, stage
from .state import Clock, StateBatch
from .stream import Stream, stream

__all__ = [
    "Clock",
    "Event",
    "Failure",
    "Field",
    "Kind",
    "Refused",
    "Reject",
    "Retry",
    "StateBatch",
    "Stream",
    "assets",
    "batch",
    "config",
    "log",
    "metrics",
    "now",
    "stage",
    "stream",
    "watermark",
]


def watermark():
    """The event time up to which the stage has everything, in microseconds; 0 if not known.

    An event whose time is below it is late.
    """
    return _host.watermark()


def now():
    """The time of day of the batch, in microseconds since 1970."""
    return _host.now()
