// A stage's share of a GPU, in the words of WebGPU: buffers, kernels in WGSL, graphs of steps.
//
// - The manifest grants it, grants = { gpu = {} }, and the component is built for the world
//   stage-gpu: world = "stage-gpu" in stage.toml.
// - Whatever is made here is freed by `free`, or goes with the instance. A buffer that was
//   attached to an event is the batch's.
// - What is on a device is a cache. It goes when the device is lost, and then functions throw a
//   `GpuError` whose `isLost` is true: make it anew, or let it fail the event, which is tried
//   again.
//
// Handles are numbers below 2^53, as everything is that crosses to the host.

import { attempt } from "./keyed.js";
import { host } from "./host.js";

// Errors after which the same may work a little later.
const PASSING = ["gpu.lost", "gpu.hung", "gpu.would-block", "gpu.memory", "gpu.none"];
const GROUP_THREADS = 64;

/** The host would not do what was asked of the device, and says why. */
export class GpuError extends Error {
  name = "GpuError";

  /** What happened, such as gpu.memory; all codes are in the guide's list of errors. */
  get code() {
    return this.message.split(":", 1)[0];
  }

  get isLost() {
    return ["gpu.lost", "gpu.hung"].includes(this.code);
  }

  /** What the host is to do with the event. */
  get kind() {
    return PASSING.includes(this.code) ? "retry" : "reject";
  }
}

/** A function of the host, with its errors as ours. */
function ask(name, ...values) {
  if (host.gpu === undefined) {
    throw new GpuError(
      "gpu.none: there is no GPU here; a component for the world stage-gpu has one",
    );
  }
  try {
    return host.gpu[name](...values);
  } catch (error) {
    const reason = error?.payload ?? error;
    throw new GpuError(typeof reason === "string" ? reason : String(reason?.message ?? reason));
  }
}

/** The device there is, and what the stage may do with it: a record of the WIT. */
export const device = () => ask("describe");

/** Something on the device, known by its handle. */
class Made {
  constructor(handle) {
    this.handle = handle;
  }

  free() {
    const { handle } = this;
    this.handle = undefined;
    if (handle === undefined) return;
    try {
      ask("free", handle);
    } catch {
      // It may have gone with the device, and nothing depends on it any more.
    }
  }
}

/** Bytes on the device. */
export class Buffer extends Made {
  /** So many bytes, a multiple of 4, which read as zeros. */
  static zeros(bytes) {
    return new Buffer(ask("create", bytes));
  }

  static of(content) {
    const bytes = bytesOf(content);
    const buffer = Buffer.zeros(bytes.length);
    buffer.write(bytes);
    return buffer;
  }

  /** With the bytes of an asset, not to be written; the device has it once. */
  static constant(asset) {
    return new Buffer(ask("constant", asset));
  }

  /** One that came with an event: `Buffer.ofHandle(event.attachments[0])`. It frees itself. */
  static ofHandle(handle) {
    const buffer = new Buffer(handle);
    buffer.give();
    return buffer;
  }

  /** It was attached to an event, and is the batch's from then on; gives its handle. */
  give() {
    this.free = () => undefined;
    return this.handle;
  }

  write(content, offset = 0) {
    ask("write", this.handle, offset, bytesOf(content));
  }

  read(offset = 0, length = this.size - offset) {
    return ask("read", this.handle, offset, length);
  }

  get size() {
    return ask("size", this.handle);
  }
}

/** A compute entry point of a source in WGSL that uses buffers of @group(0). */
export class Kernel extends Made {
  constructor(source, entry) {
    super(ask("kernel", source, entry));
  }

  /** The buffers it uses, by ascending number: records of the WIT. */
  slots() {
    return ask("slots", this.handle);
  }
}

const STEP = {
  kernel: 0,
  x: 0,
  y: 0,
  z: 0,
  slots: [],
  source: 0,
  offset: 0,
  target: 0,
  targetOffset: 0,
  bytes: 0,
  word: 0,
};

/** A step: runs a kernel with so many workgroups over slots of the graph. */
export const dispatch = (kernel, [x, y, z], slots) => ({
  ...STEP,
  action: "dispatch",
  kernel: kernel.handle,
  x,
  y,
  z,
  slots,
});

/** A step: copies so many bytes from one slot of the graph to another. */
export const copy = (source, target, bytes, { offset = 0, targetOffset = 0 } = {}) => ({
  ...STEP,
  action: "copy",
  source,
  target,
  bytes,
  offset,
  targetOffset,
});

/** A step: writes a word again and again, over so many bytes of a slot of the graph. */
export const fill = (target, bytes, word = 0, { targetOffset = 0 } = {}) => ({
  ...STEP,
  action: "fill",
  target,
  bytes,
  word,
  targetOffset,
});

