// Windows: what came within a span of time, or how much of it, as one result.
//
//   import { batch } from "sluicebox";
//   import { HOUR, sum, Window } from "sluicebox/window";
//
// const revenue = Window.tumbling(HOUR, { latePort: 1 }).aggregate(sum(), (event) =>
// event.json().cents);
//   export default batch((events) => revenue.run(events));
//
// A window is of one key. Its result leaves when the watermark has passed its end: by port 0, as
// {"key": "shop 7", "start": …, "end": …, "value": …}, with the last microsecond of the window as
// its time, so that windows of windows nest. It means what windows of the SDK for Rust mean, late
// events, early results and bounds included: docs/guide/windows.md of the project.
//
// Lengths of time are microseconds. What is kept lies in slots that begin with `@` and the name,
// as JSON. It is not what the SDK for Rust keeps: a stage that is written anew in another language
// names its windows anew.

import { TIME_END } from "./frame.js";
import { Reject } from "./failure.js";
import { attempt, callOf, Cells, checkTime, countBelow, Shelf, Terms } from "./keyed.js";

export const [SECOND, MINUTE, HOUR, DAY] = [1e6, 60e6, 3_600e6, 86_400e6];

const PANES_A_WINDOW_MAX = 1_024;
// Windows of a key that give their results in one call; the rest follow in the next.
const FIRED_MAX = 64;

function micros(time, least = 0) {
  if (!(Number.isSafeInteger(time) && time >= least && time < TIME_END)) {
    throw new RangeError(
      `${time} is no length of time: whole microseconds from ${least} on, below 2^53`,
    );
  }
  return time;
}

const identity = (value) => value;

/** Lets numbers through: what is none would go on as NaN, and lie in a slot as null. */
function number(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw new TypeError(`a window wants a number, not ${value}`);
  }
  return value;
}

/** Lets numbers and texts through. */
const ordered = (value) => (typeof value === "string" ? value : number(value));

/** An aggregate: what is kept of one input, what of two, and the result. What is kept is JSON. */
const aggregate = (merge, first = identity, output = identity) => ({ first, merge, output });

export const count = () =>
  aggregate(
    (kept, later) => kept + later,
    () => 1,
  );
export const sum = () => aggregate((kept, later) => kept + later, number);
export const min = () => aggregate((kept, later) => (later < kept ? later : kept), ordered);
export const max = () => aggregate((kept, later) => (later > kept ? later : kept), ordered);

export const mean = () =>
  aggregate(
    ([sumOf, countOf], [laterSum, laterCount]) => [sumOf + laterSum, countOf + laterCount],
    (value) => [number(value), 1],
    ([sumOf, countOf]) => sumOf / countOf,
  );

export function distinct(most) {
  micros(most, 1);
  return aggregate(
    ([values, more], [laterValues, laterMore]) => {
      const all = Array.from(new Set([...values, ...laterValues]));
      all.sort((a, b) => (a < b ? -1 : Number(a > b)));
      return [all.slice(0, most), more || laterMore || all.length > most];
    },
    (value) => [[ordered(value)], false],
    ([values, more]) => ({ count: values.length, exact: !more }),
  );
}

export function top(most) {
  micros(most, 1);
  return aggregate(
    // Sorting is stable, so of equals the first to come stays first.
    (kept, later) =>
      [...kept, ...later].sort(([a], [b]) => (a > b ? -1 : Number(a < b))).slice(0, most),
    ([score, item]) => [[ordered(score), item]],
    (kept) => kept.map(([score, item]) => ({ score, item })),
  );
}

export function pair(one, other) {
  return aggregate(
    ([a, b], [laterA, laterB]) => [one.merge(a, laterA), other.merge(b, laterB)],
    ([a, b]) => [one.first(a), other.first(b)],
    ([a, b]) => [one.output(a), other.output(b)],
  );
}

/** Which events belong together. */
export class Window {
  constructor(
    shape,
    { earlyEvery, panesMax = PANES_A_WINDOW_MAX, allowedLateness = 0, name = "window", ...rest },
  ) {
    if (earlyEvery !== undefined && shape instanceof Filled) {
      throw new TypeError("windows of a count give none early");
    }
    this.shape = shape;
    this.early = earlyEvery === undefined ? 0 : micros(earlyEvery, 1);
    this.panesMax = panesMax;
    this.terms = new Terms(name, micros(allowedLateness), rest);
  }

  static tumbling(size, options = {}) {
    return Window.sliding(size, size, options);
  }

  static sliding(size, slide, { shifted = 0, ...options } = {}) {
    return new Window(new Slices(micros(size, 1), micros(slide, 1), micros(shifted)), options);
  }

