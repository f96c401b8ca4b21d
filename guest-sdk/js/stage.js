// From a function of the author's to what the host calls.
//
//   stage((event) => …)            once for each event
//   batch((events) => …)           once for all events of a call
//   stream(function* (stream) …)   once for each stream, see stream.js
//
// - What a function of the first form throws is the failure of that event; the next one is
//   handled.
// - What one of the second form throws names no event. So it asks the host to try each event of
//   the call again, alone; a call with one event takes it as it is. `event.fail` is exact.
// - A thrown `Trap` ends the call, and so does running out of memory.
//
// A stage is the default export of its module. Nothing runs between two calls, so an async
// function would never go on: one is refused.

import { Call } from "./event.js";
import { Reject, Trap } from "./failure.js";

const ASYNC =
  "the function is async, and nothing runs between two calls of a stage: write it without await";

/** A function of the author's with its form. */
export class Stage {
  /** Whether what an event did is undone when it fails. */
  undoes = true;

  /** A function that handles frames: it gives index, class and message of what failed. */
  instance() {
    return (frame) => {
      const call = new Call(frame);
      this.run(call);
      return call.finish();
    };
  }
}

/** True for what ends the call instead of failing an event. */
export function isTrap(error) {
  return (
    error instanceof Trap || (error?.name === "InternalError" && /memory/.test(error.message))
  );
}

function checked(given) {
  if (typeof given?.then === "function") throw new Reject(ASYNC);
}

class EachEvent extends Stage {
  constructor(handler, timer) {
    super();
    this.handler = handler;
    this.timer = timer;
  }

  run(call) {
    for (const event of call.events()) {
      try {
        const isOfTimer = this.timer !== undefined && event.kind === "timer";
        checked(isOfTimer ? this.timer(event) : this.handler(event));
      } catch (error) {
        if (isTrap(error)) throw error;
        call.fail(event.index, error);
      }
    }
  }
}

class AllEvents extends Stage {
  constructor(handler) {
    super();
    this.handler = handler;
  }

  run(call) {
    const events = call.events();
    try {
      checked(this.handler(events));
    } catch (error) {
      if (isTrap(error)) throw error;
      const kind = events.length === 1 ? undefined : "retry";
      for (const event of events) call.fail(event.index, error, kind);
    }
  }
}

function checkFunction(value, name) {
  if (typeof value !== "function") throw new TypeError(`${name} takes a function`);
}

export function stage(handler, options = {}) {
  checkFunction(handler, "stage");
  if (options.timer !== undefined) checkFunction(options.timer, "timer");
  return new EachEvent(handler, options.timer);
}

export function batch(handler) {
  checkFunction(handler, "batch");
  return new AllEvents(handler);
}
