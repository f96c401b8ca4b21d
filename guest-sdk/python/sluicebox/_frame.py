"""The packed frame, version 1: how events lie in the bytes that cross the border.

`wit/FRAME.md` is the specification; this is the SDK's own reader and writer. A frame from the host
is trusted to be well formed, as the host has checked it. What is written here passes the host's
checks: sizes are looked at before a byte is packed.
"""

from struct import Struct

MAGIC = b"SBXF"
HEADER = Struct("<4sHHII")
HEADER_BYTES = HEADER.size

# Size, kind, flags, input, port, key length, cause, time, payload length, fields length.
HEAD = Struct("<IBBHHHIQII")
HEAD_BYTES = HEAD.size
KIND, INPUT, PORT, KEY_BYTES, CAUSE, TIME, PAYLOAD_BYTES, FIELDS_BYTES = 1, 3, 4, 5, 6, 7, 8, 9

FIELD_HEAD = Struct("<HH")

KEY_BYTES_MAX = 512
FIELDS_BYTES_MAX = 16_384
FIELD_BYTES_MAX = 65_535
PAYLOAD_BYTES_MAX = 15 << 20
TIME_END = 1 << 53
NO_CAUSE = 0xFFFF_FFFF

DATA, TIMER, OPEN, END = range(4)


def to_bytes(value):
    """The bytes of a payload or a value: of a text its UTF-8."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    # Not `bytes(value)`: of a number that would be so many zeros.
    raise TypeError(f"bytes or text are wanted, not {type(value).__name__}; JSON has a method")


def header(count, length):
    """The header of a frame of so many events and bytes, itself included."""
    return HEADER.pack(MAGIC, 1, 1, count, length)


def pack_fields(fields):
    """Extension fields, pairs of id and bytes, as they lie in an event."""
    packed = bytearray()
    for number, value in fields:
        if len(value) > FIELD_BYTES_MAX:
            raise ValueError("emitted a field whose value is longer than 65,535 bytes")
        packed += FIELD_HEAD.pack(number, len(value))
        packed += value
    return bytes(packed)


def read_fields(packed):
    """The extension fields of an event: pairs of id and bytes, in order."""
    at, fields = 0, []
    while at < len(packed):
        number, length = FIELD_HEAD.unpack_from(packed, at)
        at += FIELD_HEAD.size
        fields.append((number, packed[at : at + length]))
        at += length
    return fields


def read_events(frame):
    """Offset and head of each event of a frame."""
    at, unpack = HEADER_BYTES, HEAD.unpack_from
    for _ in range(int.from_bytes(frame[8:12], "little")):
        head = unpack(frame, at)
        yield at, head
        at += head[0]
