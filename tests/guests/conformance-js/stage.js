// The conformance guest over the SDK for JavaScript; what it does: ../CONFORMANCE.md.

import {
  assets,
  config,
  Field,
  log,
  metrics,
  Refused,
  Reject,
  Retry,
  stage,
  Trap,
  watermark,
} from "sluicebox";

const OWN_FIELD = 40_000;
const LEVELS = [log.debug, log.info, log.warn, log.error];
const CLOCKS = ["event", "wall"];
const KINDS = ["data", "timer", "open", "end"];

// What command M was given in the life of the instance.
const remembered = [];

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Also what an operand without the form it needs comes to. */
const unknown = () => new Reject("unknown command");

function number(value, size) {
  let rest = BigInt(value);
  return Uint8Array.from({ length: size }, () => {
    const byte = Number(rest & 0xffn);
    rest >>= 8n;
    return byte;
  });
}

/** A number of 8 bytes, with its sign. */
const signed = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, 8).getBigInt64(0, true);
/** A number of 8 bytes below 2^53, or the next one that a number can be. */
const unsigned = (bytes) => Number(BigInt.asUintN(64, signed(bytes)));

function join(...parts) {
  const all = parts.map((part) => (typeof part === "string" ? encoder.encode(part) : part));
  return Uint8Array.from(all.flatMap((part) => Array.from(part)));
}

/** One byte of length, so many bytes of text, and the rest. */
function split(operand) {
  if (operand.length === 0 || operand.length < 1 + operand[0]) throw unknown();
  const end = 1 + operand[0];
  return [decoder.decode(operand.subarray(1, end)), operand.subarray(end)];
}

const optional = (value) => (value === undefined ? [0] : join([1], value));

function refusable(run) {
  try {
    return run();
  } catch (error) {
    if (error instanceof Refused) return join([2], error.message);
    throw error;
  }
}

const describe = (event) =>
  join([KINDS.indexOf(event.kind)], number(event.input, 2), number(event.time, 8), event.key);

function put(event, operand) {
  const [slot, value] = split(operand);
  return refusable(() => {
    event.state.put(slot, value);
    return [0];
  });
}

function add(event, operand) {
  const [slot, delta] = split(operand);
  if (delta.length !== 8) throw unknown();
  return refusable(() => join([0], number(event.state.addBig(slot, signed(delta)), 8)));
}

function scan(event, operand) {
  const packed = [];
  for (const [slot, value] of event.state.scan(decoder.decode(operand), 100)) {
    const name = encoder.encode(slot);
    packed.push(join([name.length], name, number(value.length, 4), value));
  }
  return join(...packed);
}

function asset(event, operand) {
  const name = decoder.decode(operand);
  const size = assets.size(name);
  return size === undefined ? undefined : join(number(size, 8), assets.read(name, 0, 16));
}

function say(event, operand) {
  if (operand.length === 0 || operand[0] >= LEVELS.length) throw unknown();
  LEVELS[operand[0]](decoder.decode(operand.subarray(1)));
}

function remember(event, operand) {
  remembered.push(...operand);
  const sum = remembered.reduce((one, other) => one + other, 0);
  return join(number(remembered.length, 4), number(sum, 4));
}

function setTimer(event, operand) {
  if (operand.length < 9 || operand[0] >= CLOCKS.length) throw unknown();
  const name = decoder.decode(operand.subarray(9));
  return refusable(() => {
    event.timers.set(name, unsigned(operand.subarray(1, 9)), CLOCKS[operand[0]]);
    return [0];
  });
}

function many(event, operand) {
  if (operand.length === 0) throw unknown();
  for (let value = 0; value < operand[0]; value += 1) event.emit(Uint8Array.of(value));
}

function ported(event, operand) {
  if (operand.length === 0) throw unknown();
  event.emit(operand.subarray(1), { port: operand[0] });
}

function keyed(event, operand) {
  const [key, rest] = split(operand);
  event.emit(rest, { key });
}

function caused(event, operand) {
  if (operand.length < 4) throw unknown();
  const cause = new DataView(operand.buffer, operand.byteOffset).getUint32(0, true);
  event.emit(operand.subarray(4), { cause });
}

function fields(event, operand) {
  const contentType = event.field(Field.CONTENT_TYPE);
  const own = [[OWN_FIELD, operand]];
  if (contentType !== undefined) own.push([Field.CONTENT_TYPE, contentType]);
  event.emit("", { fields: own });
}

// A command gives the payload to emit, or nothing.
const COMMANDS = {
  e: (event, operand) => operand,
  n: many,
  p: ported,
  k: keyed,
  u: caused,
  d: describe,
  f: fields,
  r(event, operand) {
    throw new Retry(decoder.decode(operand));
  },
  x(event, operand) {
    throw new Reject(decoder.decode(operand));
  },
  t() {
    throw new Trap("told to");
  },
  g: (event, operand) => optional(event.state.get(decoder.decode(operand))),
  s: put,
  D: (event, operand) => [Number(event.state.delete(decoder.decode(operand)))],
  a: add,
  S: scan,
  c: (event, operand) => optional(config.get(decoder.decode(operand))),
  A: asset,
  l: say,
  m: (event, operand) => metrics.count(decoder.decode(operand)),
  M: remember,
  T: setTimer,
  C: (event, operand) => [Number(event.timers.cancel(decoder.decode(operand)))],
  W: () => number(watermark(), 8),
  w: () => number(BigInt(Date.now()) * 1_000_000n, 8),
};

export default stage((event) => {
  const { kind, payload } = event;
  if (kind !== "data") {
    event.emit(describe(event));
    return;
  }
  const name = payload.length === 0 ? "" : String.fromCharCode(payload[0]);
  if (!Object.hasOwn(COMMANDS, name)) throw unknown();
  const answer = COMMANDS[name](event, payload.subarray(1));
  if (answer === undefined) return;
  // Only what is no block of bytes yet is made one: that goes byte by byte.
  event.emit(answer instanceof Uint8Array ? answer : Uint8Array.from(answer));
});