/** Steps that are done one after the other; what is bound to its slots is said each time. */
export class Graph extends Made {
  constructor(steps) {
    super(ask("graph", steps));
  }

  /** Does the steps once and waits; gives the device's time in nanoseconds. */
  submit(buffers, { deadlineMs = 0 } = {}) {
    return whole(ask("submit", this.handle, buffers.map(binding), deadlineMs));
  }
}

function binding(part) {
  const { buffer, offset = 0, bytes = 0 } = part instanceof Buffer ? { buffer: part } : part;
  return { buffer: buffer.handle, offset, bytes };
}

function whole({ end, deviceNanos }) {
  if (end === "whole") return deviceNanos;
  throw new GpuError(`${end === "lost" ? "gpu.lost" : "gpu.end"}: the submission ended by ${end}`);
}

function bytesOf(content) {
  if (content instanceof Uint8Array) return content;
  return new Uint8Array(content.buffer, content.byteOffset, content.byteLength);
}

/**
 * A kernel over the events of a call: each gives a record, and gets one. Records are of one kind
 * of number each, `given` and `made`: a typed array and how many there are, [Float32Array, 2].
 */
export class Map {
  #kept = null;

  constructor(source, entry, given, made, { deadlineMs = 0 } = {}) {
    Object.assign(this, { source, entry, deadlineMs });
    this.given = { numbers: given[0], count: given[1] ?? 1 };
    this.made = { numbers: made[0], count: made[1] ?? 1 };
    for (const record of [this.given, this.made]) {
      record.bytes = record.numbers.BYTES_PER_ELEMENT * record.count;
      if (record.bytes % 4 !== 0) throw new RangeError("a record takes a multiple of 4 bytes");
    }
  }

  run(events, pack, emit) {
    const { given, made } = this;
    const packed = [];
    const records = [];
    for (const event of events) {
      attempt(event, () => {
        const record = Array.from(pack(event));
        if (record.length !== given.count) {
          throw new RangeError(`a record has ${given.count} numbers, not ${record.length}`);
        }
        packed.push(event);
        records.push(...record);
      });
    }
    if (packed.length === 0) return;
    let answers;
    try {
      answers = this.#compute(packed.length, given.numbers.from(records));
    } catch (error) {
      if (!(error instanceof GpuError)) throw error;
      for (const event of packed) event.fail(error);
      return;
    }
    // What was read begins where it likes, and a typed array only where its numbers may.
    const numbers = new made.numbers(answers.slice().buffer);
    packed.forEach((event, index) => {
      const record = numbers.subarray(index * made.count, (index + 1) * made.count);
      attempt(event, () => emit(event, record));
    });
  }

  #compute(count, records) {
    const kept = this.#ready(count, records);
    const bytes = count * this.made.bytes;
    // Only the bytes of this call are bound, so that nothing of an earlier one can be seen.
    const all = [
      { buffer: kept.given, bytes: count * this.given.bytes },
      { buffer: kept.made, bytes },
      kept.count,
    ];
    kept.graph.submit(
      kept.uses.map((number) => all[number]),
      { deadlineMs: this.deadlineMs },
    );
    return kept.made.read(0, bytes);
  }

  /** What is on the device, with these records in it; made anew if it is over. */
  #ready(count, records) {
    if (this.#kept !== null && this.#kept.room >= count) {
      try {
        return this.#put(this.#kept, count, records);
      } catch (error) {
        // The device was lost since, or the instance goes on from an image.
        if (!(error instanceof GpuError)) throw error;
      }
    }
    for (const part of ["given", "made", "count", "graph"]) this.#kept?.[part].free();
    this.#kept = null;
    const kept = this.#put(this.#make(count), count, records);
    this.#kept = kept;
    return kept;
  }

  #put(kept, count, records) {
    kept.given.write(records);
    kept.count.write(Uint32Array.of(count));
    return kept;
  }

  #make(count) {
    let room = GROUP_THREADS;
    while (room < count) room *= 2;
    const kernel = new Kernel(this.source, this.entry);
    const uses = kernel.slots().map(({ number }) => number);
    if (uses.some((number) => number > 2)) {
      throw new GpuError("gpu.graph: the kernel of a map has bindings 0, 1 and 2 only");
    }
    const graph = new Graph([
      dispatch(
        kernel,
        [room / GROUP_THREADS, 1, 1],
        uses.map((_, at) => at),
      ),
    ]);
    kernel.free();
    const [given, made] = [this.given, this.made].map(({ bytes }) => Buffer.zeros(room * bytes));
    return { room, uses, graph, given, made, count: Buffer.zeros(16) };
  }
}
