// Windows: what they say of events that come in order, late and too late; and, for random courses
// of events, that they say what a naive model says, and leave nothing behind.

import assert from "node:assert/strict";
import { test } from "node:test";

import { batch } from "sluicebox";
import { Harness } from "sluicebox/testing";
import { count, distinct, max, mean, min, pair, sum, top, Window } from "sluicebox/window";

function stageOf(window, made = sum(), emit = undefined) {
  const aggregated = window.aggregate(made, (event) => event.json());
  return batch((events) => aggregated.run(events, emit));
}

const at = (time, value, key = "k") => ({ key, payload: JSON.stringify(value), time });

function results(handled) {
  assert.deepEqual(handled.failures, []);
  return handled.outputs.map((out) => [out.port, out.key, out.time, out.json()]);
}

const said = (handled) =>
  results(handled).map(([, , , { start, end, firing, value }]) => [start, end, firing, value]);

function isEmpty(harness, key = "k") {
  assert.deepEqual([harness.slots(key), harness.timers(key)], [{}, {}]);
}

test("a tumbling window gives its result when it is over", () => {
  const harness = new Harness(stageOf(Window.tumbling(10)));
  harness.handle([at(3, 1), at(9, 2), at(10, 4)]);
  assert.deepEqual(results(harness.advanceWatermark(9)), []);
  const expected = { key: "k", start: 0, end: 10, value: 3 };
  assert.deepEqual(results(harness.advanceWatermark(10)), [[0, "k", 9, expected]]);
  assert.deepEqual(said(harness.advanceWatermark(99)), [[10, 20, undefined, 4]]);
  isEmpty(harness);
});

test("an event is in every sliding window over it", () => {
  const harness = new Harness(stageOf(Window.sliding(6, 4)));
  harness.handle([at(9, 1)]);
  assert.deepEqual(said(harness.advanceWatermark(99)), [
    [4, 10, undefined, 1],
    [8, 14, undefined, 1],
  ]);
});

test("late events correct, too late ones leave elsewhere", () => {
  const harness = new Harness(stageOf(Window.tumbling(10, { allowedLateness: 5, latePort: 1 })));
  harness.handle([at(3, 1)]);
  harness.advanceWatermark(12);
  assert.deepEqual(said(harness.handle([at(4, 2)])), [[0, 10, "late", 3]]);
  harness.advanceWatermark(15);
  assert.deepEqual(results(harness.handle([at(4, 4)])), [[1, "k", 4, 4]]);
  isEmpty(harness);
});

test("without a port a late event fails, or is counted", () => {
  const failing = new Harness(stageOf(Window.tumbling(10)));
  failing.advanceWatermark(20);
  assert.match(failing.handle([at(4, 1)]).failures[0].message, /too late, at 4/);
  const dropping = new Harness(stageOf(Window.tumbling(10, { dropLate: true })));
  dropping.advanceWatermark(20);
  assert.deepEqual(results(dropping.handle([at(4, 1)])), []);
  assert.deepEqual(dropping.counts, { late_events_dropped: 1 });
});

test("a filter takes what counts as true", () => {
  const window = Window.tumbling(10, { only: (event) => event.text().match(/[1-9]/) });
  const harness = new Harness(stageOf(window));
  assert.deepEqual(results(harness.handle([at(3, 1), at(4, 0), at(5, 2)])), []);
  assert.deepEqual(said(harness.advanceWatermark(99)), [[0, 10, undefined, 3]]);
});

test("sessions grow together", () => {
  const harness = new Harness(stageOf(Window.session(10)));
  harness.handle([at(3, 1), at(20, 2)]);
  harness.handle([at(12, 4)]);
  assert.deepEqual(said(harness.advanceWatermark(30)), [[3, 30, undefined, 7]]);
  isEmpty(harness);
});

test("a late event names the sessions it joins", () => {
  const harness = new Harness(stageOf(Window.session(10, { allowedLateness: 50 })));
  harness.handle([at(3, 1), at(20, 2)]);
  assert.equal(said(harness.advanceWatermark(40)).length, 2);
  const [[, , , joined]] = results(harness.handle([at(12, 4)]));
  assert.deepEqual([joined.start, joined.replaces, joined.value], [3, [3, 20], 7]);
});

