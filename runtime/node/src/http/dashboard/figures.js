// Figures as people read them.

const NONE = "–";

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** Three digits that say something, and a letter for the thousands. */
function short(value, step, letters) {
  let at = 0;
  while (value >= step && at < letters.length - 1) {
    value /= step;
    at += 1;
  }
  const digits = at === 0 && Number.isInteger(value) ? 0 : value < 10 ? 2 : value < 100 ? 1 : 0;
  return [Number(value.toFixed(digits)).toString(), letters[at]];
}

/** `1,204,331`. */
export const whole = (value) => (value === null || value === undefined ? NONE : number.format(value));

/** `1.2 M`. */
export function count(value) {
  if (value === null || value === undefined) return NONE;
  const [digits, letter] = short(value, 1000, ["", "k", "M", "G", "T", "P"]);
  return letter ? `${digits} ${letter}` : digits;
}

/** `1.2 MiB`. */
export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  return short(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]).join(" ");
}

/** So many a second. */
export function rate(value, unit = count) {
  if (value === null || value === undefined) return NONE;
  if (value > 0 && value < 0.01) return `< ${unit(0.01)}/s`;
  return `${unit(value < 10 ? Math.round(value * 100) / 100 : value)}/s`;
}

/** A time that is given in microseconds. */
export function micros(value) {
  if (value === null || value === undefined) return NONE;
  if (value === Infinity) return "> 30 s";
  if (value < 1000) return `${Math.round(value)} µs`;
  if (value < 1_000_000) return `${short(value / 1000, Infinity, [""])[0]} ms`;
  return seconds(value / 1_000_000);
}

/** A time that is given in seconds. */
export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 1) return micros(value * 1_000_000);
  if (value < 100) return `${short(value, Infinity, [""])[0]} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  if (value < 172_800) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86_400)} d`;
}

/** A part of one, in percent. */
export function percent(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  const all = value * 100;
  return `${all > 0 && all < 0.1 ? "< 0.1" : Number(all.toFixed(all < 10 ? 1 : 0))} %`;
}

/** A moment that is given in microseconds since 1970. */
export function moment(value) {
  if (!value) return NONE;
  const at = new Date(value / 1000);
  return Number.isNaN(at.getTime()) ? NONE : at.toISOString().replace("T", " ").slice(0, 19);
}

/** A text that is cut in the middle of nothing: its beginning, and that there is more. */
export function cut(text, most) {
  const all = [...text];
  return all.length > most ? `${all.slice(0, most - 1).join("")}…` : text;
}

/** "1 stage", "2 stages". */
export const several = (value, one, more = `${one}s`) => `${whole(value)} ${value === 1 ? one : more}`;

/**
 * The time within which a part of all was done, from rows `[more than, at most, how many]`; null if
 * there is nothing. Within a row they are taken to be spread evenly.
 */
export function quantile(rows, part) {
  const all = rows.reduce((sum, [, , many]) => sum + many, 0);
  if (all === 0) return null;
  let left = all * part;
  for (const [from, to, many] of rows) {
    if (many > 0 && left <= many) return to === Infinity ? Infinity : from + ((to - from) * left) / many;
    left -= many;
  }
  return Infinity;
}
