"""What the host calls in a component: the export of the world `stage`.

The stage is made when the component is built, so that an instance begins with it; nothing of the
host is there at that time.
"""

from wit_world.imports.types import Failure, FailureClass

from .log import catch_logging
from .stage import find

_CLASSES = {"retry": FailureClass.RETRY, "reject": FailureClass.REJECT}


def world(module):
    """The class that `componentize-py` exports, for the stage in this module."""
    catch_logging()
    handle_frame = find(module).instance()

    class WitWorld:
        """The generator fixes the name."""

        def handle(self, frame):
            return [
                Failure(index, _CLASSES[kind], message)
                for index, kind, message in handle_frame(frame)
            ]

    return WitWorld
