"""Greets each key, and says how often it has come."""

from sluicebox import stage


@stage
def greet(event):
    event.emit_json({"greeting": "hello", "count": event.state.add("count")})
