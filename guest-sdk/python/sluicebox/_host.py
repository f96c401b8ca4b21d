"""The functions of the host, as the rest of the package calls them.

In a component they are those of the world `stage`. In a plain Python there is no host:
`sluicebox.testing` puts one in their place for the time of a call. So they are always called by
the name of this module, and never imported from it.
"""

import time

try:
    from componentize_py_types import Err
    from wit_world.imports import assets, config, metrics, output, state, timers
    from wit_world.imports import log as _log_interface
except ImportError:
    IN_COMPONENT = False
else:
    IN_COMPONENT = True

LEVELS = ("debug", "info", "warn", "error")
NAMES = (
    "emit state_get state_put state_delete state_add state_scan state_batch timer_set timer_cancel "
    "watermark now config_get config_names asset_size asset_read log metrics_count metrics_gauge"
).split()


class Refused(Exception):
    """The host would not do what was asked of it, and says why."""


def _absent(*_):
    raise RuntimeError("there is no host here: run the stage in `sluicebox.testing.Harness`")


def _now():
    return time.time_ns() // 1000


if IN_COMPONENT:

    def _refusing(function):
        """Refusals as exceptions of the SDK's own."""

        def call(*arguments):
            try:
                return function(*arguments)
            except Err as error:
                raise Refused(error.value) from None

        return call

    def _scan(event, prefix, limit):
        return [(entry.slot, entry.value) for entry in state.scan(event, prefix, limit)]

    def _timer_set(event, name, clock, at):
        try:
            timers.set(event, name, timers.Clock(clock), at)
        except Err as error:
            raise Refused(error.value) from None

    def _log(level, message):
        _log_interface.write(_log_interface.Level(level), message)

    emit = output.emit
    state_get = state.get
    state_put = _refusing(state.put)
    state_delete = state.delete
    state_add = _refusing(state.add)
    state_scan = _scan
    state_batch = state.batch
    timer_set = _timer_set
    timer_cancel = timers.cancel
    watermark = timers.watermark
    now = _now
    config_get = config.get
    config_names = config.names
    asset_size = assets.size
    asset_read = assets.read
    log = _log
    metrics_count = metrics.count
    metrics_gauge = metrics.gauge
else:
    for _name in NAMES:
        globals()[_name] = _absent