  static session(gap, options = {}) {
    return new Window(new Sessions(micros(gap, 1)), options);
  }

  static count(events, { orAfter, ...options } = {}) {
    const after = orAfter === undefined ? 0 : micros(orAfter, 1);
    return new Window(new Filled(micros(events, 1), after), options);
  }

  aggregate(made, read = () => undefined) {
    return new Aggregated(this, made, read);
  }
}

/** Windows with what is made of them. */
class Aggregated {
  constructor(window, made, read) {
    Object.assign(this, { window, made, read });
  }

  run(events, emit) {
    const { terms, shape } = this.window;
    const call = callOf(events, (event) => terms.takes(event));
    if (call.events.length > 0) shape.run(new Job(this, emit, terms.watermark()), call);
  }
}

/** A run of windows over one call. */
class Job {
  constructor({ window, made, read }, emit, watermark) {
    Object.assign(this, { window, made, read, watermark, terms: window.terms });
    this.sends = emit ?? ((result, event, time) => event.emitJson(result, { time }));
  }

  add(kept, value) {
    return this.made.merge(kept, this.made.first(value));
  }

  /** Emits the result of a window because of an event. */
  emit(event, { start, end, firing = "on-time", replaces = [] }, kept) {
    const result = { key: event.key, start, end };
    if (firing !== "on-time") result.firing = firing;
    if (replaces.length > 0) result.replaces = replaces;
    result.value = this.made.output(kept);
    this.sends(result, event, end - 1);
  }

  nextEarly() {
    const { early } = this.window;
    return Math.min((Math.floor(this.watermark / early) + 1) * early, TIME_END - 1);
  }

  /** The watermark at which a timer is handled: it fired, so it has come that far. */
  watermarkAt(timer) {
    return Math.max(this.watermark, timer.time);
  }
}

const earliest = (times) => (times.length === 0 ? null : Math.min(...times));

/**
 * Tumbling and sliding windows, put together from panes.
 *
 *   size 6, slide 4      panes of 2:   0 1 2 3 4 5 6 7
 *                        windows:      └─────┘ (ends at 3)
 *                                          └─────┘ (ends at 5)
 *                                              └─────┘ (ends at 7)
 *
 * Times are counted in panes: a pane's id is its number, a window is known by the number of the
 * pane behind it, its end. A key waits for the end of one window, `fire`: the first that is not
 * over and has a pane; 0 is none. One before it is over or empty; if an event changes it, its
 * result leaves at once.
 */
class Slices {
  constructor(size, slide, shifted) {
    if (slide > size) throw new RangeError("the slide of windows is at most their size");
    let [width, rest] = [size, slide];
    while (rest > 0) [width, rest] = [rest, width % rest];
    this.width = width;
    this.size = size / width;
    this.slide = slide / width;
    this.shift = (slide - (shifted % slide)) % slide;
    if (this.size > PANES_A_WINDOW_MAX) throw new RangeError("a window has at most 1,024 panes");
    this.cut = [width, this.size, this.slide, this.shift].join();
  }

  pane(time) {
    return Math.floor((time + this.shift) / this.width);
  }

  time(pane) {
    return Math.max(pane * this.width - this.shift, 0);
  }

  /** The end of the first window a pane is in. */
  firstEnd(pane) {
    const behind = Math.max(pane + 1 - this.size, 0);
    return Math.ceil(behind / this.slide) * this.slide + this.size;
  }

  /** The end of the last window a pane is in. */
  lastEnd(pane) {
    return Math.floor(pane / this.slide) * this.slide + this.size;
  }

  /** The end of the first window behind `after` in which one of these panes is; 0 if none is. */
  endBehind(after, panes) {
    const first = panes.find((pane) => this.lastEnd(pane) > after);
    return first === undefined ? 0 : Math.max(this.firstEnd(first), after + this.slide);
  }

