"""Doubles numbers on a GPU, in Python, for the world `stage-typed-gpu`.

A payload is numbers with spaces between them; emitted are their doubles in the same form. What the
host refuses, and a submission that does not end whole, fails the event. What is on the device is
kept in the instance, and made anew when the device was lost.
"""

import struct

from componentize_py_types import Err
from wit_world.imports import compute
from wit_world.imports.compute import Action, Binding, End, Step
from wit_world.imports.types import Event, Failure, FailureClass, Kind, Outcome

KERNEL = """
@group(0) @binding(0) var<storage, read_write> numbers: array<u32>;

@compute @workgroup_size(64)
fn double(@builtin(global_invocation_id) id: vec3u) {
    if id.x < arrayLength(&numbers) { numbers[id.x] *= 2u; }
}
"""

NUMBERS_MAX = 1024
GROUPS = NUMBERS_MAX // 64

# Errors after which the same may work a little later.
PASSING = ("gpu.lost", "gpu.hung", "gpu.would-block", "gpu.memory", "gpu.none")

# Graph and buffer, once they are made.
kept = None


class Failed(Exception):
    """The event could not be handled; it is reported and the next one is taken."""

    def __init__(self, failure_class, message):
        super().__init__(message)
        self.failure_class = failure_class
        self.message = message


def make():
    kernel = compute.kernel(KERNEL, "double")
    dispatch = Step(Action.DISPATCH, kernel, GROUPS, 1, 1, [0], 0, 0, 0, 0, 0, 0)
    graph = compute.graph([dispatch])
    compute.free(kernel)
    return graph, compute.create(NUMBERS_MAX * 4)


def double(numbers):
    global kept
    data = struct.pack(f"<{len(numbers)}I", *numbers)
    try:
        if kept is not None:
            compute.write(kept[1], 0, data)
    except Err:
        # The device was lost since, or the instance goes on from an image.
        kept = None
    if kept is None:
        kept = make()
        compute.write(kept[1], 0, data)
    graph, buffer = kept
    end = compute.submit(graph, [Binding(buffer, 0, len(data))], 0).end
    if end != End.WHOLE:
        failure_class = FailureClass.RETRY if end == End.LOST else FailureClass.REJECT
        raise Failed(failure_class, f"the submission ended by {end.name.lower()}")
    return struct.unpack(f"<{len(numbers)}I", compute.read(buffer, 0, len(data)))


def handle_one(index, event):
    if event.kind != Kind.DATA:
        return []
    try:
        numbers = [int(word) % 2**32 for word in event.payload.split()]
    except ValueError as error:
        raise Failed(FailureClass.REJECT, str(error)) from error
    if not 0 < len(numbers) <= NUMBERS_MAX:
        raise Failed(FailureClass.REJECT, f"{len(numbers)} numbers are not 1 to {NUMBERS_MAX}")
    try:
        doubled = double(numbers)
    except Err as error:
        passes = error.value.split(":")[0] in PASSING
        failure_class = FailureClass.RETRY if passes else FailureClass.REJECT
        raise Failed(failure_class, error.value) from error
    payload = " ".join(map(str, doubled)).encode()
    return [Event(Kind.DATA, 0, 0, index, event.time, "", payload, [], [])]


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
