import type { Bytes, Clock, Kind, Stage } from "./index.d.ts";

/** An event to be given to a stage. */
export interface Input {
  key: string;
  payload?: Bytes;
  /** Event time in microseconds since 1970; 0 if it is not said. */
  time?: number;
  input?: number;
  port?: number;
  kind?: Kind;
  fields?: readonly (readonly [id: number, value: Bytes])[];
}

/** An event that a stage emitted. */
export interface Emitted {
  port: number;
  /** Index of the causing event among those given. */
  cause: number;
  time: number;
  /** The key the stage gave it, or that of the cause. */
  key: string;
  payload: Uint8Array;
  fields: [id: number, value: Uint8Array][];
  text(): string;
  json<T = any>(): T;
}

/** An event that failed: its place among those given, class and message. */
export interface Failed {
  event: number;
  kind: "retry" | "reject";
  message: string;
}

/** What a call came to. */
export interface Handled {
  outputs: Emitted[];
  failures: Failed[];
}

/** The host would have ended the call, and the instance with it. */
export declare class HostTrap extends Error {}

/** One instance of a stage, and a host in memory. */
export declare class Harness {
  constructor(
    stage: Stage,
    options?: { config?: Record<string, string>; assets?: Record<string, Bytes> },
  );
  /** Gives the stage one event of kind data. */
  send(key: string, payload?: Bytes, options?: Omit<Input, "key" | "payload">): Handled;
  /** Gives the stage one event whose payload is a value as JSON. */
  sendJson(key: string, value: unknown, options?: Omit<Input, "key" | "payload">): Handled;
  /** Opens the stream of a key. */
  open(key: string, options?: Omit<Input, "key" | "kind">): Handled;
  /** Ends the stream of a key. */
  end(key: string, options?: Omit<Input, "key" | "kind">): Handled;
  /** Gives the stage these events, in calls of at most 256. */
  handle(events: readonly Input[]): Handled;
  /** Moves the watermark, and gives the stage every event-time timer that is due then. */
  advanceWatermark(micros: number): Handled;
  /** Moves the time of day, and gives the stage every wall timer that is due then. */
  advanceClock(micros: number): Handled;
  /** What a slot of a key holds. */
  state(key: string, slot: string): Uint8Array | undefined;
  slots(key: string): Record<string, Uint8Array>;
  counter(key: string, slot: string): bigint | undefined;
  timers(key: string): Record<string, { clock: Clock; at: number }>;
  /** The lines the stage wrote to its log: level and text. */
  readonly log: [level: string, text: string][];
  readonly counts: Record<string, number>;
  readonly gauges: Record<string, number>;
}
