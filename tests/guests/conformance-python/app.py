"""The conformance guest in Python, for the world `stage-typed`; what it does: ../CONFORMANCE.md.

Built by `cargo xtask guests`, which puts this file and an interpreter into one component. An
exception that leaves `handle` traps; that is how the command `t` is done, and what happens to text
that is not UTF-8.
"""

import time

from componentize_py_types import Err
from wit_world.imports import assets, config, log, metrics, state, timers
from wit_world.imports.types import Event, Failure, FailureClass, Field, Kind, Outcome

CONTENT_TYPE = 258
OWN_FIELD = 40000


# What command `M` was given in the life of the instance.
remembered = bytearray()


class Trap(Exception):
    """Leaves `handle`, and so ends the instance."""


class Failed(Exception):
    """The event could not be handled; it is reported and the next one is taken."""

    def __init__(self, failure_class, message):
        super().__init__(message)
        self.failure_class = failure_class
        self.message = message


def unknown():
    """Also what an operand without the form it needs comes to."""
    return Failed(FailureClass.REJECT, "unknown command")


def number(value, size):
    return value.to_bytes(size, "little")


def split(operand):
    """One byte of length, so many bytes of text, and the rest."""
    if not operand or len(operand) < 1 + operand[0]:
        raise unknown()
    end = 1 + operand[0]
    return operand[1:end].decode(), operand[end:]


def out(index, event, payload, port=0, key="", cause=None, fields=()):
    """An emitted event, as most commands want it."""
    return Event(
        kind=Kind.DATA,
        input=0,
        port=port,
        cause=index if cause is None else cause,
        time=event.time,
        key=key,
        payload=bytes(payload),
        fields=list(fields),
        attachments=[],
    )


def describe(event):
    return (
        bytes([event.kind.value])
        + number(event.input, 2)
        + number(event.time, 8)
        + event.key.encode()
    )


def fields_of(event, operand):
    fields = [Field(OWN_FIELD, bytes(operand))]
    fields += [field for field in event.fields if field.id == CONTENT_TYPE][:1]
    return fields


def put(index, operand):
    slot, value = split(operand)
    try:
        state.put(index, slot, value)
    except Err as error:
        return b"\2" + error.value.encode()
    return b"\0"


def add(index, operand):
    slot, delta = split(operand)
    if len(delta) != 8:
        raise unknown()
    try:
        new = state.add(index, slot, int.from_bytes(delta, "little", signed=True))
    except Err as error:
        return b"\2" + error.value.encode()
    return b"\0" + new.to_bytes(8, "little", signed=True)


def scan(index, prefix):
    packed = bytearray()
    for entry in state.scan(index, prefix, 100):
        slot = entry.slot.encode()
        packed += number(len(slot), 1) + slot + number(len(entry.value), 4) + entry.value
    return packed


def optional(value):
    return b"\0" if value is None else b"\1" + value


def asset(name):
    size = assets.size(name)
    return None if size is None else number(size, 8) + assets.read(name, 0, 16)


def remember(operand):
    remembered.extend(operand)
    return number(len(remembered), 4) + number(sum(remembered), 4)


def set_timer(index, operand):
    if len(operand) < 9 or operand[0] > timers.Clock.WALL.value:
        raise unknown()
    at = int.from_bytes(operand[1:9], "little")
    try:
        timers.set(index, operand[9:].decode(), timers.Clock(operand[0]), at)
    except Err as error:
        return b"\2" + error.value.encode()
    return b"\0"


def write_log(operand):
    if not operand or operand[0] > log.Level.ERROR.value:
        raise unknown()
    log.write(log.Level(operand[0]), operand[1:].decode())


def emit(index, event, command, operand):
    """The commands that differ in how they emit."""
    if command == "e":
        return [out(index, event, operand)]
    if command == "f":
        return [out(index, event, b"", fields=fields_of(event, operand))]
    if command == "k":
        key, rest = split(operand)
        return [out(index, event, rest, key=key)]
    if command == "u" and len(operand) >= 4:
        cause = int.from_bytes(operand[:4], "little")
        return [out(index, event, operand[4:], cause=cause)]
    if command == "n" and operand:
        return [out(index, event, [value]) for value in range(operand[0])]
    if command == "p" and operand:
        return [out(index, event, operand[1:], port=operand[0])]
    raise unknown()


def answer(index, event, command, operand):
    """The commands that emit one payload, or nothing."""
    if command == "d":
        return describe(event)
    if command == "g":
        return optional(state.get(index, operand.decode()))
    if command == "s":
        return put(index, operand)
    if command == "D":
        return bytes([state.delete(index, operand.decode())])
    if command == "a":
        return add(index, operand)
    if command == "S":
        return scan(index, operand.decode())
    if command == "c":
        value = config.get(operand.decode())
        return optional(None if value is None else value.encode())
    if command == "A":
        return asset(operand.decode())
    if command == "l":
        return write_log(operand)
    if command == "m":
        return metrics.count(operand.decode(), 1)
    if command == "M":
        return remember(operand)
    if command == "T":
        return set_timer(index, operand)
    if command == "C":
        return bytes([timers.cancel(index, operand.decode())])
    if command == "W":
        return number(timers.watermark(), 8)
    if command == "w":
        return number(time.time_ns(), 8)
    if command == "r":
        raise Failed(FailureClass.RETRY, operand.decode())
    if command == "x":
        raise Failed(FailureClass.REJECT, operand.decode())
    if command == "t":
        raise Trap("told to")
    raise unknown()


def handle_one(index, event):
    command, operand = chr(event.payload[0]) if event.payload else "", event.payload[1:]
    if event.kind != Kind.DATA:
        command = "d"
    if command and command in "enpkuf":
        return emit(index, event, command, operand)
    payload = answer(index, event, command, operand)
    return [] if payload is None else [out(index, event, payload)]


class WitWorld:
    """What the world exports; the generator fixes the name."""

    def handle(self, events):
        outputs, failures = [], []
        for index, event in enumerate(events):
            try:
                outputs += handle_one(index, event)
            except Failed as failed:
                failures.append(Failure(index, failed.failure_class, failed.message))
        return Outcome(outputs, failures)
