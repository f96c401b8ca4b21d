// Handlers in the harness: what is emitted, what fails, what stands.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  assets,
  batch,
  config,
  Field,
  log,
  metrics,
  now,
  Refused,
  Retry,
  stage,
  StateBatch,
  stream,
  Trap,
  watermark,
} from "sluicebox";
import { Harness, HostTrap } from "sluicebox/testing";

import * as frames from "../frame.js";
import { replace } from "../host.js";

const outputs = ({ outputs: all }) => all.map((out) => [out.port, out.key, out.time, out.text()]);
const failures = ({ failures: all }) => all.map((one) => [one.event, one.kind, one.message]);

test("an event is what was sent", () => {
  const describe = stage((event) =>
    event.emitJson([event.kind, event.input, event.port, event.time, event.key, event.text()]),
  );
  const sent = { key: "schlüssel", payload: "größe 🎉", time: 2 ** 53 - 1, input: 3, port: 2 };
  const [out] = new Harness(describe).handle([sent]).outputs;
  assert.deepEqual(out.json(), ["data", 3, 2, 2 ** 53 - 1, "schlüssel", "größe 🎉"]);
});

test("what differs from the cause is said", () => {
  const emit = stage((event) => {
    event.emit("a");
    event.emit(new Uint8Array([98]), { port: 2, key: "own", time: 9 });
  });
  const handled = new Harness(emit).send("k", "", { time: 5 });
  assert.deepEqual(outputs(handled), [
    [0, "k", 5, "a"],
    [2, "own", 9, "b"],
  ]);
});

test("fields arrive and leave", () => {
  const emit = stage((event) =>
    event.emit("", { fields: [[Field.OWN_FIRST, event.field(Field.CONTENT_TYPE)]] }),
  );
  const fields = [
    [Field.CONTENT_TYPE, "text/plain"],
    [Field.EVENT_ID, "1"],
  ];
  const [out] = new Harness(emit).handle([{ key: "k", fields }]).outputs;
  assert.deepEqual(out.fields, [[Field.OWN_FIRST, new TextEncoder().encode("text/plain")]]);
});

test("handles of buffers are attached, and arrive", () => {
  const pass = stage((event) => event.emitJson(event.attachments, { attach: event.attachments }));
  const handles = [1, 2 ** 52 + 1];
  const value = new Uint8Array(16);
  handles.forEach((one, at) => new DataView(value.buffer).setBigUint64(8 * at, BigInt(one), true));
  const handled = new Harness(pass).handle([{ key: "k", fields: [[Field.ATTACHMENTS, value]] }]);
  assert.deepEqual(handled.outputs[0].json(), handles);
  assert.deepEqual(handled.outputs[0].fields, [[Field.ATTACHMENTS, value]]);
});

/** Stands for a buffer of a GPU: its handle, and whether it was given away. */
class Lent {
  handle = 7;
  given = false;

  give() {
    this.given = true;
    return this.handle;
  }
}

test("a buffer is given away with its event, and not with one that is refused", () => {
  const [kept, sent] = [new Lent(), new Lent()];
  const emit = stage((event) => {
    for (const options of [{ time: -1 }, { port: 65_536 }, { fields: [[-1, ""]] }]) {
      assert.throws(() => event.emit("", { ...options, attach: [kept] }), /emitted/);
    }
    event.emit("", { attach: [sent] });
  });
  const [out] = new Harness(emit).send("k").outputs;
  assert.deepEqual(out.fields, [[Field.ATTACHMENTS, Uint8Array.of(7, 0, 0, 0, 0, 0, 0, 0)]]);
  assert.deepEqual([kept.given, sent.given], [false, true]);
});

test("no frame has more than 256 attachments, whatever it was flushed for", () => {
  const counts = [];
  const emit = stage((event) => {
    // The harness puts back what it found when the call ends.
    const real = replace({
      emit(frame) {
        counts.push(attachmentsIn(frame));
        real.emit(frame);
      },
    });
    const large = new Uint8Array(200_000);
    event.emit(large, { attach: Array(10).fill(7) });
    event.emit(large, { attach: Array(20).fill(7) });
    event.emit("", { attach: Array(250).fill(7) });
    event.emit("", { attach: Array(6).fill(7) });
    event.emit("", { attach: [7] });
  });
  new Harness(emit).send("k");
  assert.deepEqual(counts, [10, 20, 256, 1]);
});

