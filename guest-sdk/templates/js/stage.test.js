// Run by `npm install && npm test`: the stage in Node, with a host in memory.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Harness } from "sluicebox/testing";
import greet from "./stage.js";

test("each key has a count of its own", () => {
  const harness = new Harness(greet);
  harness.send("ada", "first");
  const { outputs } = harness.send("ada", "second");
  assert.deepEqual(outputs[0].json(), { greeting: "hello", count: 2 });
});
