"""What a stage says about an event it could not handle.

Any exception that leaves a handler is the failure of its event. `Retry` asks the host to try the
event again; every other exception rejects it, as trying again helps only if the author says so.
"""

import os
import traceback

RETRY, REJECT = "retry", "reject"

_OWN_FOLDER = os.path.dirname(os.path.abspath(__file__))


class Failure(Exception):
    """Why an event could not be handled. Nothing emitted or written for it stands."""

    kind = REJECT

    def __init__(self, message=""):
        super().__init__(message)
        self.message = str(message)


class Retry(Failure):
    """The cause may pass: the host tries the event again, alone, as the manifest says."""

    kind = RETRY


class Reject(Failure):
    """Trying again cannot help."""


def describe(error):
    """Class and message of what an exception is to the host."""
    if isinstance(error, Failure):
        return error.kind, error.message
    kind = getattr(error, "failure", REJECT)
    if isinstance(error, str):
        return kind, error
    return kind, f"{type(error).__name__}: {error}{_place(error)}"


def _place(error):
    """Where in the author's code it came from: file and line."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if not os.path.abspath(frame.filename).startswith(_OWN_FOLDER):
            return f" ({os.path.basename(frame.filename)}, line {frame.lineno})"
    return ""
