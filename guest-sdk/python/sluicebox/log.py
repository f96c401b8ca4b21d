"""The stage's log, shown to its owner. Lines are cut at 4 KiB and limited in number a call.

What goes to Python's own `logging` comes here too, from level INFO on. `print` works as well, but
an instance that has used it holds the standard output, and then has no image: see
docs/guide/stages.md of the project.
"""

import logging

from . import _host

_DEBUG, _INFO, _WARN, _ERROR = range(4)


def debug(message):
    """Writes a line of level debug."""
    _host.log(_DEBUG, str(message))


def info(message):
    """Writes a line of level info."""
    _host.log(_INFO, str(message))


def warn(message):
    """Writes a line of level warn."""
    _host.log(_WARN, str(message))


def error(message):
    """Writes a line of level error."""
    _host.log(_ERROR, str(message))


class _ToHost(logging.Handler):
    def emit(self, record):
        steps = ((logging.ERROR, _ERROR), (logging.WARNING, _WARN), (logging.INFO, _INFO))
        level = next((own for least, own in steps if record.levelno >= least), _DEBUG)
        _host.log(level, self.format(record))


def catch_logging():
    """Sends what goes to `logging` to the stage's log. A component does this by itself."""
    root = logging.getLogger()
    if not any(isinstance(handler, _ToHost) for handler in root.handlers):
        root.addHandler(_ToHost())
        root.setLevel(logging.INFO)
