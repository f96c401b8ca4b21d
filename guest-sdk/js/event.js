// The events a stage receives, and emitting because of them.
//
// - An event is of one call: what is emitted, written or said to have failed for it later than
//   that throws, as its index would mean another event by then.
// - Nothing of an event is taken out of its frame before it is asked for.

import * as frames from "./frame.js";
import { describe, Reject } from "./failure.js";
import { host } from "./host.js";
import { State, Timers } from "./state.js";
import { decode, encode, toBytes, toJson } from "./text.js";

const { HEAD_BYTES, HEADER_BYTES } = frames;

// A frame is given to the host when it would become larger than this: just below the 256 KiB a
// stage is given in one frame, so that the host need not cut it.
const FLUSH_BYTES = 240 << 10;
const NONE = new Uint8Array(0);
const NO_BUFFERS = [];
const FIELD_IDS_END = 65_536;
const ATTACHMENTS_MAX = 256;

/** Ids of extension fields. Those from OWN_FIRST on are for stages' own use. */
export const Field = Object.freeze({
  TRACE_CONTEXT: 1,
  REQUEST: 2,
  ATTACHMENTS: 3,
  EVENT_ID: 256,
  EVENT_SOURCE: 257,
  CONTENT_TYPE: 258,
  EVENT_TYPE: 259,
  EVENT_SUBJECT: 260,
  OWN_FIRST: 32_768,
});

// One buffer serves all calls of an instance.
const packer = new frames.Packer();

/** One call of the host: the events it gave, what is emitted, and which events failed. */
export class Call {
  open = true;
  failures = new Map();
  // Attachments that the frame being packed names.
  attached = 0;

  constructor(frame) {
    this.frame = frame;
    this.view = frames.viewOf(frame);
    // A call that threw has left there what nobody is to see; in a test the instance goes on.
    if (packer.count > 0) packer.take();
  }

  /** The events of the call, in order. */
  events() {
    const { view } = this;
    const count = view.getUint32(8, true);
    const events = new Array(count);
    let at = HEADER_BYTES;
    for (let index = 0; index < count; index += 1) {
      events[index] = new Event(this, index, at);
      at += view.getUint32(at, true);
    }
    return events;
  }

  /** Packs one event; throws if no frame can carry it. */
  emit(index, time, payload, options) {
    this.check();
    const body = toBytes(payload);
    let [port, key, fields, attach] = [0, NONE, NONE, NO_BUFFERS];
    if (options !== undefined) {
      port = options.port ?? 0;
      index = options.cause ?? index;
      time = options.time ?? time;
      if (options.key) key = encode(options.key);
      attach = options.attach ?? attach;
      if (options.fields || attach.length > 0) fields = fieldsOf(options.fields, attach);
    }
    checkSizes(key, body, fields);
    if (!(Number.isSafeInteger(time) && time >= 0)) {
      throw new Reject(`emitted the time ${time}, times are whole microseconds below 2^53`);
    }
    if (!(Number.isInteger(index) && index >= 0 && index <= 0xffff_ffff)) {
      throw new Reject(
        `emitted with the cause ${index}, causes are indices of events of the call`,
      );
    }
    if (!(Number.isInteger(port) && port >= 0 && port <= 65_535)) {
      throw new Reject(`emitted by the port ${port}, ports are 0 to 65,535`);
    }
    const size = HEAD_BYTES + key.length + body.length + fields.length;
    const attached = this.attached + attach.length;
    if (packer.bytes + size > FLUSH_BYTES || attached > ATTACHMENTS_MAX) this.flush();
    packer.push(0, 0, port, index, time, key, body, fields);
    // Not before: buffers of an event that was not packed are still the stage's, to free.
    this.attached += attach.length;
    for (const buffer of attach) buffer.give?.();
  }

  /** Gives the host what was emitted so far. */
  flush() {
    if (packer.count > 0) host.emit(packer.take());
    this.attached = 0;
  }

  /** Notes the failure of an event; the first one of an event counts. */
  fail(index, error, kind) {
    this.check();
    if (this.failures.has(index)) return;
    const found = describe(error);
    this.failures.set(index, { kind: kind ?? found.kind, message: found.message });
  }

  check() {
    if (!this.open)
      throw new Error("the event is of an earlier call: it has to be done within its own");
  }

