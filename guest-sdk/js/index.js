// Stages of sluicebox in JavaScript and TypeScript: write a handler, and see neither frames nor
// bindings. What is here is explained in README.md; index.d.ts has the types.

import { host } from "./host.js";
import { decode } from "./text.js";

export { Event, Field } from "./event.js";
export { Failure, Reject, Retry, Trap } from "./failure.js";
export { Refused } from "./host.js";
export { batch, stage } from "./stage.js";
export { StateBatch } from "./state.js";
export { Stream, stream } from "./stream.js";

const ASSET_PART_BYTES = 1 << 20;

export const watermark = () => host.watermark();

export const now = () => host.now();

export const config = Object.freeze({
  get: (name, fallback) => host.configGet(name) ?? fallback,
  names: () => host.configNames(),
});

export const assets = Object.freeze({
  size: (name) => host.assetSize(name),

  read(name, offset = 0, length = Infinity) {
    const size = host.assetSize(name);
    if (size === undefined) throw new RangeError(`the manifest grants no asset ${name}`);
    const end = Math.min(size, offset + length);
    const bytes = new Uint8Array(Math.max(0, end - offset));
    for (let at = 0; at < bytes.length;) {
      const part = host.assetRead(
        name,
        offset + at,
        Math.min(ASSET_PART_BYTES, bytes.length - at),
      );
      if (part.length === 0) break;
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  },

  text: (name) => decode(assets.read(name)),
});

export const log = Object.freeze({
  debug: (message) => host.log("debug", String(message)),
  info: (message) => host.log("info", String(message)),
  warn: (message) => host.log("warn", String(message)),
  error: (message) => host.log("error", String(message)),
});

export const metrics = Object.freeze({
  count: (name, delta = 1) => host.count(name, delta),
  gauge: (name, value) => host.gauge(name, value),
});