  run(job, call) {
    const ownPanes = (event) => (event.kind === "timer" ? [] : [this.pane(job.terms.time(event))]);
    const shelf = new Shelf(job.terms, call, ownPanes);
    shelf.fetch(call.events.flatMap(({ event, key }) => this.#ahead(job, shelf, event, key)));
    for (const { event, key } of call.events) {
      attempt(event, () => this.#handle({ job, shelf, event, index: shelf.index(key) }));
    }
    for (const index of shelf.readable()) this.#wake(job, index);
    shelf.close();
  }

  /** The panes of windows that will give a result because of an event. */
  #ahead(job, shelf, event, key) {
    const index = shelf.known(key);
    if (index === null) return [];
    let [first, end] = [0, 0];
    if (event.kind === "timer") {
      first = (index.notes.fire ?? 0) - this.size;
      end = this.pane(job.watermarkAt(event)) + (job.window.early > 0 ? this.size : 0);
    } else {
      const pane = this.pane(job.terms.time(event));
      if (this.time(this.firstEnd(pane)) > job.watermark) return [];
      [first, end] = [this.firstEnd(pane) - this.size, this.lastEnd(pane)];
    }
    const from = countBelow(index.ids, first);
    const near = index.ids.slice(from, from + PANES_A_WINDOW_MAX);
    return near.filter((pane) => pane < end).map((pane) => [key, pane]);
  }

  #handle(at) {
    const { job, event, index } = at;
    index.notes.cut ??= this.cut;
    if (index.notes.cut !== this.cut) {
      throw new Reject(
        `the windows ${job.terms.name} were kept with another size or slide: name them anew, or ` +
          "discard the state of the stage",
      );
    }
    if (event.kind === "timer") this.#timer(at);
    else this.#data(at);
  }

  #data(at) {
    const { job, event, index } = at;
    const { lateness } = job.terms;
    const time = job.terms.time(event);
    checkTime(time, (this.size + this.slide + 1) * this.width + lateness);
    const pane = this.pane(time);
    const lastEnd = this.lastEnd(pane);
    if (this.time(lastEnd) + lateness <= job.watermark) {
      job.terms.tooLate(event, job.watermark);
      return;
    }
    this.#add(at, pane);
    const { notes } = index;
    for (let end = this.firstEnd(pane); end <= lastEnd; end += this.slide) {
      if (notes.fire > 0 && end >= notes.fire) break;
      if (this.time(end) > job.watermark) {
        notes.fire = end;
        break;
      }
      if (this.time(end) + lateness > job.watermark) this.#fire(at, end, "late");
    }
    if (job.window.early > 0 && this.time(lastEnd) > job.watermark)
      notes.early ||= job.nextEarly();
  }

  #add({ job, shelf, event, index }, pane) {
    const value = job.read(event);
    const kept = shelf.pane(index, pane);
    if (kept !== undefined) {
      shelf.put(index, pane, job.add(kept, value));
      return;
    }
    const most = job.window.panesMax;
    if (index.ids.length >= most) {
      throw new Reject(
        `the windows ${job.terms.name} of this key have ${most} panes already: raise panesMax`,
      );
    }
    shelf.put(index, pane, job.made.first(value));
  }

  #timer(at) {
    const { job, shelf, event, index } = at;
    const watermark = job.watermarkAt(event);
    const { notes } = index;
    for (let left = FIRED_MAX; notes.fire > 0 && this.time(notes.fire) <= watermark; left -= 1) {
      // The timer is set again, for a time that has come.
      if (left === 0) return;
      this.#fire(at, notes.fire, "on-time");
      notes.fire = this.endBehind(notes.fire, index.ids);
    }
    this.#early(at, watermark);
    const isKept = (pane) => this.time(this.lastEnd(pane)) + job.terms.lateness > watermark;
    const kept = index.ids.findIndex(isKept);
    shelf.removeFirst(index, kept === -1 ? index.ids.length : kept);
  }

  /** Lets windows that have begun and are not over give a result, if it is time. */
  #early(at, watermark) {
    const { notes, ids } = at.index;
    if (!(notes.early > 0 && notes.early <= watermark)) return;
    notes.early = 0;
    for (let end = notes.fire ?? 0; end > 0 && this.time(end - this.size) < watermark;) {
      this.#fire(at, end, "early");
      end = this.endBehind(end, ids);
    }
  }

  /** Emits the result of the window with this end, if there is anything in it. */
  #fire({ job, shelf, event, index }, end, firing) {
    const first = end - this.size;
    const panes = index.ids.slice(countBelow(index.ids, first), countBelow(index.ids, end));
    shelf.fetch(panes.map((pane) => [index.key, pane]));
    const every = panes
      .map((pane) => shelf.pane(index, pane))
      .filter((kept) => kept !== undefined);
    if (every.length === 0) return;
    const kept = every.reduce((one, later) => job.made.merge(one, later));
    job.emit(event, { start: this.time(first), end: this.time(end), firing }, kept);
  }

  /** Says when the key is to be woken. */
  #wake(job, index) {
    const times = [];
    if (index.notes.early > 0) times.push(index.notes.early);
    if (index.notes.fire > 0) times.push(this.time(index.notes.fire));
    if (index.ids.length > 0) {
      times.push(this.time(this.lastEnd(index.ids[0])) + job.terms.lateness);
    }
    index.wakes = earliest(times);
  }
}