function attachmentsIn(frame) {
  const view = frames.viewOf(frame);
  let [at, count] = [frames.HEADER_BYTES, 0];
  while (at < frame.length) {
    const end = at + view.getUint32(at, true);
    const fields = frames.readFields(frame.subarray(end - view.getUint32(at + 28, true), end));
    for (const [id, value] of fields) if (id === Field.ATTACHMENTS) count += value.length / 8;
    at = end;
  }
  return count;
}

test("a large output leaves in several frames", () => {
  const emit = stage((event) => {
    for (let n = 0; n < 5; n += 1) event.emit(new Uint8Array(100_000).fill(n));
  });
  const all = new Harness(emit).send("k").outputs;
  assert.deepEqual(
    all.map(({ payload }) => [payload.length, payload[0]]),
    [0, 1, 2, 3, 4].map((n) => [100_000, n]),
  );
});

test("what no frame can carry fails its event", () => {
  const cases = [
    [{ key: "k".repeat(513) }, "", "a key of 513 bytes"],
    [{ time: 2 ** 53 }, "", "the time 9007199254740992"],
    [{ time: -1 }, "", "the time -1"],
    [{ time: 0.5 }, "", "the time 0.5"],
    [{ port: 65_536 }, "", "the port 65536"],
    [{ cause: -1 }, "", "the cause -1"],
    [{}, new Uint8Array((15 << 20) + 1), "a payload of 15728641 bytes"],
    [{ fields: [[1, "x".repeat(16_384)]] }, "", "bytes of fields"],
    [{}, { an: "object" }, "JSON goes by emitJson"],
  ];
  for (const [options, payload, says] of cases) {
    const handled = new Harness(stage((event) => event.emit(payload, options))).send("k");
    assert.deepEqual(handled.outputs, []);
    assert.ok(handled.failures[0].message.includes(says), handled.failures[0].message);
  }
});

test("a cause that is not there is a trap", () => {
  const harness = new Harness(stage((event) => event.emit("", { cause: 7 })));
  assert.throws(() => harness.send("k"), HostTrap);
});

test("an error fails its event alone", () => {
  const parse = stage((event) => event.emitJson(event.json().n.value));
  const sent = ['{"n":{"value":1}}', "{", "{}", '{"n":{"value":2}}'];
  const handled = new Harness(parse).handle(sent.map((payload) => ({ key: "k", payload })));
  assert.deepEqual(
    handled.outputs.map((out) => out.json()),
    [1, 2],
  );
  assert.deepEqual(
    handled.failures.map(({ event }) => event),
    [1, 2],
  );
  assert.match(handled.failures[0].message, /^the payload is not JSON/);
  assert.match(handled.failures[1].message, /^TypeError: /);
});

test("bytes that are no UTF-8 are rejected", () => {
  const handled = new Harness(stage((event) => event.text())).send("k", new Uint8Array([0xff]));
  assert.match(handled.failures[0].message, /^the payload is not UTF-8/);
});

test("only Retry asks to try again", () => {
  const fail = stage(() => {
    throw new Retry("later");
  });
  assert.deepEqual(failures(new Harness(fail).send("k")), [[0, "retry", "later"]]);
});

test("what failed leaves nothing behind", () => {
  const count = stage((event) => {
    event.emitJson(event.state.add("n"));
    event.timers.set("t", 5);
    if (event.text() === "no") throw new Error("no");
  });
  const harness = new Harness(count);
  const handled = harness.handle([{ key: "a" }, { key: "b", payload: "no" }, { key: "a" }]);
  assert.deepEqual(
    handled.outputs.map((out) => [out.cause, out.json()]),
    [
      [0, 1],
      [2, 2],
    ],
  );
  assert.equal(harness.counter("b", "n"), undefined);
  assert.deepEqual(harness.timers("b"), {});
});

test("a Trap ends the call", () => {
  const trap = stage(() => {
    throw new Trap("told to");
  });
  assert.throws(() => new Harness(trap).send("k"), Trap);
});

test("what was emitted before a Trap is gone", () => {
  const trap = stage((event) => {
    event.emit(event.payload);
    if (event.text() === "t") throw new Trap("told to");
  });
  const harness = new Harness(trap);
  assert.throws(() => harness.send("k", "t"), Trap);
  assert.deepEqual(outputs(harness.send("k", "a")), [[0, "k", 0, "a"]]);
});

