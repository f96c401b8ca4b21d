"""Greets each key, and says how often it has come.

`handle` is called with all events of a call. The top level of this file runs when it is built.
"""

import json

from wit_world.imports import state
from wit_world.imports.types import Event, Failure, FailureClass, Kind, Outcome


def greet(index, event):
    """What one event comes to."""
    count = state.add(index, "count", 1)
    return json.dumps({"greeting": "hello", "count": count}).encode()


class WitWorld:
    def handle(self, events):
        outputs, failures = [], []
        for index, event in enumerate(events):
            if event.kind != Kind.DATA:
                continue
            try:
                payload = greet(index, event)
            except Exception as error:
                failures.append(Failure(index, FailureClass.REJECT, str(error)))
                continue
            outputs.append(Event(Kind.DATA, 0, 0, index, event.time, event.key, payload, [], []))
        return Outcome(outputs, failures)
