// The packed frame, version 1: how events lie in the bytes that cross the border.
//
// wit/FRAME.md is the specification; this is the SDK's own reader and writer. A frame from the
// host is trusted to be well formed, as the host has checked it.

export const HEADER_BYTES = 16;
export const HEAD_BYTES = 32;
export const KEY_BYTES_MAX = 512;
export const FIELDS_BYTES_MAX = 16_384;
export const PAYLOAD_BYTES_MAX = 15 << 20;
export const TIME_END = 2 ** 53;
export const NO_CAUSE = 0xffff_ffff;
export const KINDS = ["data", "timer", "open", "end"];

const HIGH = 2 ** 32;

/** A number below 2^53 of 8 bytes. */
export function getNumber(view, at) {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * HIGH;
}

export function setNumber(view, at, value) {
  view.setUint32(at, value % HIGH, true);
  view.setUint32(at + 4, Math.floor(value / HIGH), true);
}

export function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Extension fields, pairs of id and bytes, as they lie in an event. */
export function packFields(fields) {
  let length = 0;
  for (const [, value] of fields) {
    if (value.length > 65_535) {
      throw new RangeError("emitted a field whose value is longer than 65,535 bytes");
    }
    length += 4 + value.length;
  }
  const packed = new Uint8Array(length);
  const view = viewOf(packed);
  let at = 0;
  for (const [id, value] of fields) {
    view.setUint16(at, id, true);
    view.setUint16(at + 2, value.length, true);
    packed.set(value, at + 4);
    at += 4 + value.length;
  }
  return packed;
}

/** The extension fields of an event: pairs of id and bytes, in order. */
export function readFields(packed) {
  const view = viewOf(packed);
  const fields = [];
  for (let at = 0; at < packed.length;) {
    const length = view.getUint16(at + 2, true);
    fields.push([view.getUint16(at, true), packed.slice(at + 4, at + 4 + length)]);
    at += 4 + length;
  }
  return fields;
}

/** A frame being packed, in one buffer that serves all calls of an instance. */
export class Packer {
  #buffer = new Uint8Array(4096);
  #end = HEADER_BYTES;
  #count = 0;
  // The head of an event is put together here, where its numbers lie as in a list.
  #head = new Uint32Array(HEAD_BYTES / 4);
  #headBytes = new Uint8Array(this.#head.buffer);

  get bytes() {
    return this.#end;
  }

  get count() {
    return this.#count;
  }

  /** Packs one event; the caller has checked that a frame can carry it. */
  push(kind, input, port, cause, time, key, payload, fields) {
    const head = this.#head;
    const size = HEAD_BYTES + key.length + payload.length + fields.length;
    head[0] = size;
    head[1] = kind + input * 65_536;
    head[2] = port + key.length * 65_536;
    head[3] = cause;
    head[4] = time % HIGH;
    head[5] = time / HIGH;
    head[6] = payload.length;
    head[7] = fields.length;
    let at = this.#end;
    const end = at + size;
    if (end > this.#buffer.length) this.#grow(end);
    const buffer = this.#buffer;
    buffer.set(this.#headBytes, at);
    at += HEAD_BYTES;
    if (key.length > 0) buffer.set(key, at);
    buffer.set(payload, at + key.length);
    if (fields.length > 0) buffer.set(fields, end - fields.length);
    this.#end = end;
    this.#count += 1;
  }

  /** The frame so far; the next one begins. */
  take() {
    const frame = this.#buffer.slice(0, this.#end);
    const view = viewOf(frame);
    view.setUint32(0, 0x4658_4253, true);
    view.setUint16(4, 1, true);
    view.setUint16(6, 1, true);
    view.setUint32(8, this.#count, true);
    view.setUint32(12, this.#end, true);
    this.#end = HEADER_BYTES;
    this.#count = 0;
    // It may have grown for one large event, and the next one like it may never come.
    if (this.#buffer.length > 256 << 10) this.#buffer = new Uint8Array(4096);
    return frame;
  }

  #grow(bytes) {
    const larger = new Uint8Array(Math.max(bytes, this.#buffer.length * 2));
    larger.set(this.#buffer.subarray(0, this.#end));
    this.#buffer = larger;
  }
}
