// What windows are made of: a call's events by key, when an event is late, and slots that are read
// in one call of the host and written in another.
//
// - A call of 256 events costs two calls of the host, however many keys it has: one batch reads
//   what the keys have, one writes what changed. Firing a window may need another, for its panes.
// - Every key has at most one timer for each routine, set for the earliest thing it waits for.
// - Slots and timers of a routine are named `@name` and `@name/…`; a stage that keeps slots of its
//   own does not begin their names with `@`.
// - What the host refuses fails the events that wanted it. Nothing is lost silently: an event is
//   counted, goes to the late port, or fails.

import { TIME_END } from "./frame.js";
import { Reject, Retry } from "./failure.js";
import { host, Refused } from "./host.js";
import { isTrap } from "./stage.js";
import { StateBatch } from "./state.js";
import { decode, encode } from "./text.js";

const NAME_BYTES_MAX = 32;
const DROPPED = "late_events_dropped";
// Fields below this id are the host's, which writes them itself.
const FIELD_OF_ANYONE = 256;

/** What every routine can be told. */
export class Terms {
  constructor(name, lateness, { latePort, dropLate = false, byClock = false, only }) {
    const bytes = encode(name).length;
    if (bytes === 0 || bytes > NAME_BYTES_MAX || name.includes("/")) {
      throw new RangeError("the name of a routine is 1 to 32 bytes long, without `/`");
    }
    Object.assign(this, { name, lateness, latePort, dropLate, only });
    this.slot = `@${name}`;
    this.clock = byClock ? "wall" : "event";
  }

  /** The time an event counts at. */
  time(event) {
    return this.clock === "wall" ? host.now() : event.time;
  }

  /** The time before which nothing is expected any more. */
  watermark() {
    return this.clock === "wall" ? host.now() : host.watermark();
  }

  /** Whether the routine takes this event: its own timers, and data that passes the filter. */
  takes(event) {
    const { kind } = event;
    if (kind === "timer") return event.timer === this.slot;
    return kind === "data" && (this.only === undefined || this.only(event));
  }

  /** Sends an event that is too late where the stage says. */
  tooLate(event, behind) {
    if (this.latePort !== undefined) {
      const fields = event.fields().filter(([id]) => id >= FIELD_OF_ANYONE);
      event.emit(event.payload, { port: this.latePort, fields });
    } else if (this.dropLate) {
      host.count(DROPPED, 1);
    } else {
      throw new Reject(
        `${this.name}: too late, at ${this.time(event)} with the watermark at ${behind}; ` +
          "allow more lateness or give late events a port",
      );
    }
  }
}

/** Checks that nothing an event at `time` leads to lies behind the end of time. */
export function checkTime(time, reach) {
  if (time + reach >= TIME_END) {
    throw new Reject(`the time ${time} is too close to 2^53, where time ends`);
  }
}

function unreadable(slot) {
  return new Reject(
    `the slot ${slot} holds what was kept in another form: name the routine anew, or ` +
      "discard the state of the stage",
  );
}

/** Does something for an event, which fails if it throws. */
export function attempt(event, run) {
  try {
    return run();
  } catch (error) {
    if (isTrap(error)) throw error;
    event.fail(error);
    return undefined;
  }
}

/** The events that `takes` lets through, and their keys in the order of first events. */
export function callOf(events, takes) {
  const call = { events: [], keys: [] };
  const places = new Map();
  for (const event of events) {
    // A filter may give anything that counts as true, as one of an array may.
    if (!attempt(event, () => takes(event))) continue;
    const name = event.key;
    if (!places.has(name)) {
      places.set(name, call.keys.length);
      call.keys.push({ event, events: [], fired: false });
    }
    const key = places.get(name);
    call.keys[key].events.push(event);
    if (event.kind === "timer") call.keys[key].fired = true;
    call.events.push({ event, key });
  }
  return call;
}

/**
 * Fails all events of a key: what the host says concerns them together. If there are several the
 * host is to try each alone, and finds the one that is too much.
 */
function refuse(call, key, refused) {
  const { events } = call.keys[key];
  const failure = events.length === 1 ? new Reject(refused.message) : new Retry(refused.message);
  for (const event of events) event.fail(failure);
}