test("a window of a count is full, or over", () => {
  const harness = new Harness(stageOf(Window.count(2, { orAfter: 10 })));
  assert.deepEqual(said(harness.handle([1, 2, 5].map((n) => at(n, n)))), [[1, 3, undefined, 3]]);
  assert.deepEqual(said(harness.advanceWatermark(15)), [[5, 6, undefined, 5]]);
  isEmpty(harness);
});

test("open windows give results early", () => {
  const harness = new Harness(stageOf(Window.tumbling(100, { earlyEvery: 10 })));
  harness.handle([at(3, 1)]);
  assert.deepEqual(said(harness.advanceWatermark(10)), [[0, 100, "early", 1]]);
  assert.deepEqual(said(harness.advanceWatermark(20)), []);
  harness.handle([at(25, 1)]);
  assert.deepEqual(said(harness.advanceWatermark(30)), [[0, 100, "early", 2]]);
  assert.deepEqual(said(harness.advanceWatermark(100)), [[0, 100, undefined, 2]]);
});

test("windows by the clock take no event for late", () => {
  const harness = new Harness(stageOf(Window.tumbling(10, { byClock: true })));
  harness.advanceClock(57);
  harness.handle([at(3, 1)]);
  assert.deepEqual(said(harness.advanceClock(60)), [[50, 60, undefined, 1]]);
});

test("shifted windows begin later", () => {
  const harness = new Harness(stageOf(Window.tumbling(24, { shifted: 23 })));
  harness.handle([at(24, 1)]);
  assert.deepEqual(said(harness.advanceWatermark(99)), [[23, 47, undefined, 1]]);
});

test("what each aggregate makes", () => {
  const made = [
    [count(), [2, 1, 3], 3],
    [sum(), [2, 1, 3], 6],
    [min(), [2, 1, 3], 1],
    [max(), [2, 1, 3], 3],
    [mean(), [2, 1, 3], 2],
    [distinct(2), [1, 2, 1, 3], { count: 2, exact: false }],
    [distinct(9), [1, 2, 1, 3], { count: 3, exact: true }],
    [
      pair(sum(), count()),
      [
        [1, 0],
        [2, 0],
      ],
      [3, 2],
    ],
    [
      top(2),
      [
        [1, "a"],
        [3, "b"],
        [3, "c"],
      ],
      [
        { score: 3, item: "b" },
        { score: 3, item: "c" },
      ],
    ],
  ];
  for (const [aggregate, values, expected] of made) {
    const harness = new Harness(stageOf(Window.count(values.length), aggregate));
    assert.deepEqual(said(harness.handle(values.map((value) => at(0, value))))[0][3], expected);
  }
});

test("the stage may say what leaves", () => {
  const emit = ({ key, value }, event, time) =>
    event.emit(`${key} had ${value}`, { port: 2, time });
  const harness = new Harness(stageOf(Window.tumbling(10), sum(), emit));
  harness.handle([at(3, 1)]);
  const [out] = harness.advanceWatermark(10).outputs;
  assert.deepEqual([out.port, out.time, out.text()], [2, 9, "k had 1"]);
});

test("one bad event fails alone, and what is no number is bad", () => {
  const harness = new Harness(stageOf(Window.tumbling(10)));
  const bad = { key: "k", payload: "{", time: 3 };
  const handled = harness.handle([at(3, 1), bad, at(4, "text")]);
  assert.deepEqual(
    handled.failures.map(({ event }) => event),
    [1, 2],
  );
  assert.deepEqual(said(harness.advanceWatermark(10)), [[0, 10, undefined, 1]]);
});

test("panes are bounded", () => {
  const harness = new Harness(stageOf(Window.tumbling(10, { panesMax: 2 })));
  const handled = harness.handle([1, 11, 21].map((time) => at(time, 1)));
  assert.match(handled.failures[0].message, /2 panes already/);
});

