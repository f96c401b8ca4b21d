// Text to bytes and back.
//
// QuickJS has neither TextEncoder nor TextDecoder, and a loop over characters costs it some 0.2 us
// each. What is here goes through functions that are native in it: base64 carries bytes to a text
// of as many characters and back, and the URI functions know UTF-8.
//
// A component brings TextEncoder and TextDecoder, for UTF-8 alone, and a console, to code that
// expects them: `provide` in `component.js`.

const nativeEncoder = typeof TextEncoder === "function" ? new TextEncoder() : null;
const nativeDecoder =
  typeof TextDecoder === "function"
    ? new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
    : null;

/** The bytes of a text as UTF-8; half a surrogate pair becomes U+FFFD. */
export function encode(text) {
  if (nativeEncoder !== null) return nativeEncoder.encode(text);
  if (text === "") return new Uint8Array(0);
  return Uint8Array.fromBase64(btoa(unescape(encodeURIComponent(text.toWellFormed()))));
}

/** The text of bytes as UTF-8; throws if they are not. */
export function decode(bytes) {
  if (nativeDecoder !== null) return nativeDecoder.decode(bytes);
  if (bytes.length === 0) return "";
  return decodeURIComponent(escape(atob(bytes.toBase64())));
}

/** The bytes of a payload or a value: of a text its UTF-8. */
export function toBytes(value) {
  if (typeof value === "string") return encode(value);
  if (value instanceof Uint8Array) return value;
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) {
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  }
  throw new TypeError(`bytes or text are wanted, not ${typeof value}; JSON goes by emitJson`);
}

/** A value as the bytes of its JSON. */
export function toJson(value) {
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`a value of type ${typeof value} has no JSON`);
  return encode(text);
}
