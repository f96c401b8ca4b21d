// Doubles a number on a GPU, by the SDK for JavaScript. A payload is a number, and so is what is
// emitted.

import { batch } from "sluicebox";
import { Map } from "sluicebox/gpu";

const double = new Map(
  `
  @group(0) @binding(0) var<storage, read> numbers: array<u32>;
  @group(0) @binding(1) var<storage, read_write> doubled: array<u32>;
  @group(0) @binding(2) var<uniform> count: u32;

  @compute @workgroup_size(64)
  fn double(@builtin(global_invocation_id) id: vec3u) {
      if id.x < count { doubled[id.x] = numbers[id.x] * 2; }
  }
  `,
  "double",
  [Uint32Array],
  [Uint32Array],
);

export default batch((events) =>
  double.run(
    events,
    (event) => [event.json()],
    (event, [doubled]) => event.emitJson(doubled),
  ),
);
