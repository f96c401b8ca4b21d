import type { Event } from "./index.d.ts";

/** The host would not do what was asked of the device, and says why. It fails its event. */
export declare class GpuError extends Error {
  /** What happened, such as `gpu.memory`; all codes are in the guide's list of errors. */
  readonly code: string;
  /** The device or its process was lost: whatever was made before is over. */
  readonly isLost: boolean;
}

/** What kind of device there is, and what the stage may do with it; see the WIT. */
export declare function device(): Record<string, unknown>;

/** Something on the device, freed by `free` or with the instance. */
interface Made {
  readonly handle: number | undefined;
  free(): void;
}

/** Bytes on the device. */
export declare class Buffer implements Made {
  private constructor();
  /** So many bytes, a multiple of 4, which read as zeros. */
  static zeros(bytes: number): Buffer;
  static of(content: ArrayBufferView): Buffer;
  /** With the bytes of an asset, not to be written; the device has it once. */
  static constant(asset: string): Buffer;
  /** One that came with an event: `Buffer.ofHandle(event.attachments[0])`. */
  static ofHandle(handle: number): Buffer;
  readonly handle: number | undefined;
  readonly size: number;
  write(content: ArrayBufferView, offset?: number): void;
  read(offset?: number, length?: number): Uint8Array;
  free(): void;
}

/** A compute entry point of a source in WGSL that uses buffers of `@group(0)`. */
export declare class Kernel implements Made {
  constructor(source: string, entry: string);
  readonly handle: number | undefined;
  /** The buffers it uses, by ascending number. */
  slots(): { number: number; access: "uniform" | "read" | "read-write"; bytesMin: number }[];
  free(): void;
}

/** A step of a graph. */
export interface Step {
  readonly action: "dispatch" | "copy" | "fill";
}

/** Runs a kernel with so many workgroups over slots of the graph. */
export declare function dispatch(
  kernel: Kernel,
  groups: readonly [x: number, y: number, z: number],
  slots: readonly number[],
): Step;
/** Copies so many bytes from one slot of the graph to another. */
export declare function copy(
  source: number,
  target: number,
  bytes: number,
  options?: { offset?: number; targetOffset?: number },
): Step;
/** Writes a word again and again, over so many bytes of a slot of the graph. */
export declare function fill(
  target: number,
  bytes: number,
  word?: number,
  options?: { targetOffset?: number },
): Step;

/** Steps that are done one after the other; what is bound to its slots is said each time. */
export declare class Graph implements Made {
  constructor(steps: readonly Step[]);
  readonly handle: number | undefined;
  /**
   * Does the steps once and waits; gives the device's time in nanoseconds. Throws if it did not
   * end whole.
   */
  submit(
    buffers: readonly (Buffer | { buffer: Buffer; offset?: number; bytes?: number })[],
    options?: { deadlineMs?: number },
  ): number;
  free(): void;
}

type Numbers = Float32ArrayConstructor | Int32ArrayConstructor | Uint32ArrayConstructor;

/**
 * A kernel over the events of a call: each gives a record, and gets one. `given` and `made` are a
 * typed array and how many numbers of it a record has. The kernel has `@workgroup_size(64)` and
 * three bindings of `@group(0)`: 0 is the records in (`storage, read`), 1 the records out
 * (`storage, read_write`), 2 a `uniform` whose first word is how many there are.
 */
export declare class Map<Made extends Numbers = Numbers> {
  constructor(
    source: string,
    entry: string,
    given: readonly [Numbers, number?],
    made: readonly [Made, number?],
    options?: { deadlineMs?: number },
  );
  run(
    events: readonly Event[],
    pack: (event: Event) => Iterable<number>,
    emit: (event: Event, record: InstanceType<Made>) => void,
  ): void;
}
