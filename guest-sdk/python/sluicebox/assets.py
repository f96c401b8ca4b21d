"""Blobs the manifest grants, under names of its choice."""

from . import _host

_PART_BYTES = 1 << 20


def size(name):
    """How many bytes an asset has; None if the manifest grants no such name."""
    return _host.asset_size(name)


def read(name, offset=0, length=None):
    """Bytes of an asset: all of it, or at most `length` from `offset`.

    `KeyError` if the manifest grants no such name.
    """
    whole = _host.asset_size(name)
    if whole is None:
        raise KeyError(f"the manifest grants no asset {name!r}")
    end = whole if length is None else min(whole, offset + length)
    parts = []
    while offset < end:
        part = _host.asset_read(name, offset, min(_PART_BYTES, end - offset))
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
