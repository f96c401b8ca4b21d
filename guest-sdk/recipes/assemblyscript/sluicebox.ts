// What a stage in AssemblyScript needs: events out of a frame, and the host's functions, by the
// canonical ABI. One file, to be copied beside a stage, which exports what is at its end again.
//
// What the host gives lies where cabi_realloc says; it is copied and freed at once. Texts of this
// language are of 16-bit units, so each crosses as UTF-8 made for it. The format: wit/FRAME.md.

@external("sluicebox:stage/output@0.1.0", "emit")
declare function hostEmit(at: usize, length: usize): void;
@external("sluicebox:stage/state@0.1.0", "get")
declare function hostGet(event: u32, slot: usize, length: usize, result: usize): void;
@external("sluicebox:stage/state@0.1.0", "put")
declare function hostPut(
  event: u32, slot: usize, length: usize, value: usize, size: usize, result: usize,
): void;
@external("sluicebox:stage/state@0.1.0", "add")
declare function hostAdd(event: u32, slot: usize, length: usize, delta: i64, result: usize): void;
@external("sluicebox:stage/log@0.1.0", "write")
declare function hostLog(level: u32, line: usize, length: usize): void;

const HEADER: usize = 16;
const HEAD: usize = 32;
const FAILURE: usize = 16;

// Where the host puts what a function gives.
const result = memory.data(16, 8);
// The list of failures that `handle` gives back: where, and how many.
const failures = memory.data(8, 4);

// What is emitted in a call, behind room for the header.
let output: usize = 0;
let outputEnd: usize = 0;
let outputRoom: usize = 0;
let outputCount: u32 = 0;

export enum Kind { DATA, TIMER, OPEN, END }

/** An event of the current call. */
export class Event {
  constructor(
    readonly index: u32,
    /** Where it lies in the frame. */
    private at: usize,
  ) {}

  get kind(): Kind { return load<u8>(this.at, 4); }
  get time(): u64 { return load<u64>(this.at, 16); }

  get key(): string {
    return String.UTF8.decodeUnsafe(this.at + HEAD, load<u16>(this.at, 10));
  }

  /** The payload as text. */
  get text(): string {
    return String.UTF8.decodeUnsafe(this.payloadAt, load<u32>(this.at, 24));
  }

  get payload(): Uint8Array { return copied(this.payloadAt, load<u32>(this.at, 24)); }

  private get payloadAt(): usize { return this.at + HEAD + load<u16>(this.at, 10); }

  /** Emits a text on a port with the time and key of this event. */
  emit(text: string, port: u16 = 0): void {
    const length = <usize>String.UTF8.byteLength(text);
    const at = reserve(HEAD + length);
    memory.fill(at, 0, HEAD);
    store<u32>(at, <u32>(HEAD + length));
    store<u16>(at, port, 8);
    store<u32>(at, this.index, 12);
    store<u64>(at, this.time, 16);
    store<u32>(at, <u32>length, 24);
    String.UTF8.encodeUnsafe(changetype<usize>(text), text.length, at + HEAD);
  }

  /** Says that the event cannot be handled; with `retry`, that trying again may help. */
  fail(message: string, retry: bool = false): void {
    const bytes = String.UTF8.encode(message);
    const at = heap.alloc(bytes.byteLength + 1);
    memory.copy(at, changetype<usize>(bytes), bytes.byteLength);
    const count = load<u32>(failures, 4);
    const list = larger(load<u32>(failures), <usize>(count + 1) * FAILURE);
    const failure = list + <usize>count * FAILURE;
    store<u32>(failure, this.index);
    store<u32>(failure, retry ? 0 : 1, 4);
    store<u32>(failure, <u32>at, 8);
    store<u32>(failure, bytes.byteLength, 12);
    store<u32>(failures, <u32>list);
    store<u32>(failures, count + 1, 4);
  }

  /** What a slot of the event's key holds. */
  get(slot: string): Uint8Array | null {
    const name = String.UTF8.encode(slot);
    hostGet(this.index, changetype<usize>(name), name.byteLength, result);
    return load<u8>(result) ? taken(load<u32>(result, 4), load<u32>(result, 8)) : null;
  }

  /** Writes a slot of the event's key; gives why the host refused, or nothing. */
  put(slot: string, value: Uint8Array): string | null {
    const name = String.UTF8.encode(slot);
    const at = changetype<usize>(name);
    hostPut(this.index, at, name.byteLength, value.dataStart, value.byteLength, result);
    return load<u8>(result) ? refusal(4) : null;
  }

  /** Adds to a counter of the event's key; its new number. If the host refuses, the event fails. */
  add(slot: string, delta: i64): i64 {
    const name = String.UTF8.encode(slot);
    hostAdd(this.index, changetype<usize>(name), name.byteLength, delta, result);
    if (!load<u8>(result)) return load<i64>(result, 8);
    this.fail(refusal(8));
    return 0;
  }
}

/** Writes a line of level info to the stage's log. */
export function log(line: string): void {
  const bytes = String.UTF8.encode(line);
  hostLog(1, changetype<usize>(bytes), bytes.byteLength);
}

/** Memory of this size with what there was, if anything. */
function larger(old: usize, size: usize): usize {
  return old == 0 ? heap.alloc(size) : heap.realloc(old, size);
}

function copied(at: usize, length: usize): Uint8Array {
  const bytes = new Uint8Array(<i32>length);
  memory.copy(bytes.dataStart, at, length);
  return bytes;
}

/** Bytes that the host put somewhere. */
function taken(at: usize, length: usize): Uint8Array {
  const bytes = copied(at, length);
  if (length > 0) heap.free(at);
  return bytes;
}

function refusal(offset: usize): string {
  const at = <usize>load<u32>(result + offset), length = <usize>load<u32>(result + offset, 4);
  const text = String.UTF8.decodeUnsafe(at, length);
  if (length > 0) heap.free(at);
  return text;
}

function reserve(length: usize): usize {
  if (outputEnd == 0) outputEnd = HEADER;
  const at = outputEnd;
  outputEnd += length;
  if (outputEnd > outputRoom) {
    outputRoom = max(outputEnd, outputRoom * 2);
    output = larger(output, outputRoom);
  }
  outputCount += 1;
  return output + at;
}

function flush(): void {
  if (outputCount == 0) return;
  store<u32>(output, 0x46584253);
  store<u32>(output, 0x00010001, 4);
  store<u32>(output, outputCount, 8);
  store<u32>(output, <u32>outputEnd, 12);
  hostEmit(output, outputEnd);
  outputCount = 0;
  outputEnd = HEADER;
}

let stage: (event: Event) => void = (event: Event): void => unreachable();

/** Says what the stage does with each event. Called once, at the top of the stage. */
export function run(handler: (event: Event) => void): void { stage = handler; }

// What a stage exports again:
//
//     export { handle, cabi_realloc, cabi_post_handle } from "./sluicebox";

export function handle(frame: usize, length: usize): usize {
  const count = load<u32>(frame, 8);
  let at = frame + HEADER;
  for (let index: u32 = 0; index < count; index++) {
    stage(new Event(index, at));
    at += load<u32>(at);
  }
  flush();
  heap.free(frame);
  return failures;
}

export function cabi_post_handle(list: usize): void {
  const at = <usize>load<u32>(list), count = load<u32>(list, 4);
  for (let i: u32 = 0; i < count; i++) heap.free(load<u32>(at + <usize>i * FAILURE, 8));
  if (at != 0) heap.free(at);
  store<u64>(list, 0);
  __collect();
}

export function cabi_realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  return size == 0 ? align : larger(old, size);
}