/** Writes of many keys, and which key asked for which. */
class Writes {
  #call;
  #batch = new StateBatch();
  #asked = [];

  constructor(call) {
    this.#call = call;
  }

  put(key, slot, value) {
    this.#batch.put(this.#call.keys[key].event, slot, value);
    this.#asked.push(key);
  }

  delete(key, slot) {
    this.#batch.delete(this.#call.keys[key].event, slot);
    this.#asked.push(key);
  }

  /** Sets the timer of a key from what it is set for to what is wanted. */
  timer(terms, key, was, wanted) {
    const { event, fired } = this.#call.keys[key];
    if ((fired ? null : was) === wanted) return;
    if (wanted === null) this.#batch.cancelTimer(event, terms.slot);
    else this.#batch.setTimer(event, terms.slot, wanted, terms.clock);
    this.#asked.push(key);
  }

  done() {
    this.#batch.run({ refused: true }).forEach((reply, place) => {
      if (reply instanceof Refused) refuse(this.#call, this.#asked[place], reply);
    });
  }
}

/** What lies in a slot, read as JSON; undefined if it is none. */
function parsed(bytes) {
  try {
    return JSON.parse(decode(bytes));
  } catch {
    return undefined;
  }
}

/** One slot a key: read for all keys at once, changed in memory, written at once. */
export class Cells {
  #terms;
  #call;
  #cells;

  constructor(terms, call, make) {
    this.#terms = terms;
    this.#call = call;
    const batch = new StateBatch();
    for (const { event } of call.keys) batch.get(event, terms.slot);
    this.#cells = batch.run({ refused: true }).map((value, key) => {
      if (value instanceof Refused) {
        refuse(call, key, value);
        return null;
      }
      if (value === undefined) return { before: null, wakes: null, cell: make() };
      const kept = parsed(value);
      if (kept?.cell === undefined) return null;
      return { before: decode(value), wakes: kept.wakes, cell: kept.cell };
    });
  }

  /** Gives the cell of each event's key to `handle`; if it throws the cell is as it was. */
  each(handle) {
    for (const { event, key } of this.#call.events) {
      const loaded = this.#cells[key];
      attempt(event, () => {
        if (loaded === null) throw unreadable(this.#terms.slot);
        const cell = JSON.parse(JSON.stringify(loaded.cell));
        handle(event, cell);
        loaded.cell = cell;
      });
    }
  }

  /** Has the host write what changed. */
  close(isEmpty, wakes) {
    const writes = new Writes(this.#call);
    const { slot } = this.#terms;
    this.#cells.forEach((loaded, key) => {
      if (loaded === null) return;
      const empty = isEmpty(loaded.cell);
      const wanted = empty ? null : wakes(loaded.cell);
      if (empty && loaded.before !== null) {
        writes.delete(key, slot);
      } else if (!empty) {
        const value = JSON.stringify({ wakes: wanted, cell: loaded.cell });
        if (value !== loaded.before) writes.put(key, slot, value);
      }
      writes.timer(this.#terms, key, loaded.wakes, wanted);
    });
    writes.done();
  }
}

