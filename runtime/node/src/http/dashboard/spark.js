// Small charts: a line over the last minutes, bars of how often what took how long, and a bar
// of how much of something is used. Each says in words what it shows.

import { h, s } from "./dom.js";
import { micros, whole } from "./figures.js";

/** What a line is over: as long as there are readings, within these bounds. */
const SECONDS_MIN = 30;
const SECONDS_MAX = 120;

/** A line over time. `points` are `[seconds ago, value]`, `about` says what of. */
export function spark(points, about, { width = 120, height = 28, most = 0 } = {}) {
  const shown = points.filter(([ago]) => ago <= SECONDS_MAX);
  const span = Math.max(SECONDS_MIN, ...shown.map(([ago]) => ago));
  const top = Math.max(most, ...shown.map(([, value]) => value));
  const x = (ago) => round(width - (ago / span) * width);
  const y = (value) => round(height - 1.5 - (top > 0 ? value / top : 0) * (height - 3));
  const path = shown.map(([ago, value], at) => `${at === 0 ? "M" : "L"}${x(ago)} ${y(value)}`).join("");
  const area = shown.length > 1 ? `${path}L${x(shown.at(-1)[0])} ${height}L${x(shown[0][0])} ${height}Z` : "";
  return s(
    "svg",
    { class: width > 200 ? "spark spark-wide" : "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": about },
    s("path", { class: "spark-floor", d: `M0 ${height - 0.5}H${width}` }),
    area && s("path", { class: "spark-area", d: area }),
    shown.length > 1 && s("path", { class: "spark-line", d: path }),
  );
}

/** How often something took how long. `rows` are `[more than, at most, how many]`. */
export function times(rows, about) {
  const all = rows.reduce((sum, [, , many]) => sum + many, 0);
  if (all === 0) return h("p", { class: "hint" }, "None in the last minute.");
  const top = Math.max(...rows.map(([, , many]) => many));
  const row = ([, to, many]) => [
    h("span", { class: "times-end" }, to === Infinity ? "more" : `≤ ${micros(to)}`),
    h(
      "span",
      { class: "times-bar" },
      s(
        "svg",
        { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
        s("rect", { width: many === 0 ? 0 : Math.max(0.8, (many / top) * 100), height: 8 }),
      ),
    ),
    h("span", { class: "times-many" }, whole(many)),
  ];
  return h("div", { class: "times", role: "group", "aria-label": about }, rows.map(row));
}

/** How much of something there may be is used. */
export function meter(used, limit, about) {
  const part = limit > 0 ? Math.min(1, used / limit) : used > 0 ? 1 : 0;
  const level = part >= 0.95 ? "bad" : part >= 0.8 ? "warn" : "ok";
  return s(
    "svg",
    { class: `meter ${level}`, viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": about },
    s("rect", { class: "meter-all", width: 100, height: 6 }),
    part > 0 && s("rect", { class: "meter-used", width: Math.max(0.6, round(part * 100)), height: 6 }),
  );
}

const round = (value) => Math.round(value * 10) / 10;
