"""The module that `componentize-py` is given: the stage in `stage.py`, as the host calls it."""

import stage
from sluicebox._component import world

WitWorld = world(stage)