test("a batch that throws has each event tried alone", () => {
  const fail = batch((events) => events.forEach((event) => event.emit(event.json())));
  const sent = ['"a"', "1"].map((payload) => ({ key: "k", payload }));
  const kinds = new Set(new Harness(fail).handle(sent).failures.map(({ kind }) => kind));
  assert.deepEqual(kinds, new Set(["retry"]));
  assert.equal(new Harness(fail).send("k", "1").failures[0].kind, "reject");
});

test("a batch names the event that failed", () => {
  const some = batch((events) => {
    for (const event of events) {
      if (event.text() === "no") event.fail("not this one");
      else event.emit("yes");
    }
  });
  const handled = new Harness(some).handle([{ key: "k" }, { key: "k", payload: "no" }]);
  assert.deepEqual(failures(handled), [[1, "reject", "not this one"]]);
  assert.equal(handled.outputs.length, 1);
});

test("an event of an earlier call is of no use", () => {
  const kept = [];
  const keep = stage((event) => {
    kept.push(event);
    kept[0].emit("again");
  });
  const harness = new Harness(keep);
  harness.send("k");
  assert.match(harness.send("k").failures[0].message, /of an earlier call/);
});

test("an async function fails its events and says why", () => {
  const handled = new Harness(stage(async () => {})).send("k");
  assert.match(handled.failures[0].message, /the function is async/);
});

test("a function of the wrong form is refused", () => {
  assert.throws(() => stage("text"), TypeError);
  for (const wrong of [() => {}, async () => {}, async function* () {}]) {
    assert.throws(() => stream(wrong), TypeError);
  }
});

test("slots are put, read, scanned and deleted", () => {
  const use = stage((event) => {
    const { state } = event;
    state.put("b", "text");
    state.putJson("a", { n: 1 });
    const found = [state.getText("b"), state.getJson("a"), state.getJson("none", 7)];
    found.push(
      state.scan().map(([slot]) => slot),
      state.delete("b"),
      state.delete("b"),
    );
    event.emitJson([...found, state.get("b") === undefined]);
  });
  const [out] = new Harness(use).send("k").outputs;
  assert.deepEqual(out.json(), ["text", { n: 1 }, 7, ["a", "b"], true, false, true]);
});

test("counters wrap around, and are never inexact", () => {
  const count = stage((event) => {
    event.state.addBig("n", 2n ** 63n - 1n);
    event.emit(String(event.state.addBig("n", 1n)));
    event.emitJson([
      event.state.add("m", -5),
      event.state.counter("m"),
      event.state.counter("none"),
    ]);
    if (event.text() === "inexact") event.state.add("n");
  });
  const handled = new Harness(count).send("k");
  assert.equal(handled.outputs[0].text(), String(-(2n ** 63n)));
  assert.deepEqual(handled.outputs[1].json(), [-5, -5, 0]);
  assert.match(new Harness(count).send("k", "inexact").failures[0].message, /addBig has it/);
});

test("a batch does all in one call", () => {
  const many = batch((events) => {
    const ask = new StateBatch();
    for (const event of events) {
      ask.put(event, "s", event.payload);
      ask.get(event, "s");
      ask.add(event, "n", -2);
      ask.addBig(event, "s", 1n);
      ask.delete(event, "none");
      ask.setTimer(event, "t", 2 ** 52, "wall");
      ask.cancelTimer(event, "none");
    }
    const replies = ask.run({ refused: true });
    events.forEach((event, index) => {
      const mine = replies.slice(index * 7, index * 7 + 7);
      event.emitJson(
        mine.map((r) =>
          r instanceof Refused ? r.message : r instanceof Uint8Array ? r.length : r,
        ),
      );
    });
  });
  const harness = new Harness(many);
  const handled = harness.handle([
    { key: "a", payload: "xyz" },
    { key: "b", payload: "x" },
  ]);
  const counter = "the slot holds 3 bytes, a counter has 8";
  assert.deepEqual(handled.outputs[0].json(), [true, 3, -2, counter, false, true, false]);
  assert.deepEqual(harness.timers("b"), { t: { clock: "wall", at: 2 ** 52 } });
});

