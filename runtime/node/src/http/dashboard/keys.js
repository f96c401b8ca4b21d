// Keys that work anywhere, and the list of them that `?` shows.

import { h } from "./dom.js";

/** Of every view. */
export const EVERYWHERE = [
  ["g p", "pipelines"],
  ["g d", "deploy"],
  ["g t", "tenant: quotas and usage"],
  ["g n", "node and GPU"],
  ["t", "light, dark, or as the system has it"],
  ["?", "these keys"],
  ["Esc", "close what is open"],
];

/** Of one. */
export const IN_GRAPH = [
  ["← → ↑ ↓", "along the edges of the graph"],
  ["Enter", "details of the stage, or the output"],
  ["1 – 6", "graph, partitions, outputs, dead letters, logs, versions"],
];

export const IN_EVENTS = [["p", "pause, or go on"]];

export const IN_LOGS = [
  ...IN_EVENTS,
  ["l", "lines of the next level and graver ones"],
  ["s", "lines of the next stage"],
];

/** How long the second key of two may take. */
const PAIR_MS = 1_500;

/** Calls what belongs to a key: `actions` by key, or by two behind each other. */
export function listen(actions) {
  let first = null;
  let until = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.key !== "Escape" && isWriting(event.target)) return;
    const now = performance.now();
    const pair = first !== null && now < until ? `${first} ${event.key}` : null;
    first = null;
    const action = (pair && actions()[pair]) || actions()[event.key];
    if (action) {
      event.preventDefault();
      action();
      return;
    }
    if (Object.keys(actions()).some((keys) => keys.startsWith(`${event.key} `))) {
      first = event.key;
      until = now + PAIR_MS;
    }
  });
}

/** Where letters are letters. */
const isWriting = (element) =>
  element.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(element.tagName);

/** The list. */
export function list(...groups) {
  const row = ([keys, about]) => [
    h("dt", null, keys.split(" ").map((key) => (key === "–" ? " – " : h("kbd", null, key)))),
    h("dd", null, about),
  ];
  return h("dl", { class: "keys" }, groups.flat().map(row));
}
