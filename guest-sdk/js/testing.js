// A harness that runs a stage in Node, for its unit tests: no node of sluicebox, no WebAssembly.
//
// A harness is one instance of the stage with a host in memory. It does what the host does:
//
// - An emitted event without a key gets the key of its cause; what is a trap there throws
//   `HostTrap`.
// - When events of a stage fail, nothing of the call stands: the host runs the others again
//   without them, so the stage sees these twice. A stream function is not run again.
// - Timers fire when the harness moves a clock, `advanceWatermark` or `advanceClock`, and by
//   nothing else.
//
// It does not do what a manifest says: no retries, no dead letters, no limits but those of names.

import * as frames from "./frame.js";
import { Refused, replace } from "./host.js";
import { Trap } from "./failure.js";
import { decode, encode, toBytes } from "./text.js";

const TIMERS_A_CALL_MAX = 256;
const EVENTS_A_CALL_MAX = 256;
// Calls after which a stage is said to set the same timers for ever.
const TIMER_CALLS_MAX = 10_000;

/** The host would have ended the call, and the instance with it. */
export class HostTrap extends Trap {
  name = "HostTrap";
}

const byBytes = (one, other) => {
  const [a, b] = [encode(one), encode(other)];
  for (let at = 0; at < Math.min(a.length, b.length); at += 1) {
    if (a[at] !== b[at]) return a[at] - b[at];
  }
  return a.length - b.length;
};

/** An event that a stage emitted. */
class Emitted {
  constructor(fields) {
    Object.assign(this, fields);
  }

  text() {
    return decode(this.payload);
  }

  json() {
    return JSON.parse(this.text());
  }
}

/** The host's functions, in memory: slots and timers by key and name. */
class Memory {
  slots = new Map();
  timers = new Map();
  watermark = 0;
  clock = 0;
  keys = [];
  emitted = [];
  lines = [];
  counts = {};
  gauges = {};

  constructor({ config = {}, assets = {} }) {
    this.config = config;
    this.assets = Object.fromEntries(Object.entries(assets).map(([k, v]) => [k, toBytes(v)]));
  }

  functions() {
    return {
      emit: (frame) => this.#emit(frame),
      stateGet: (event, slot) => this.#slotsOf(event).get(checked(slot))?.slice(),
      statePut: (event, slot, value) => {
        this.#slotsOf(event).set(checked(slot), value.slice());
      },
      stateDelete: (event, slot) => this.#slotsOf(event).delete(checked(slot)),
      stateScan: (event, prefix, limit) => this.#scan(event, prefix, limit),
      stateBatch: (operations) => this.#batch(operations),
      timerSet: (event, name, clock, at) => this.#setTimer(event, name, clock, at),
      timerCancel: (event, name) => this.#of(this.timers, event).delete(name),
      watermark: () => this.watermark,
      now: () => this.clock,
      configGet: (name) => (Object.hasOwn(this.config, name) ? this.config[name] : undefined),
      configNames: () => Object.keys(this.config).sort(byBytes),
      assetSize: (name) => this.assets[name]?.length,
      assetRead: (name, offset, length) => this.assets[name].slice(offset, offset + length),
      log: (level, message) => this.lines.push([level, message]),
      count: (name, delta) => {
        this.counts[name] = (this.counts[name] ?? 0) + delta;
      },
      gauge: (name, value) => {
        this.gauges[name] = value;
      },
    };
  }

  /** A copy of what a failed call is undone to. */
  copy() {
    const copied = (map) => new Map(Array.from(map, ([key, of]) => [key, new Map(of)]));
    return { slots: copied(this.slots), timers: copied(this.timers) };
  }

  takeDue() {
    const due = [];
    for (const [key, timers] of this.timers) {
      for (const [name, { clock, at }] of timers) {
        if (at <= (clock === "wall" ? this.clock : this.watermark)) due.push({ key, name, at });
      }
    }
    due.sort((a, b) => a.at - b.at || byBytes(a.key, b.key) || byBytes(a.name, b.name));
    const now = due.slice(0, TIMERS_A_CALL_MAX);
    for (const { key, name } of now) this.timers.get(key).delete(name);
    return now;
  }

