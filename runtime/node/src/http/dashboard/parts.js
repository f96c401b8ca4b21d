// Parts that several views are made of: tiles, tables, states, failures.

import { h } from "./dom.js";

/** A figure with its name, and below it what else there is to say. */
export const tile = (name, value, more, chart) =>
  h(
    "div",
    { class: "tile", key: `tile-${name}` },
    h("dt", null, name),
    h("dd", null, h("span", { class: "tile-value" }, value), more && h("span", { class: "tile-more" }, more), chart),
  );

export const tiles = (...all) => h("dl", { class: "tiles" }, all);

/** A state, in a word and a colour. */
export function badge(state) {
  const level = { running: "ok", up: "ok", here: "ok", ready: "ok", halted: "bad", unreachable: "bad", draining: "warn" }[state];
  return h("span", { class: `badge ${level ?? ""}` }, state);
}

/**
 * A table. `columns` are `{ name, is: "number" | "name" | undefined }`; `rows` `{ key, cells }`.
 * Where it does not fit it is scrolled, by keys too.
 */
export function table(caption, columns, rows, empty) {
  if (rows.length === 0) return h("p", { class: "hint" }, empty ?? "None.");
  const kind = (column) => column.is ?? "text";
  return h(
    "div",
    { class: "table-scroll", tabindex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      null,
      h("caption", { class: "unseen" }, caption),
      h("thead", null, h("tr", null, columns.map((column) => h("th", { scope: "col", class: kind(column) }, column.name)))),
      h(
        "tbody",
        null,
        rows.map(({ key, cells }) =>
          h(
            "tr",
            { key },
            cells.map((cell, at) =>
              kind(columns[at]) === "name"
                ? h("th", { scope: "row", class: "name" }, cell)
                : h("td", { class: kind(columns[at]) }, cell),
            ),
          ),
        ),
      ),
    ),
  );
}

/** What the node said of a request that failed. */
export function failure(error, also) {
  if (!error) return null;
  const { problem = {}, code, status } = error;
  return h(
    "div",
    { class: "failure", role: "alert" },
    h("p", null, h("strong", null, error.message)),
    (code || status > 0) && h("p", { class: "failure-code" }, [status > 0 ? `${status}` : null, code].filter(Boolean).join(" · ")),
    Array.isArray(problem.problems) &&
      problem.problems.length > 0 &&
      table(
        "Mistakes in the manifest",
        [{ name: "Field", is: "name" }, { name: "What is wrong" }, { name: "What to do" }],
        problem.problems.map((row, at) => ({
          key: at,
          cells: [h("code", null, row.field || "(all)"), h("span", null, row.message, " ", h("code", { class: "faint" }, row.code)), row.fix],
        })),
      ),
    problem.omitted > 0 && h("p", null, `${problem.omitted} more are not shown.`),
    also,
  );
}

export const panel = (title, ...children) =>
  h("section", { class: "panel", key: `panel-${title}` }, h("h2", null, title), children);

export const pairs = (...rows) =>
  h(
    "dl",
    { class: "pairs" },
    rows.filter(Boolean).map(([name, value]) => [h("dt", null, name), h("dd", null, value)]),
  );

export const button = (text, act, more = {}) => h("button", { type: "button", on: { click: act }, ...more }, text);

/** What stands where there is nothing yet. */
export const empty = (title, ...more) => h("div", { class: "empty" }, h("p", { class: "empty-title" }, title), more);

export const loading = () => h("p", { class: "hint", role: "status" }, "Reading …");
