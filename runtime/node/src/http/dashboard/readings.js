// Counters as they were read, one reading after another, and the rates between them.
//
// A reading is a map from names to numbers that only grow, but for names that begin with `=`, which
// are levels. Kept are those of the last minutes; when a number has become smaller, whatever counted
// has begun anew, and what was before is forgotten.

/** How long readings are kept. */
const KEPT_MS = 120_000;

/** What a rate is taken over, so that it does not tremble. */
const RATE_MS = 5_000;

/** What times are taken over: percentiles of few are no percentiles. */
const TIMES_MS = 60_000;

export class Readings {
  constructor() {
    this.all = [];
  }

  /** Takes a reading. */
  add(figures, at = performance.now()) {
    const last = this.all.at(-1);
    if (last) {
      for (const [name, value] of figures) {
        if (!name.startsWith("=") && value < (last.figures.get(name) ?? 0)) {
          this.all = [];
          break;
        }
      }
    }
    this.all.push({ at, figures });
    while (this.all.length > 2 && at - this.all[0].at > KEPT_MS) this.all.shift();
  }

  /** The newest reading that is at least so old; the oldest if none is. */
  #before(ms) {
    const last = this.all.at(-1);
    for (let at = this.all.length - 2; at >= 0; at -= 1) {
      if (last.at - this.all[at].at >= ms) return this.all[at];
    }
    return this.all[0];
  }

  /** So many a second, of late; null if there is nothing to compare. */
  rate(name, ms = RATE_MS) {
    if (this.all.length < 2) return null;
    const [from, to] = [this.#before(ms), this.all.at(-1)];
    if (!to.figures.has(name)) return null;
    return ((to.figures.get(name) - (from.figures.get(name) ?? 0)) * 1000) / (to.at - from.at);
  }

  /** Rates between each two readings: `[seconds ago, rate]`. */
  series(name) {
    const last = this.all.at(-1)?.at;
    return this.all.slice(1).map((to, before) => {
      const from = this.all[before];
      const more = (to.figures.get(name) ?? 0) - (from.figures.get(name) ?? 0);
      return [(last - to.at) / 1000, (more * 1000) / (to.at - from.at)];
    });
  }

  /** Values as they were: `[seconds ago, value]`. */
  levels(name) {
    const last = this.all.at(-1)?.at;
    return this.all.map(({ at, figures }) => [(last - at) / 1000, figures.get(name) ?? 0]);
  }

  /** Times that were counted of late under a name: rows `[more than, at most, how many]`. */
  times(name, ms = TIMES_MS) {
    if (this.all.length < 2) return [];
    const [from, to] = [this.#before(ms), this.all.at(-1)];
    const prefix = `${name}|`;
    const rows = [];
    for (const [key, value] of to.figures) {
      if (!key.startsWith(prefix)) continue;
      const [least, most] = key.slice(prefix.length).split("|");
      rows.push([Number(least), most === "" ? Infinity : Number(most), value - (from.figures.get(key) ?? 0)]);
    }
    return rows.sort((a, b) => a[0] - b[0]);
  }
}

/** Puts times as the node tells them among the figures of a reading. */
export function putTimes(figures, name, rows) {
  for (const row of rows ?? []) figures.set(`${name}|${row["micros-min"]}|${row["micros-max"] ?? ""}`, row.count);
}