  #key(event) {
    if (event >= this.keys.length) throw new HostTrap(`the call has no event ${event}`);
    return this.keys[event];
  }

  #of(map, event) {
    const key = this.#key(event);
    if (!map.has(key)) map.set(key, new Map());
    return map.get(key);
  }

  #slotsOf(event) {
    return this.#of(this.slots, event);
  }

  #scan(event, prefix, limit) {
    const found = Array.from(this.#slotsOf(event)).filter(([slot]) => slot.startsWith(prefix));
    return found.sort(([a], [b]) => byBytes(a, b)).slice(0, limit);
  }

  #add(event, slot, delta) {
    const before = this.#slotsOf(event).get(checked(slot)) ?? new Uint8Array(8);
    if (before.length !== 8) {
      throw new Refused(`the slot holds ${before.length} bytes, a counter has 8`);
    }
    const value = before.slice();
    const view = frames.viewOf(value);
    view.setBigInt64(0, view.getBigInt64(0, true) + delta, true);
    this.#slotsOf(event).set(slot, value);
    return value;
  }

  #setTimer(event, name, clock, at) {
    if (encode(name).length > 64) throw new Refused("the name of a timer has at most 64 bytes");
    if (!(at >= 0 && at < frames.TIME_END)) {
      throw new Refused(`the time of a timer is below 2^53, not ${at}`);
    }
    this.#of(this.timers, event).set(name, { clock, at });
  }

  #emit(frame) {
    for (const event of read(frame)) {
      if (event.cause >= this.keys.length) {
        throw new HostTrap(`an event names event ${event.cause} as its cause, which is not there`);
      }
      this.emitted.push(new Emitted({ ...event, key: event.key || this.keys[event.cause] }));
    }
  }

  /** Reads operations by the table in wit/FRAME.md, not by the code that packed them. */
  #batch(operations) {
    const view = frames.viewOf(operations);
    const replies = [];
    for (let at = 0; at < operations.length;) {
      const nameEnd = at + 16 + operations[at + 1];
      const end = nameEnd + view.getUint32(at + 8, true);
      const slot = decode(operations.subarray(at + 16, nameEnd));
      const value = operations.slice(nameEnd, end);
      const [status, reply] = this.#operation(
        operations[at],
        view.getUint32(at + 4, true),
        slot,
        value,
      );
      const head = new Uint8Array(8);
      head[0] = status;
      frames.viewOf(head).setUint32(4, reply.length, true);
      replies.push(...head, ...reply);
      at = end;
    }
    return Uint8Array.from(replies);
  }

  #operation(code, event, slot, value) {
    const nothing = new Uint8Array(0);
    const view = frames.viewOf(value);
    const { stateGet, statePut, stateDelete, timerCancel } = this.functions();
    try {
      switch (code) {
        case 1: {
          const found = stateGet(event, slot);
          return found === undefined ? [1, nothing] : [0, found];
        }
        case 2:
          statePut(event, slot, value);
          return [0, nothing];
        case 3:
          return [stateDelete(event, slot) ? 0 : 1, nothing];
        case 4:
          return [0, this.#add(event, slot, view.getBigInt64(0, true))];
        case 5:
          this.#setTimer(
            event,
            slot,
            value[0] === 1 ? "wall" : "event",
            frames.getNumber(view, 1),
          );
          return [0, nothing];
        case 6:
          return [timerCancel(event, slot) ? 0 : 1, nothing];
        default:
          throw new HostTrap(`a state batch has the operation ${code}`);
      }
    } catch (error) {
      if (error instanceof Refused) return [2, encode(error.message)];
      throw error;
    }
  }
}

function checked(slot) {
  if (encode(slot).length > 64) throw new HostTrap("the name of a slot is at most 64 bytes long");
  return slot;
}

/** The events of a frame that a stage emitted. */
function read(frame) {
  const view = frames.viewOf(frame);
  const events = [];
  let at = frames.HEADER_BYTES;
  for (let left = view.getUint32(8, true); left > 0; left -= 1) {
    const end = at + view.getUint32(at, true);
    const key = at + frames.HEAD_BYTES;
    const payload = key + view.getUint16(at + 10, true);
    const fields = payload + view.getUint32(at + 24, true);
    events.push({
      port: view.getUint16(at + 8, true),
      cause: view.getUint32(at + 12, true),
      time: frames.getNumber(view, at + 16),
      key: decode(frame.subarray(key, payload)),
      payload: frame.slice(payload, fields),
      fields: frames.readFields(frame.subarray(fields, end)),
    });
    at = end;
  }
  if (at !== frame.length) throw new HostTrap("a frame ends elsewhere than behind its last event");
  return events;
}

