// What the host calls in a component, and the host's functions for the rest of the SDK. Only the
// module that a build makes for a component imports this; see the recipe in runtime/toolchain.
//
// QuickJS has no TextEncoder, TextDecoder and console; code that expects them finds those here.

import * as assets from "sluicebox:stage/assets@0.1.0";
import * as config from "sluicebox:stage/config@0.1.0";
import * as log from "sluicebox:stage/log@0.1.0";
import * as metrics from "sluicebox:stage/metrics@0.1.0";
import * as output from "sluicebox:stage/output@0.1.0";
import * as state from "sluicebox:stage/state@0.1.0";
import * as timers from "sluicebox:stage/timers@0.1.0";

import { Refused, replace } from "./host.js";
import { Stage } from "./stage.js";
import { decode, encode, toBytes } from "./text.js";

/** Nothing is undefined in the SDK, whatever the bindings make of it. */
const optional = (value) => value ?? undefined;

/** Refusals of the host as an error of the SDK's own. */
function refusing(call) {
  try {
    return call();
  } catch (error) {
    const reason = error?.payload ?? error;
    throw new Refused(typeof reason === "string" ? reason : String(reason?.message ?? reason));
  }
}

replace({
  emit: (frame) => output.emit(frame),
  stateGet: (event, slot) => optional(state.get(event, slot)),
  statePut: (event, slot, value) => refusing(() => state.put(event, slot, value)),
  stateDelete: (event, slot) => state.delete(event, slot),
  stateScan: (event, prefix, limit) =>
    state.scan(event, prefix, limit).map(({ slot, value }) => [slot, value]),
  stateBatch: (operations) => state.batch(operations),
  timerSet: (event, name, clock, at) =>
    refusing(() => timers.set(event, name, clock === "wall" ? "wall" : "event-time", at)),
  timerCancel: (event, name) => timers.cancel(event, name),
  watermark: () => timers.watermark(),
  now: () => Date.now() * 1_000,
  configGet: (name) => optional(config.get(name)),
  configNames: () => config.names(),
  assetSize: (name) => optional(assets.size(name)),
  assetRead: (name, offset, length) => assets.read(name, offset, length),
  log: (level, message) => log.write(level, message),
  count: (name, delta) => metrics.count(name, delta),
  gauge: (name, value) => metrics.gauge(name, value),
});

/** Text for a console: texts as they are, other values as JSON where they have one. */
function shown(values) {
  const one = (value) => {
    if (typeof value === "string") return value;
    if (value instanceof Error)
      return `${value.name}: ${value.message}\n${value.stack ?? ""}`.trimEnd();
    try {
      return JSON.stringify(value) ?? String(value);
    } catch {
      return String(value);
    }
  };
  return values.map(one).join(" ");
}

class Utf8Encoder {
  encoding = "utf-8";

  encode(text = "") {
    return encode(String(text));
  }
}

class Utf8Decoder {
  encoding = "utf-8";

  constructor(label = "utf-8") {
    if (!/^utf-?8$/i.test(label)) throw new RangeError(`there is UTF-8 alone, not ${label}`);
  }

  /** Throws where the bytes are no UTF-8; never gives U+FFFD in their place. */
  decode(bytes = new Uint8Array(0)) {
    return decode(toBytes(bytes));
  }
}

globalThis.TextEncoder ??= Utf8Encoder;
globalThis.TextDecoder ??= Utf8Decoder;
globalThis.console ??= Object.fromEntries(
  [
    ["debug", "debug"],
    ["log", "info"],
    ["info", "info"],
    ["warn", "warn"],
    ["error", "error"],
  ].map(([name, level]) => [name, (...values) => log.write(level, shown(values))]),
);

/** The export `handle` of a stage. */
export function component(stage) {
  if (!(stage instanceof Stage)) {
    throw new TypeError(
      "the module's default export is no stage: export default stage((event) => …)",
    );
  }
  const handle = stage.instance();
  return (frame) =>
    handle(frame).map(({ event, kind, message }) => ({ event, class: kind, message }));
}
