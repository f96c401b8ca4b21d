/** Why an event is here. */
export type Kind = "data" | "timer" | "open" | "end";

/** Which time a timer waits for: the watermark of the stage, or the time of day. */
export type Clock = "event" | "wall";

/** What goes as bytes: of a text its UTF-8. */
export type Bytes = string | Uint8Array | ArrayBuffer | ArrayBufferView;

/** What of an emitted event differs from the one that caused it. */
export interface EmitOptions {
  /** The port it leaves by, counted from 0 in the order of the manifest. */
  port?: number;
  /** A key of its own, at most 512 bytes. It takes effect on edges with `key = "emitted"`. */
  key?: string;
  /** An event time of its own, in microseconds since 1970. */
  time?: number;
  /** Extension fields: pairs of id and value. */
  fields?: readonly (readonly [id: number, value: Bytes])[];
  /** Another event of this call as its cause, by index. */
  cause?: number;
  /** Buffers of a GPU that go with it: of `sluicebox/gpu`, or their handles. */
  attach?: readonly (number | { readonly handle: number | undefined })[];
}

/** What can be emitted by: an event, or a stream. */
interface Emits {
  /** Emits bytes or text, by port 0 and with the event's time unless said otherwise. */
  emit(payload: Bytes, options?: EmitOptions): void;
  /** Emits a value as JSON. */
  emitJson(value: unknown, options?: EmitOptions): void;
  /** Says that the event could not be handled: an error, or a text to reject it with. */
  fail(error: unknown): void;
  /** The state of the event's key. */
  readonly state: State;
  /** The timers of the event's key. */
  readonly timers: Timers;
}

/** One event of the call that is being handled. It is of no use after that. */
export interface Event extends Emits {
  /** Its place among the events of this call, counted from 0. */
  readonly index: number;
  readonly kind: Kind;
  /** Which input of the stage it arrived at, counted from 0 in the order of the manifest. */
  readonly input: number;
  /** The port it left the stage before by; 0 from the ingest. */
  readonly port: number;
  /** Event time in microseconds since 1970. */
  readonly time: number;
  readonly key: string;
  readonly payload: Uint8Array;
  /** The payload as text; rejects the event if it is not UTF-8. */
  text(): string;
  /** The payload read as JSON; rejects the event if it is none. The type is not checked. */
  json<T = any>(): T;
  /** All extension fields: pairs of id and bytes, in order. */
  fields(): [id: number, value: Uint8Array][];
  /** The value of the first extension field with this id; ids are in `Field`. */
  field(id: number): Uint8Array | undefined;
  /** Handles of what is attached, for `sluicebox/gpu`. */
  readonly attachments: number[];
  /** The name of the timer that fires; undefined if the event is none. */
  readonly timer: string | undefined;
}

/** Ids of extension fields. Those from OWN_FIRST on are for stages' own use. */
export declare const Field: {
  readonly TRACE_CONTEXT: 1;
  readonly REQUEST: 2;
  readonly ATTACHMENTS: 3;
  readonly EVENT_ID: 256;
  readonly EVENT_SOURCE: 257;
  readonly CONTENT_TYPE: 258;
  readonly EVENT_TYPE: 259;
  readonly EVENT_SUBJECT: 260;
  readonly OWN_FIRST: 32768;
};

/** The state of one event's key. Slots are named by at most 64 bytes of UTF-8. */
export interface State {
  get(slot: string): Uint8Array | undefined;
  getText(slot: string): string | undefined;
  getJson<T = any>(slot: string): T | undefined;
  getJson<T>(slot: string, fallback: T): T;
  /** Sets a slot. Throws `Refused` if something would become larger than its limit. */
  put(slot: string, value: Bytes): void;
  putJson(slot: string, value: unknown): void;
  /** Removes a slot; true if there was one. */
  delete(slot: string): boolean;
  /**
   * Adds to a counter of 64 bits and gives its new number; one that is not there counts as 0. The
   * event fails if that is no exact number any more: `addBig` has it whole.
   */
  add(slot: string, delta?: number): number;
  addBig(slot: string, delta: bigint): bigint;
  /** The number in a counter; 0 if there is none. */
  counter(slot: string): number;
  /** The slots that begin with `prefix`, in byte order, at most `limit`, which is 1,000. */
  scan(prefix?: string, limit?: number): [slot: string, value: Uint8Array][];
}