test("a refusal is thrown unless it is wanted", () => {
  const refuse = stage((event) => {
    const ask = new StateBatch();
    ask.put(event, "s", "xyz");
    ask.add(event, "s");
    ask.run();
  });
  assert.match(
    new Harness(refuse).send("k").failures[0].message,
    /^Refused: the slot holds 3 bytes/,
  );
});

test("timers fire, and may go elsewhere", () => {
  const wait = stage(
    (event) => {
      event.timers.set("event", 10);
      event.timers.set("wall", 20, "wall");
      event.timers.set("gone", 5);
      event.timers.cancel("gone");
    },
    { timer: (event) => event.emit(event.timer) },
  );
  const harness = new Harness(wait);
  assert.deepEqual(harness.send("k").outputs, []);
  assert.deepEqual(outputs(harness.advanceWatermark(10)), [[0, "k", 10, "event"]]);
  assert.deepEqual(outputs(harness.advanceWatermark(99)), []);
  assert.deepEqual(outputs(harness.advanceClock(20)), [[0, "k", 20, "wall"]]);
});

test("settings, assets, log and metrics", () => {
  const use = stage((event) => {
    log.info("seen");
    metrics.count("events");
    metrics.gauge("level", 2);
    const values = [config.get("a"), config.get("b", "none"), config.names()];
    values.push(
      assets.text("blob"),
      assets.read("blob", 1, 1).length,
      assets.size("none") === undefined,
    );
    event.emitJson([...values, watermark(), now()]);
  });
  const harness = new Harness(use, { config: { a: "1" }, assets: { blob: "xyz" } });
  harness.advanceWatermark(3);
  harness.advanceClock(4);
  assert.deepEqual(harness.send("k").outputs[0].json(), [
    "1",
    "none",
    ["a"],
    "xyz",
    1,
    true,
    3,
    4,
  ]);
  assert.deepEqual(harness.log, [["info", "seen"]]);
  assert.deepEqual([harness.counts, harness.gauges], [{ events: 1 }, { level: 2 }]);
});

test("without a host it says so", () => {
  assert.throws(() => watermark(), /no host here/);
});

const largest = stream(function* (events) {
  let best;
  for (let event; (event = yield);) {
    const value = event.json();
    best = best === undefined ? value : Math.max(best, value);
    if (value === 99) events.fail("not this one");
  }
  events.emitJson(best);
});

test("a stream is read over many calls", () => {
  const harness = new Harness(largest);
  harness.open("k");
  assert.deepEqual(
    harness.handle(["1", "7"].map((payload) => ({ key: "k", payload }))).outputs,
    [],
  );
  harness.send("k", "3");
  assert.deepEqual(outputs(harness.end("k", { time: 8 })), [[0, "k", 8, "7"]]);
});

test("a stream in one call", () => {
  const events = [
    { key: "k", kind: "open" },
    { key: "k", payload: "1" },
    { key: "k", kind: "end" },
  ];
  assert.equal(new Harness(largest).handle(events).outputs.length, 1);
});

test("a failed event does not end the stream", () => {
  const harness = new Harness(largest);
  harness.open("k");
  assert.deepEqual(failures(harness.send("k", "99")), [[0, "reject", "not this one"]]);
  assert.equal(harness.end("k").outputs[0].json(), 99);
});

test("events after an error fail, until another stream opens", () => {
  const harness = new Harness(largest);
  harness.open("k");
  const handled = harness.handle(["{", "1"].map((payload) => ({ key: "k", payload })));
  assert.deepEqual(
    handled.failures.map(({ event }) => event),
    [0, 1],
  );
  assert.match(harness.send("k", "2").failures[0].message, /failed before/);
  assert.deepEqual(harness.open("k").failures, []);
  assert.deepEqual(harness.send("k", "2").failures, []);
});

test("a stream function that returns has seen enough", () => {
  const first = stream(function* () {
    const event = yield;
    event.emit(event.payload);
  });
  const harness = new Harness(first);
  harness.open("k");
  const handled = harness.handle(["a", "b"].map((payload) => ({ key: "k", payload })));
  assert.deepEqual(outputs(handled), [[0, "k", 0, "a"]]);
});

test("another key says that the scope is wrong", () => {
  const harness = new Harness(largest);
  harness.handle([
    { key: "k", kind: "open" },
    { key: "k", payload: "1" },
  ]);
  assert.match(harness.send("other", "1").failures[0].message, /scope = "stream"/);
});