test("lengths are checked", () => {
  const wrong = [
    () => Window.tumbling(0),
    () => Window.tumbling(0.5),
    () => Window.sliding(5, 6),
    () => Window.sliding(3_600_000_000, 7),
    () => Window.session(0),
    () => Window.count(0),
    () => Window.tumbling(5, { name: "a/b" }),
    () => Window.tumbling(5, { earlyEvery: 0 }),
  ];
  for (const make of wrong) assert.throws(make, RangeError);
});

/** Windows, each looked at for itself. */
class Model {
  events = [];

  constructor(size, slide, lateness) {
    Object.assign(this, { size, slide, lateness });
  }

  windows(time) {
    const starts = [];
    const first = Math.max(Math.ceil((time - this.size + 1) / this.slide) * this.slide, 0);
    for (let start = first; start <= time; start += this.slide) {
      if (time < start + this.size) starts.push(start);
    }
    return starts;
  }

  result(key, start, firing) {
    const end = start + this.size;
    const mine = this.events.filter(
      (one) => one.key === key && start <= one.time && one.time < end,
    );
    return [key, start, end, firing, mine.reduce((all, one) => all + one.value, 0)].join();
  }

  event({ key, time, value }, watermark) {
    const windows = this.windows(time);
    if (Math.max(...windows) + this.size + this.lateness <= watermark)
      return [`${key},late,${value}`];
    this.events.push({ key, time, value });
    const isLate = (end) => end <= watermark && watermark < end + this.lateness;
    const late = windows.filter((start) => isLate(start + this.size));
    return late.map((start) => this.result(key, start, "late"));
  }

  advance(before, watermark) {
    const found = new Set(
      this.events.flatMap(({ key, time }) => this.windows(time).map((s) => `${key} ${s}`)),
    );
    const over = Array.from(found, (one) => one.split(" ")).map(([key, start]) => [
      key,
      Number(start),
    ]);
    const isOver = ([, start]) => before < start + this.size && start + this.size <= watermark;
    return over.filter(isOver).map(([key, start]) => this.result(key, start, ""));
  }
}

/** Numbers that look random, from a seed. */
function chanceOf(seed) {
  let state = seed * 2_654_435_761 + 1;
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 2_246_822_519) + 3_266_489_917) >>> 0;
    return state % below;
  };
}

function compare(handled, expected) {
  const found = results(handled).map(([port, key, , value]) =>
    port === 1
      ? `${key},late,${value}`
      : [key, value.start, value.end, value.firing ?? "", value.value].join(),
  );
  assert.deepEqual(found.sort(), expected.sort());
}

test("windows say what a naive model says", () => {
  for (let seed = 1; seed <= 300; seed += 1) {
    const chance = chanceOf(seed);
    const size = 1 + chance(40);
    const slide = 1 + chance(size);
    const allowedLateness = [0, 0, 7, 60][chance(4)];
    const harness = new Harness(
      stageOf(Window.sliding(size, slide, { allowedLateness, latePort: 1 })),
    );
    const model = new Model(size, slide, allowedLateness);
    let [clock, watermark, waiting] = [100, 0, []];
    for (let steps = 1 + chance(60); steps > 0; steps -= 1) {
      clock += chance(16);
      for (let events = chance(4); events > 0; events -= 1) {
        const time = Math.max(clock - chance(80), 0);
        waiting.push({ key: "abc"[chance(3)], time, value: chance(6) });
      }
      if (chance(2) === 0) {
        const expected = waiting.flatMap((sent) => model.event(sent, watermark));
        compare(
          harness.handle(waiting.map(({ key, time, value }) => at(time, value, key))),
          expected,
        );
        waiting = [];
      }
      if (chance(3) === 0) {
        const before = watermark;
        watermark = Math.max(watermark, clock - chance(60));
        const expected = model.advance(before, watermark);
        compare(harness.advanceWatermark(watermark), expected);
      }
    }
    compare(harness.advanceWatermark(2 ** 40), model.advance(watermark, 2 ** 40));
    for (const key of "abc") isEmpty(harness, key);
  }
});