/** How many of these numbers, which ascend, are below one. */
export function countBelow(numbers, one) {
  let [low, high] = [0, numbers.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (numbers[middle] < one) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** What is known of one key: what the routine notes, and which panes there are. */
class Index {
  // Panes that were read or made in this call, those the host has, and those that changed.
  panes = new Map();
  stored = new Set();
  changed = new Set();

  constructor(key, before, kept) {
    this.key = key;
    this.before = before;
    this.notes = kept.notes ?? {};
    this.ids = kept.panes ?? [];
    this.wakes = kept.wakes ?? null;
    this.was = this.wakes;
  }

  lists(pane) {
    return this.ids[countBelow(this.ids, pane)] === pane;
  }
}

/**
 * A slot for each span of time of a key: panes, and an index that lists them.
 *
 *   @name            index: when to wake, what the routine notes, numbers of panes, ascending
 *   @name/1f         the pane with the number 0x1f
 *
 * An event touches its own pane and the index; other panes are neither read nor written. The index
 * is the truth: a pane it does not list is not there. Without panes there is no index, and no
 * timer.
 */
export class Shelf {
  #terms;
  #call;
  #indices = [];

  constructor(terms, call, guess) {
    this.#terms = terms;
    this.#call = call;
    const batch = new StateBatch();
    const guessed = call.keys.map(({ event, events }) => {
      const panes = Array.from(new Set(events.flatMap(guess)));
      batch.get(event, terms.slot);
      for (const pane of panes) batch.get(event, this.#slot(pane));
      return panes;
    });
    const replies = batch.run({ refused: true });
    let at = 0;
    guessed.forEach((panes, key) => {
      this.#indices.push(this.#read(key, replies[at]));
      at += 1;
      for (const pane of panes) {
        this.#take(key, pane, replies[at]);
        at += 1;
      }
    });
  }

  /** Reads panes that are listed and not yet read, as far as they are: pairs of key and number. */
  fetch(wanted) {
    const batch = new StateBatch();
    const asked = [];
    const seen = new Set();
    for (const [key, pane] of wanted) {
      const index = this.#indices[key];
      const name = `${key}/${pane}`;
      if (index === null || seen.has(name) || !index.lists(pane) || index.panes.has(pane))
        continue;
      seen.add(name);
      batch.get(this.#call.keys[key].event, this.#slot(pane));
      asked.push([key, pane]);
    }
    batch.run({ refused: true }).forEach((value, place) => this.#take(...asked[place], value));
  }

  /** What is known of a key; null if it could not be read. */
  known(key) {
    return this.#indices[key];
  }

  /** What is known of a key; throws if it could not be read. */
  index(key) {
    const index = this.#indices[key];
    if (index === null) throw unreadable(this.#terms.slot);
    return index;
  }

  /** All keys that could be read. */
  readable() {
    return this.#indices.filter((index) => index !== null);
  }

  /** What a pane holds; undefined if there is none. */
  pane(index, pane) {
    if (index.lists(pane) && !index.panes.has(pane)) this.fetch([[index.key, pane]]);
    this.index(index.key);
    return index.panes.get(pane);
  }

  put(index, pane, kept) {
    if (!index.lists(pane)) index.ids.splice(countBelow(index.ids, pane), 0, pane);
    index.panes.set(pane, kept);
    index.changed.add(pane);
  }

  /** Removes the first panes of a key. */
  removeFirst(index, count) {
    for (const pane of index.ids.splice(0, count)) {
      // One that was not read is there: the index said so.
      if (!index.panes.has(pane)) index.stored.add(pane);
      index.panes.set(pane, undefined);
      index.changed.add(pane);
    }
  }

  /** Has the host write what changed. */
  close() {
    const writes = new Writes(this.#call);
    for (const index of this.readable()) this.#write(index, writes);
    writes.done();
  }

  #slot(pane) {
    return `${this.#terms.slot}/${pane.toString(16)}`;
  }

  #read(key, value) {
    if (value instanceof Refused) {
      refuse(this.#call, key, value);
      return null;
    }
    if (value === undefined) return new Index(key, null, {});
    const kept = parsed(value);
    return kept === undefined ? null : new Index(key, decode(value), kept);
  }

  /** Takes what the host said of a pane. */
  #take(key, pane, value) {
    const index = this.#indices[key];
    if (index === null || value instanceof Refused) return;
    if (value !== undefined) index.stored.add(pane);
    const kept = value !== undefined && index.lists(pane) ? parsed(value) : undefined;
    if (kept === undefined && value !== undefined && index.lists(pane)) this.#indices[key] = null;
    else index.panes.set(pane, kept);
  }

  #write(index, writes) {
    for (const pane of index.changed) {
      const kept = index.panes.get(pane);
      if (kept !== undefined) writes.put(index.key, this.#slot(pane), JSON.stringify(kept));
      else if (index.stored.has(pane)) writes.delete(index.key, this.#slot(pane));
    }
    const isEmpty = index.ids.length === 0;
    const wanted = isEmpty ? null : index.wakes;
    if (!isEmpty) {
      const value = JSON.stringify({ wakes: wanted, notes: index.notes, panes: index.ids });
      if (value !== index.before) writes.put(index.key, this.#terms.slot, value);
    } else if (index.before !== null) {
      writes.delete(index.key, this.#terms.slot);
    }
    writes.timer(this.#terms, index.key, index.was, wanted);
  }
}
