// What the stages of a pipeline say, as it comes: lines of their logs, and why calls of them ended.
//
// - The node picks lines by stage and level, so that a stage that says much does not push out what
//   is looked for. The newest are kept here, so many of them.
// - Lines that the node had no room for any more before they could be read are counted and told.
// - A line is anybody's text, and is shown as text.

import { h } from "./dom.js";
import { several } from "./figures.js";
import { Follow, PAUSE_MS, timeOf, WAIT } from "./follow.js";
import { button, failure, panel } from "./parts.js";

/** Lines that are shown. All that the node keeps may be more, of short lines. */
const KEPT = 500;

/** From the least grave on; each has the graver ones with it. */
const LEVELS = [
  ["debug", "all levels"],
  ["info", "info and graver"],
  ["warn", "warn and graver"],
  ["error", "error"],
];

export class Log extends Follow {
  constructor(app, pipeline, detail, stage) {
    super(app);
    this.parts = ["pipelines", pipeline, "logs"];
    this.detail = detail;
    this.stages = ["", ...detail.stage.map((one) => one.name)];
    this.stage = this.stages.includes(stage) ? stage : "";
    this.level = "debug";
    this.name = pipeline;
    this.#anew("oldest");
  }

  #anew(cursor) {
    this.cursor = cursor;
    this.lines = [];
    this.missed = 0;
    this.isRead = false;
    this.many = 0;
  }

  /** Other lines are wanted, from a place on. What was paused is so no more. */
  from(cursor, wanted = {}) {
    this.stop();
    Object.assign(this, wanted);
    this.#anew(cursor);
    this.paused = false;
    this.start();
    this.app.draw();
  }

  nextLevel() {
    const at = LEVELS.findIndex(([level]) => level === this.level);
    this.from("oldest", { level: LEVELS[(at + 1) % LEVELS.length][0] });
  }

  nextStage() {
    const at = this.stages.indexOf(this.stage);
    this.from("oldest", { stage: this.stages[(at + 1) % this.stages.length] });
  }

  async read(signal) {
    const query = { cursor: this.cursor, level: this.level, wait: WAIT, ...(this.stage && { stage: this.stage }) };
    const { records, cursor, missed } = await this.app.api.page(this.parts, query, signal);
    this.cursor = cursor;
    this.missed += missed;
    this.isRead = true;
    // They have no number of their own.
    const numbered = records.map((record) => ({ ...record, at: (this.many += 1) }));
    this.lines = [...this.lines, ...numbered].slice(-KEPT);
    return PAUSE_MS;
  }

  render() {
    const { lines, stage, level } = this;
    const select = (label, value, options, pick) =>
      h(
        "label",
        null,
        `${label} `,
        h(
          "select",
          { value, on: { change: (event) => pick(event.target.value) } },
          options.map(([one, text]) => h("option", { value: one }, text)),
        ),
      );
    return panel(
      "What stages say",
      h(
        "div",
        { class: "row bar" },
        button(this.paused ? "Go on" : "Pause", () => this.toggle(), { "aria-pressed": this.paused ? "true" : "false" }),
        button("From now on", () => this.from("latest")),
        select("Stage", stage, this.stages.map((one) => [one, one || "all stages"]), (one) => this.from("oldest", { stage: one })),
        select("Level", level, LEVELS, (one) => this.from("oldest", { level: one })),
        h("span", { class: "hint", role: "status" }, this.#status()),
      ),
      failure(this.failed),
      this.#elsewhere(),
      lines.length === 0
        ? this.isRead && h("p", { class: "hint" }, this.#nothing())
        : h("ol", { class: "log", "aria-label": `Lines of ${this.name}` }, [...lines].reverse().map(row)),
    );
  }

  #status() {
    const { lines, missed } = this;
    const shown = lines.length > 0 && `${several(lines.length, "line")} shown, newest first`;
    const gone = missed > 0 && `${several(missed, "line was", "lines were")} gone before they could be read`;
    return [this.paused ? "paused" : "following", shown, gone].filter(Boolean).join(" · ");
  }

  /** Each node has the lines of its own partitions. */
  #elsewhere() {
    const others = [...new Set(this.detail.partition.map((one) => one.node).filter(Boolean))];
    return others.length > 0 && h("p", { class: "hint" }, `What partitions on ${others.join(", ")} say is in the log of that node, and not here.`);
  }

  #nothing() {
    const is = this.stage || this.level !== "debug" ? "No such line" : "No line";
    return `${is} is kept. What a stage writes to its log, its output or its errors is shown here as it comes.`;
  }
}

const row = ({ at, time, stage, partition, level, text }) =>
  h(
    "li",
    { key: at, class: level },
    h("span", { class: "log-time" }, timeOf(time)),
    h("span", { class: "log-level" }, level),
    h("span", { class: "log-from" }, stage, h("span", { class: "faint" }, ` ${partition}`)),
    h("span", { class: "log-text" }, text),
  );
