// Run by `npm install && npm test`: the stage in Node, with a host in memory. esbuild leaves out
// the types first; `npm run check` looks at them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Harness } from "sluicebox/testing";
import greet from "./build/stage.js";

test("each key has a count of its own", () => {
  const harness = new Harness(greet);
  harness.send("ada", "first");
  const { outputs } = harness.send("ada", "second");
  assert.deepEqual(outputs[0].json(), { greeting: "hello", count: 2 });
});
