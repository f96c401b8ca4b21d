// Stream functions: a generator function that reads one stream from its first event to its end.
//
//   host                       instance (serves one stream)
//   handle(open, a, b)  ────►  starts the generator: it is given a and b, then waits at a `yield`
//   handle(c)           ────►  it is given c, then waits
//   handle(end)         ────►  `yield` gives undefined, the function returns
//
// - It is a generator, and neither async nor a plain loop, because a call of the host is over
//   before the next event is there: `yield` is where a function of JavaScript can stop until then.
//   Promises would go on only between calls, when nothing runs.
// - After a function has thrown, later events fail; after it has returned they are ignored.
//
// When a stream opens and ends is decided by the host; the manifest says scope = "stream".

import { Call } from "./event.js";
import { describe, Reject } from "./failure.js";
import { isTrap, Stage } from "./stage.js";
import { State, Timers } from "./state.js";

const OTHER_SCOPE = 'a stream function needs scope = "stream" in the manifest';

/**
 * What a stream function emits. It belongs to the event taken last, or to the end of the stream.
 */
export class Stream {
  /** The event taken last: always one of the current call. */
  current = null;
  key = null;

  get state() {
    return new State(this.current);
  }

  get timers() {
    return new Timers(this.current);
  }

  emit(payload, options) {
    this.current.emit(payload, options);
  }

  emitJson(value, options) {
    this.current.emitJson(value, options);
  }

  fail(error) {
    this.current.fail(error);
  }
}

/** One instance of a stream function, and how far it has come. */
class Instance {
  #make;
  #run = null;
  #stream = null;
  #isBegun = false;
  #error = null;

  constructor(make) {
    this.#make = make;
  }

  handle(frame) {
    const call = new Call(frame);
    for (const event of call.events()) {
      const { kind } = event;
      if (this.#stream === null || kind === "open") this.#begin();
      this.#stream.current = event;
      if (this.#error !== null) {
        if (kind === "data" || kind === "timer") event.fail(new Reject(this.#error));
      } else if (this.#isOurs(event)) {
        this.#advance(event, kind);
      }
    }
    return call.finish();
  }

  #begin() {
    this.#stream = new Stream();
    this.#run = this.#make(this.#stream);
    this.#isBegun = false;
    this.#error = null;
  }

  #isOurs(event) {
    const { key } = event;
    this.#stream.key ??= key;
    if (this.#stream.key === key) return true;
    event.fail(new Reject(OTHER_SCOPE));
    return false;
  }

  /** Gives the function its next event, or says that there are no more. */
  #advance(event, kind) {
    try {
      if (!this.#isBegun) {
        this.#isBegun = true;
        this.#run.next();
      }
      if (kind !== "open") this.#run.next(kind === "end" ? undefined : event);
    } catch (error) {
      if (isTrap(error)) throw error;
      event.fail(error);
      this.#error = `the stream function failed before: ${describe(error).message}`;
    }
  }
}

class StreamStage extends Stage {
  undoes = false;

  constructor(make) {
    super();
    this.make = make;
  }

  instance() {
    const instance = new Instance(this.make);
    return (frame) => instance.handle(frame);
  }
}

export function stream(generator) {
  const [name] = /^[A-Za-z]+/.exec(Object.prototype.toString.call(generator).slice(8)) ?? [""];
  if (name !== "GeneratorFunction") {
    throw new TypeError("stream takes a generator function: function* (stream) { … yield … }");
  }
  return new StreamStage(generator);
}