/** The timers of one event's key. Names are at most 64 bytes of UTF-8. */
export interface Timers {
  /** Has the key woken at a time in microseconds; replaces a timer of the same name. */
  set(name: string, at: number, clock?: Clock): void;
  /** Takes a timer back; true if there was one. */
  cancel(name: string): boolean;
}

/** What a batch has for an operation. */
export type Reply = Uint8Array | number | bigint | boolean | undefined;

/**
 * Operations on the state and the timers of many events' keys, done in one call of the host:
 *
 *     const batch = new StateBatch();
 *     for (const event of events) batch.add(event, "seen");
 *     batch.run().forEach((seen, index) => events[index].emitJson(seen));
 */
export declare class StateBatch {
  /** Reply: the bytes, or undefined. */
  get(event: Event, slot: string): void;
  /** Reply: true. */
  put(event: Event, slot: string, value: Bytes): void;
  putJson(event: Event, slot: string, value: unknown): void;
  /** Reply: whether there was one. */
  delete(event: Event, slot: string): void;
  /** Reply: the new number. */
  add(event: Event, slot: string, delta?: number): void;
  /** Reply: the new number, a bigint. */
  addBig(event: Event, slot: string, delta: bigint): void;
  /** Reply: true. */
  setTimer(event: Event, name: string, at: number, clock?: Clock): void;
  /** Reply: whether there was one. */
  cancelTimer(event: Event, name: string): void;
  /**
   * Has the host do it, and gives the replies in order. A refusal is thrown, unless `refused` says
   * that it is to stand in its place in the list.
   */
  run(): Reply[];
  run(options: { refused: true }): (Reply | Refused)[];
}

/** Why an event could not be handled. Nothing emitted or written for it stands. */
export declare class Failure extends Error {
  readonly kind: "retry" | "reject";
}
/** The cause may pass: the host tries the event again, alone, as the manifest says. */
export declare class Retry extends Failure {}
/** Trying again cannot help. */
export declare class Reject extends Failure {}
/** Ends the call, and the instance with it. */
export declare class Trap extends Error {}
/** The host would not do what was asked of it, and says why. */
export declare class Refused extends Error {}

/** A stage: the default export of its module. */
export declare class Stage {
  private constructor();
}

/** A stage of a function that is called for each event; with `timer`, not for timers that fire. */
export declare function stage(
  handler: (event: Event) => void,
  options?: { timer?: (event: Event) => void },
): Stage;

/** A stage of a function that is called for all events of a call, at most 256. */
export declare function batch(handler: (events: Event[]) => void): Stage;

/** What a stream function emits by: it belongs to the event taken last, or to the end. */
export interface Stream extends Emits {
  readonly key: string;
  /** The event taken last. */
  readonly current: Event;
}

/**
 * A stage of a generator function that reads a stream: each `yield` gives the next event, and
 * undefined when the stream has ended.
 */
export declare function stream(
  generator: (stream: Stream) => Generator<void, void, Event | undefined>,
): Stage;

/**
 * The event time up to which the stage has everything, in microseconds; 0 if that is not known. An
 * event whose time is below it is late.
 */
export declare function watermark(): number;

/** The time of day of the batch in microseconds since 1970, to the millisecond. */
export declare function now(): number;

/** The stage's settings from the manifest. Not there while a component is built. */
export declare const config: {
  get(name: string): string | undefined;
  get(name: string, fallback: string): string;
  names(): string[];
};

/** Blobs the manifest grants, under names of its choice. */
export declare const assets: {
  size(name: string): number | undefined;
  /** All of an asset, or at most `length` bytes from `offset`. */
  read(name: string, offset?: number, length?: number): Uint8Array;
  text(name: string): string;
};

/** The stage's log, shown to its owner. `console` writes to it too. */
export declare const log: {
  debug(message: unknown): void;
  info(message: unknown): void;
  warn(message: unknown): void;
  error(message: unknown): void;
};

/** Counters and gauges of the stage's own, by names of `[a-z][a-z0-9_]*`. */
export declare const metrics: {
  count(name: string, delta?: number): void;
  gauge(name: string, value: number): void;
};
