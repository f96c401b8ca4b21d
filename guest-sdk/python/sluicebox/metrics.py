"""Counters and gauges of the stage's own.

Names are `[a-z][a-z0-9_]*`, at most 64 bytes, and at most 32 of them a stage; others are dropped
and counted.
"""

from . import _host


def count(name, delta=1):
    """Adds to a counter."""
    _host.metrics_count(name, delta)


def gauge(name, value):
    """Sets a gauge."""
    _host.metrics_gauge(name, float(value))