  /** Ends the call; gives index, class and message of the events that failed. */
  finish() {
    this.flush();
    this.open = false;
    return Array.from(this.failures, ([event, { kind, message }]) => ({ event, kind, message }));
  }
}

/** Extension fields, packed, with the buffers of a GPU that are attached. */
function fieldsOf(fields = [], attach) {
  if (attach.length === 0) return packed(fields);
  if (attach.length > ATTACHMENTS_MAX) {
    throw new Reject(`emitted ${attach.length} attachments, the limit is 256`);
  }
  const value = new Uint8Array(8 * attach.length);
  const view = frames.viewOf(value);
  attach.forEach((buffer, at) => frames.setNumber(view, 8 * at, buffer.handle ?? buffer));
  return packed([...fields, [Field.ATTACHMENTS, value]]);
}

function packed(fields) {
  for (const [id] of fields) {
    if (!(Number.isInteger(id) && id >= 0 && id < FIELD_IDS_END)) {
      throw new Reject(`emitted a field with the id ${id}, ids are 0 to 65,535`);
    }
  }
  return frames.packFields(fields.map(([id, value]) => [id, toBytes(value)]));
}

function checkSizes(key, payload, fields) {
  if (key.length > frames.KEY_BYTES_MAX) {
    throw new Reject(`emitted a key of ${key.length} bytes, the limit is 512`);
  }
  if (fields.length > frames.FIELDS_BYTES_MAX) {
    throw new Reject(`emitted ${fields.length} bytes of fields, the limit is 16,384`);
  }
  if (payload.length > frames.PAYLOAD_BYTES_MAX) {
    throw new Reject(`emitted a payload of ${payload.length} bytes, the limit is 15 MiB`);
  }
}

/** One event of the call that is being handled. */
export class Event {
  #call;
  #at;

  constructor(call, index, at) {
    this.#call = call;
    this.#at = at;
    this.index = index;
  }

  get kind() {
    return frames.KINDS[this.#call.view.getUint8(this.#at + 4)];
  }

  get input() {
    return this.#call.view.getUint16(this.#at + 6, true);
  }

  get port() {
    return this.#call.view.getUint16(this.#at + 8, true);
  }

  get time() {
    return frames.getNumber(this.#call.view, this.#at + 16);
  }

  get key() {
    const at = this.#at + HEAD_BYTES;
    return decode(this.#call.frame.subarray(at, at + this.#keyBytes()));
  }

  get payload() {
    const at = this.#at + HEAD_BYTES + this.#keyBytes();
    return this.#call.frame.subarray(at, at + this.#call.view.getUint32(this.#at + 24, true));
  }

  text() {
    try {
      return decode(this.payload);
    } catch (error) {
      throw new Reject(`the payload is not UTF-8: ${error.message}`);
    }
  }

  json() {
    const text = this.text();
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Reject(`the payload is not JSON: ${error.message}`);
    }
  }

  fields() {
    const length = this.#call.view.getUint32(this.#at + 28, true);
    if (length === 0) return [];
    const payloadBytes = this.#call.view.getUint32(this.#at + 24, true);
    const at = this.#at + HEAD_BYTES + this.#keyBytes() + payloadBytes;
    return frames.readFields(this.#call.frame.subarray(at, at + length));
  }

  field(id) {
    return this.fields().find(([found]) => found === id)?.[1];
  }

  get attachments() {
    const packedHandles = this.field(Field.ATTACHMENTS) ?? NONE;
    const view = frames.viewOf(packedHandles);
    return Array.from({ length: packedHandles.length / 8 }, (_, at) =>
      frames.getNumber(view, 8 * at),
    );
  }

  get timer() {
    return this.kind === "timer" ? decode(this.payload) : undefined;
  }

  get state() {
    return new State(this);
  }

  get timers() {
    return new Timers(this);
  }

  emit(payload, options) {
    this.#call.emit(this.index, this.time, payload, options);
  }

  emitJson(value, options) {
    this.#call.emit(this.index, this.time, toJson(value), options);
  }

  fail(error) {
    this.#call.fail(this.index, error);
  }

  /** The index by which the host knows the event, as long as its call lasts. */
  ofCall() {
    this.#call.check();
    return this.index;
  }

  #keyBytes() {
    return this.#call.view.getUint16(this.#at + 10, true);
  }
}