function frameOf(events) {
  const packer = new frames.Packer();
  for (const {
    kind = "data",
    input = 0,
    port = 0,
    time = 0,
    key,
    payload = "",
    fields = [],
  } of events) {
    const packed = frames.packFields(fields.map(([id, value]) => [id, toBytes(value)]));
    const number = frames.KINDS.indexOf(kind);
    packer.push(number, input, port, frames.NO_CAUSE, time, encode(key), toBytes(payload), packed);
  }
  return packer.take();
}

/** One instance of a stage, and its host. */
export class Harness {
  #handle;
  #undoes;
  #memory;

  constructor(stage, options = {}) {
    this.#handle = stage.instance();
    this.#undoes = stage.undoes;
    this.#memory = new Memory(options);
  }

  send(key, payload = "", options = {}) {
    return this.handle([{ ...options, key, payload }]);
  }

  sendJson(key, value, options = {}) {
    return this.send(key, JSON.stringify(value), options);
  }

  open(key, options = {}) {
    return this.handle([{ ...options, key, kind: "open" }]);
  }

  end(key, options = {}) {
    return this.handle([{ ...options, key, kind: "end" }]);
  }

  handle(events) {
    const whole = { outputs: [], failures: [] };
    for (let first = 0; first < events.length; first += EVENTS_A_CALL_MAX) {
      const one = this.#handleCall(events.slice(first, first + EVENTS_A_CALL_MAX));
      append(whole, one, first);
    }
    return whole;
  }

  advanceWatermark(micros) {
    this.#memory.watermark = Math.max(this.#memory.watermark, micros);
    return this.#fire();
  }

  advanceClock(micros) {
    this.#memory.clock = Math.max(this.#memory.clock, micros);
    return this.#fire();
  }

  state(key, slot) {
    return this.#memory.slots.get(key)?.get(slot);
  }

  slots(key) {
    return Object.fromEntries(this.#memory.slots.get(key) ?? []);
  }

  counter(key, slot) {
    const value = this.state(key, slot);
    return value === undefined ? undefined : frames.viewOf(value).getBigInt64(0, true);
  }

  timers(key) {
    return Object.fromEntries(this.#memory.timers.get(key) ?? []);
  }

  get log() {
    return this.#memory.lines;
  }

  get counts() {
    return this.#memory.counts;
  }

  get gauges() {
    return this.#memory.gauges;
  }

  #handleCall(events) {
    const memory = this.#memory;
    const handled = { outputs: [], failures: [] };
    for (let given = events.map((_, place) => place); given.length > 0;) {
      const before = memory.copy();
      const failures = this.#call(given.map((place) => events[place]));
      const again = this.#undoes && failures.length > 0;
      if (again) {
        Object.assign(memory, before);
      } else {
        handled.outputs = memory.emitted;
        for (const output of handled.outputs) output.cause = given[output.cause];
      }
      const failed = new Set(failures.map(({ event }) => given[event]));
      handled.failures.push(...failures.map((one) => ({ ...one, event: given[one.event] })));
      if (!again) break;
      given = given.filter((place) => !failed.has(place));
    }
    return handled;
  }

  #call(events) {
    const memory = this.#memory;
    memory.keys = events.map(({ key }) => key);
    memory.emitted = [];
    const before = replace(memory.functions());
    try {
      return this.#handle(frameOf(events));
    } finally {
      replace(before);
    }
  }

  /** Calls the stage with what is due until nothing is. */
  #fire() {
    const whole = { outputs: [], failures: [] };
    let fired = 0;
    for (let calls = 0; calls < TIMER_CALLS_MAX; calls += 1) {
      const due = this.#memory.takeDue();
      if (due.length === 0) return whole;
      const events = due.map(({ key, name, at }) => ({
        kind: "timer",
        key,
        payload: name,
        time: at,
      }));
      append(whole, this.handle(events), fired);
      fired += due.length;
    }
    throw new Error("the stage keeps setting timers for a time that has come");
  }
}

function append(whole, one, first) {
  for (const output of one.outputs) {
    output.cause += first;
    whole.outputs.push(output);
  }
  for (const failed of one.failures)
    whole.failures.push({ ...failed, event: failed.event + first });
}
