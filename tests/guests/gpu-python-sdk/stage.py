"""Doubles a number on a GPU, by the SDK for Python. A payload is a number, and so is what is
emitted.

The guest beside it, gpu-python, does without the SDK.
"""

from sluicebox import batch
from sluicebox.gpu import Map

double = Map(
    """
    @group(0) @binding(0) var<storage, read> numbers: array<u32>;
    @group(0) @binding(1) var<storage, read_write> doubled: array<u32>;
    @group(0) @binding(2) var<uniform> count: u32;

    @compute @workgroup_size(64)
    fn double(@builtin(global_invocation_id) id: vec3u) {
        if id.x < count { doubled[id.x] = numbers[id.x] * 2; }
    }
    """,
    "double",
    "I",
    "I",
)


@batch
def stage(events):
    double.run(
        events, lambda event: [int(event.text())], lambda event, made: event.emit_json(made[0])
    )
