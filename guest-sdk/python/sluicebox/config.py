"""The stage's settings from the manifest: texts, fixed for the life of an instance.

    from sluicebox import config
    limit = int(config.get("limit", "10"))

They are not there while a component is built, which is when the code of a module outside of
functions runs: read them in a function.
"""

from . import _host


def get(name, default=None):
    """A setting; `default` if there is none of that name."""
    value = _host.config_get(name)
    return default if value is None else value


def names():
    """All names, in byte order."""
    return _host.config_names()
