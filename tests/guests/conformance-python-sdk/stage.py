"""The conformance guest over the SDK for Python; what it does: ../CONFORMANCE.md.

The guest beside it, conformance-python, is the same over generated bindings alone.
"""

import time

from sluicebox import Clock, Field, Refused, Reject, Retry, assets, config, log, metrics
from sluicebox import stage, watermark

OWN_FIELD = 40_000
LEVELS = (log.debug, log.info, log.warn, log.error)

# What command `M` was given in the life of the instance.
remembered = bytearray()


class Trap(BaseException):
    """What is no `Exception` ends the call with a trap."""


def unknown():
    """Also what an operand without the form it needs comes to."""
    return Reject("unknown command")


def number(value, size):
    return value.to_bytes(size, "little")


def split(operand):
    """One byte of length, so many bytes of text, and the rest."""
    if not operand or len(operand) < 1 + operand[0]:
        raise unknown()
    end = 1 + operand[0]
    return operand[1:end].decode(), operand[end:]


def optional(value):
    return b"\0" if value is None else b"\1" + value


def describe(event):
    kind = ("data", "timer", "open", "end").index(event.kind)
    return bytes([kind]) + number(event.input, 2) + number(event.time, 8) + event.key.encode()


def fields(event, operand):
    content_type = event.field(Field.CONTENT_TYPE)
    own = [(OWN_FIELD, operand)]
    event.emit(b"", fields=own + ([(258, content_type)] if content_type is not None else []))


def keyed(event, operand):
    key, rest = split(operand)
    event.emit(rest, key=key)


def caused(event, operand):
    if len(operand) < 4:
        raise unknown()
    cause = int.from_bytes(operand[:4], "little")
    event.emit(operand[4:], cause=cause)


def many(event, operand):
    if not operand:
        raise unknown()
    for value in range(operand[0]):
        event.emit(bytes([value]))


def ported(event, operand):
    if not operand:
        raise unknown()
    event.emit(operand[1:], port=operand[0])


def put(event, operand):
    slot, value = split(operand)
    try:
        event.state.put(slot, value)
    except Refused as refused:
        return b"\2" + str(refused).encode()
    return b"\0"


def add(event, operand):
    slot, delta = split(operand)
    if len(delta) != 8:
        raise unknown()
    try:
        new = event.state.add(slot, int.from_bytes(delta, "little", signed=True))
    except Refused as refused:
        return b"\2" + str(refused).encode()
    return b"\0" + new.to_bytes(8, "little", signed=True)


def scan(event, operand):
    packed = bytearray()
    for slot, value in event.state.scan(operand.decode(), 100):
        name = slot.encode()
        packed += number(len(name), 1) + name + number(len(value), 4) + value
    return packed


def setting(event, operand):
    value = config.get(operand.decode())
    return optional(None if value is None else value.encode())


def asset(event, operand):
    name = operand.decode()
    size = assets.size(name)
    return None if size is None else number(size, 8) + assets.read(name, 0, 16)


def say(event, operand):
    if not operand or operand[0] >= len(LEVELS):
        raise unknown()
    LEVELS[operand[0]](operand[1:].decode())


def remember(event, operand):
    remembered.extend(operand)
    return number(len(remembered), 4) + number(sum(remembered), 4)


def set_timer(event, operand):
    if len(operand) < 9 or operand[0] > Clock.WALL:
        raise unknown()
    at = int.from_bytes(operand[1:9], "little")
    try:
        event.timers.set(operand[9:].decode(), at, Clock(operand[0]))
    except Refused as refused:
        return b"\2" + str(refused).encode()
    return b"\0"


def fail(event, operand):
    raise Reject(operand.decode())


def fail_for_now(event, operand):
    raise Retry(operand.decode())


def trap(event, operand):
    raise Trap("told to")


# A command gives the payload to emit, or nothing.
COMMANDS = {
    "e": lambda event, operand: operand,
    "n": many,
    "p": ported,
    "k": keyed,
    "u": caused,
    "d": lambda event, operand: describe(event),
    "f": fields,
    "r": fail_for_now,
    "x": fail,
    "t": trap,
    "g": lambda event, operand: optional(event.state.get(operand.decode())),
    "s": put,
    "D": lambda event, operand: bytes([event.state.delete(operand.decode())]),
    "a": add,
    "S": scan,
    "c": setting,
    "A": asset,
    "l": say,
    "m": lambda event, operand: metrics.count(operand.decode()),
    "M": remember,
    "T": set_timer,
    "C": lambda event, operand: bytes([event.timers.cancel(operand.decode())]),
    "W": lambda event, operand: number(watermark(), 8),
    "w": lambda event, operand: number(time.time_ns(), 8),
}


@stage
def conformance(event):
    payload = event.payload
    if event.kind != "data":
        event.emit(describe(event))
        return
    command = COMMANDS.get(chr(payload[0])) if payload else None
    if command is None:
        raise unknown()
    answer = command(event, payload[1:])
    if answer is not None:
        event.emit(bytes(answer))
