// Keyed state and timers: named slots, and wake-ups, that belong to the key of an event.
//
// - A stage reaches those of an event's key and no others.
// - What is written stands if the call that wrote it succeeds and the event does not fail.
//
// Each method of `State` and `Timers` is one call of the host. `StateBatch` makes one call for
// many operations; for a call of 256 events that costs about as much as one `get`.
//
// Counters have 64 bits and a number of JavaScript has 53. So they cross as bytes, and what does
// not fit a number is refused unless it was asked for as a BigInt.

import { setNumber, viewOf, TIME_END } from "./frame.js";
import { host, Refused } from "./host.js";
import { decode, encode, toBytes, toJson } from "./text.js";

const [GET, PUT, DELETE, ADD, SET_TIMER, CANCEL_TIMER] = [1, 2, 3, 4, 5, 6];
const CLOCKS = { event: 0, wall: 1 };
const NONE = new Uint8Array(0);

function clockOf(name) {
  if (!(name in CLOCKS)) throw new TypeError(`a timer waits by "event" or "wall", not by ${name}`);
  return CLOCKS[name];
}

/** A counter as a number, or an error that says how to have it whole. */
function exact(counter, slot) {
  const number = Number(counter);
  if (!Number.isSafeInteger(number)) {
    throw new RangeError(
      `the counter ${slot} is at ${counter}, which is no exact number: addBig has it`,
    );
  }
  return number;
}

function counterOf(bytes) {
  if (bytes.length !== 8)
    throw new Refused(`the slot holds ${bytes.length} bytes, a counter has 8`);
  return viewOf(bytes).getBigInt64(0, true);
}

/** The state of one event's key. Slots are named by at most 64 bytes of UTF-8. */
export class State {
  #event;

  constructor(event) {
    this.#event = event;
  }

  get(slot) {
    return host.stateGet(this.#event.ofCall(), slot);
  }

  getText(slot) {
    const value = this.get(slot);
    return value === undefined ? undefined : decode(value);
  }

  getJson(slot, fallback) {
    const value = this.get(slot);
    return value === undefined ? fallback : JSON.parse(decode(value));
  }

  put(slot, value) {
    host.statePut(this.#event.ofCall(), slot, toBytes(value));
  }

  putJson(slot, value) {
    host.statePut(this.#event.ofCall(), slot, toJson(value));
  }

  delete(slot) {
    return host.stateDelete(this.#event.ofCall(), slot);
  }

  add(slot, delta = 1) {
    return exact(this.addBig(slot, BigInt(delta)), slot);
  }

  addBig(slot, delta) {
    const batch = new StateBatch();
    batch.addBig(this.#event, slot, delta);
    return batch.run()[0];
  }

  counter(slot) {
    const value = this.get(slot);
    return value === undefined ? 0 : exact(counterOf(value), slot);
  }

  scan(prefix = "", limit = 1_000) {
    return host.stateScan(this.#event.ofCall(), prefix, limit);
  }
}

/** The timers of one event's key. Names are at most 64 bytes of UTF-8. */
export class Timers {
  #event;

  constructor(event) {
    this.#event = event;
  }

  set(name, at, clock = "event") {
    clockOf(clock);
    host.timerSet(this.#event.ofCall(), name, clock, at);
  }

  cancel(name) {
    return host.timerCancel(this.#event.ofCall(), name);
  }
}

/** Operations on the state and the timers of many events' keys, done in one call of the host. */
export class StateBatch {
  #operations = [];
  #bytes = 0;

  get(event, slot) {
    this.#push(GET, event, slot, NONE);
  }

  put(event, slot, value) {
    this.#push(PUT, event, slot, toBytes(value));
  }

  putJson(event, slot, value) {
    this.#push(PUT, event, slot, toJson(value));
  }

  delete(event, slot) {
    this.#push(DELETE, event, slot, NONE);
  }

  add(event, slot, delta = 1) {
    this.#add(event, slot, BigInt(delta), false);
  }

  addBig(event, slot, delta) {
    this.#add(event, slot, delta, true);
  }

  setTimer(event, name, at, clock = "event") {
    if (!(Number.isSafeInteger(at) && at >= 0 && at < TIME_END)) {
      throw new RangeError(`the time of a timer is a whole number below 2^53, not ${at}`);
    }
    const value = new Uint8Array(9);
    value[0] = clockOf(clock);
    setNumber(viewOf(value), 1, at);
    this.#push(SET_TIMER, event, name, value);
  }

  cancelTimer(event, name) {
    this.#push(CANCEL_TIMER, event, name, NONE);
  }

  #add(event, slot, delta, big) {
    const value = new Uint8Array(8);
    viewOf(value).setBigInt64(0, delta, true);
    this.#push(ADD, event, slot, value, big);
  }

  #push(code, event, slot, value, big = false) {
    const name = encode(slot);
    if (name.length > 64)
      throw new RangeError("the name of a slot or timer is at most 64 bytes long");
    this.#operations.push({ code, index: event.ofCall(), slot, name, value, big });
    this.#bytes += 16 + name.length + value.length;
  }

  run(options = {}) {
    const operations = this.#operations;
    if (operations.length === 0) return [];
    const packed = this.#pack();
    this.#operations = [];
    this.#bytes = 0;
    const replies = host.stateBatch(packed);
    const view = viewOf(replies);
    let at = 0;
    return operations.map((operation) => {
      const status = view.getUint8(at);
      const end = at + 8 + view.getUint32(at + 4, true);
      const value = replies.slice(at + 8, end);
      at = end;
      const reply = replyOf(operation, status, value);
      if (reply instanceof Refused && options.refused !== true) throw reply;
      return reply;
    });
  }

  #pack() {
    const packed = new Uint8Array(this.#bytes);
    const view = viewOf(packed);
    let at = 0;
    for (const { code, index, name, value } of this.#operations) {
      packed[at] = code;
      packed[at + 1] = name.length;
      view.setUint32(at + 4, index, true);
      view.setUint32(at + 8, value.length, true);
      packed.set(name, at + 16);
      packed.set(value, at + 16 + name.length);
      at += 16 + name.length + value.length;
    }
    return packed;
  }
}

function replyOf({ code, slot, big }, status, value) {
  if (status === 2) return new Refused(decode(value));
  if (code === GET) return status === 0 ? value : undefined;
  if (code !== ADD) return status === 0;
  const counter = counterOf(value);
  return big ? counter : exact(counter, slot);
}