/**
 * Events of a key that follow each other without a gap, kept in one slot.
 *
 * An event is a session of its own, as long as the gap, until it is put together with those it
 * overlaps. A session that gave its result is kept while late events are allowed; if one changes
 * it, the next result names those it takes the place of.
 */
class Sessions {
  constructor(gap) {
    this.gap = gap;
  }

  run(job, call) {
    const cells = new Cells(job.terms, call, () => ({ list: [], early: 0 }));
    cells.each((event, cell) => {
      if (event.kind === "timer") this.#timer(job, event, cell);
      else this.#data(job, event, cell);
    });
    cells.close(
      (cell) => cell.list.length === 0,
      (cell) => this.#wakes(job, cell),
    );
  }

  #data(job, event, cell) {
    const { gap } = this;
    const { lateness, name } = job.terms;
    const time = job.terms.time(event);
    checkTime(time, gap + lateness);
    const { list } = cell;
    const first = list.filter(({ end }) => end <= time).length;
    const behind = list.filter(({ start }) => start < time + gap).length;
    if (first === behind && time + gap + lateness <= job.watermark) {
      job.terms.tooLate(event, job.watermark);
      return;
    }
    if (first === behind && list.length >= job.window.panesMax) {
      throw new Reject(
        `the windows ${name} of this key have ${list.length} sessions already: raise panesMax`,
      );
    }
    const kept = job.made.first(job.read(event));
    const whole = { start: time, end: time + gap, told: false, replaces: [], kept };
    let waits = false;
    for (const one of list.slice(first, behind).reverse()) {
      waits ||= !one.told && one.end <= job.watermark;
      whole.start = Math.min(whole.start, one.start);
      whole.end = Math.max(whole.end, one.end);
      whole.replaces = [...one.replaces, ...whole.replaces];
      whole.kept = job.made.merge(one.kept, whole.kept);
    }
    list.splice(first, behind - first, whole);
    // If one of them was over already its timer is on the way, and tells of all.
    if (whole.end <= job.watermark && !waits) this.#tell(job, event, whole, "late");
    if (whole.end > job.watermark && job.window.early > 0) cell.early ||= job.nextEarly();
  }

  #timer(job, event, cell) {
    const watermark = job.watermarkAt(event);
    for (const one of cell.list) {
      if (!one.told && one.end <= watermark) this.#tell(job, event, one, "on-time");
    }
    if (cell.early > 0 && cell.early <= watermark) {
      cell.early = 0;
      for (const one of cell.list) {
        if (!one.told && one.start < watermark) {
          job.emit(event, { ...one, firing: "early" }, one.kept);
        }
      }
    }
    cell.list = cell.list.filter(({ end }) => end + job.terms.lateness > watermark);
  }

  #tell(job, event, one, firing) {
    job.emit(event, { ...one, firing }, one.kept);
    one.told = true;
    one.replaces = [one.start];
  }

  #wakes(job, cell) {
    const times = cell.list.map(({ end, told }) => (told ? end + job.terms.lateness : end));
    if (cell.early > 0) times.push(cell.early);
    return earliest(times);
  }
}

/** Windows of a number of events as they come: none is late. One slot holds what is filled. */
class Filled {
  constructor(events, after) {
    this.events = events;
    this.after = after;
  }

  run(job, call) {
    const wakes = ({ began }) => (this.after > 0 ? began + this.after : null);
    const cells = new Cells(job.terms, call, () => ({ events: 0 }));
    cells.each((event, cell) => {
      if (event.kind !== "timer") this.#add(job, event, cell);
      else if (cell.events > 0 && wakes(cell) <= job.watermarkAt(event))
        this.#give(job, event, cell);
    });
    cells.close((cell) => cell.events === 0, wakes);
  }

  #add(job, event, cell) {
    const time = job.terms.time(event);
    checkTime(time, this.after);
    const value = job.read(event);
    if (cell.events > 0) {
      cell.kept = job.add(cell.kept, value);
      cell.first = Math.min(cell.first, time);
      cell.last = Math.max(cell.last, time);
    } else {
      Object.assign(cell, { kept: job.made.first(value), began: time, first: time, last: time });
    }
    cell.events += 1;
    if (cell.events >= this.events) this.#give(job, event, cell);
  }

  #give(job, event, cell) {
    job.emit(event, { start: cell.first, end: cell.last + 1 }, cell.kept);
    cell.events = 0;
  }
}
