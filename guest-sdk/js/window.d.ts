import type { Event } from "./index.d.ts";

/** Lengths of time in microseconds. */
export declare const SECOND: number;
export declare const MINUTE: number;
export declare const HOUR: number;
export declare const DAY: number;

/** What is made of the events of a window. What is kept of them has to be JSON. */
export interface Aggregate<Input, Kept, Output> {
  /** What is kept of one input. */
  first(input: Input): Kept;
  /** What is kept of both, the earlier one first. Changes neither. */
  merge(kept: Kept, later: Kept): Kept;
  /** The result. */
  output(kept: Kept): Output;
}

/** How many events there were, whatever was read of them. */
export declare function count(): Aggregate<unknown, number, number>;
export declare function sum(): Aggregate<number, number, number>;
/** The least; of equals the first. */
export declare function min<T extends number | string>(): Aggregate<T, T, T>;
/** The greatest; of equals the first. */
export declare function max<T extends number | string>(): Aggregate<T, T, T>;
export declare function mean(): Aggregate<number, [number, number], number>;
/** How many different values there were, exactly up to `most`. */
export declare function distinct<T extends number | string>(
  most: number,
): Aggregate<T, [T[], boolean], { count: number; exact: boolean }>;
/** The `most` items with the greatest scores, best first; of equals the first to come. */
export declare function top<S extends number | string, T>(
  most: number,
): Aggregate<[S, T], [S, T][], { score: S; item: T }[]>;
/** Two aggregates; inputs, and results, are pairs. */
export declare function pair<A, K, O, B, L, P>(
  one: Aggregate<A, K, O>,
  other: Aggregate<B, L, P>,
): Aggregate<[A, B], [K, L], [O, P]>;

/** The result of one window. */
export interface Closed<Value> {
  key: string;
  /** When the window begins, in microseconds. Of a session or a count: its first event. */
  start: number;
  /** When it ends, itself not included. */
  end: number;
  /** Why there is a result, if not because the window is over, or full. */
  firing?: "early" | "late";
  /** Starts of the results that this one takes the place of, of sessions. */
  replaces?: number[];
  value: Value;
}

export interface WindowOptions {
  /** Its name, at most 32 bytes without `/`; two in one stage have two. `window` if not said. */
  name?: string;
  /** For how long behind the watermark an event still counts. */
  allowedLateness?: number;
  /** The port by which later events leave, as they came. Without one they fail. */
  latePort?: number;
  /** Drops later events and counts them in `late_events_dropped`. */
  dropLate?: boolean;
  /** Goes by the clock: an event counts at the time of its batch, and none is late. */
  byClock?: boolean;
  /** Which events of kind data it takes. */
  only?: (event: Event) => boolean;
  /** How often open windows give a result. */
  earlyEvery?: number;
  /** Most panes or sessions of a key, 1,024 if it is not said. */
  panesMax?: number;
}

/** Which events belong together. Made once, for the module. */
export declare class Window {
  private constructor();
  /** Windows of this size, one behind the other; they begin at multiples of it, and `shifted`. */
  static tumbling(size: number, options?: WindowOptions & { shifted?: number }): Window;
  /** Windows of this size, of which one begins each `slide`. */
  static sliding(
    size: number,
    slide: number,
    options?: WindowOptions & { shifted?: number },
  ): Window;
  /** Sessions: events that follow each other by less than `gap`. */
  static session(gap: number, options?: WindowOptions): Window;
  /** Windows of so many events as they come; `orAfter` this time one ends that is not full. */
  static count(events: number, options?: WindowOptions & { orAfter?: number }): Window;
  /** Says what is made of a window's events: of what `read` takes from each. */
  aggregate<Input, Kept, Output>(
    made: Aggregate<Input, Kept, Output>,
    read?: (event: Event) => Input,
  ): Aggregated<Output>;
}

/** Windows with what is made of them. */
export interface Aggregated<Output> {
  /**
   * Takes the events of a call. Each result is emitted as JSON by port 0, or as `emit` says;
   * `time` is what `event.emit` should be given as its time.
   */
  run(
    events: readonly Event[],
    emit?: (result: Closed<Output>, event: Event, time: number) => void,
  ): void;
}
