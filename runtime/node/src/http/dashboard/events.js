// What leaves a pipeline, as it comes: the tail of an output, or its dead letters.
//
// - The newest events are kept, so many of them; of an output that is faster than can be shown some
//   are left out, and that is said.
// - A request waits at the node until there is something, so an output at rest costs a request
//   every few seconds.
// - Payloads, keys and messages are anybody's, and are shown as text.

import { h } from "./dom.js";
import { cut, several, whole } from "./figures.js";
import { Follow, PAUSE_MS, timeOf, WAIT } from "./follow.js";
import { button, failure, pairs, panel } from "./parts.js";

/** Events that are shown, and asked for at a time. */
const KEPT = 200;
const PAGE = 500;

/** So many full pages behind each other are more than can be followed. */
const FULL_PAGES = 4;

/** An output that keeps at most this is shown from its beginning. */
const ALL_BYTES = 256 * 1024;

/** Characters of a payload that a row shows, and that its details do. */
const ROW_CHARS = 160;
const FULL_CHARS = 100_000;

export class Tail extends Follow {
  constructor(app, parts, output) {
    super(app);
    this.parts = parts;
    this.name = output.name;
    this.cursor = output.bytes <= ALL_BYTES ? "oldest" : "latest";
    this.records = [];
    this.skipped = false;
    this.full = 0;
    this.once = false;
    this.words = { none: "Nothing has left by this output yet. What comes is shown here.", what: "event" };
  }

  /** From another place on; what was shown is gone. The oldest are shown, and then it rests. */
  from(cursor) {
    this.stop();
    this.cursor = cursor;
    this.records = [];
    this.skipped = false;
    this.full = 0;
    this.once = cursor === "oldest";
    this.paused = false;
    this.start();
    this.app.draw();
  }

  async read(signal) {
    const query = { cursor: this.cursor, limit: this.once ? KEPT : PAGE, wait: WAIT };
    let page;
    try {
      page = await this.app.api.page(this.parts, query, signal);
    } catch (error) {
      if (error.status !== 410) throw error;
      // What stood there is no longer kept: the node says where to go on.
      this.cursor = error.problem.oldest ?? "latest";
      return PAUSE_MS;
    }
    const { records, cursor } = page;
    this.cursor = cursor;
    this.records = [...this.records, ...records].slice(-KEPT);
    if (this.once && records.length === KEPT) {
      this.toggle();
      return 0;
    }
    this.full = records.length === PAGE ? this.full + 1 : 0;
    if (this.full === FULL_PAGES) {
      // More comes than is read: on to what is new.
      [this.cursor, this.full, this.skipped] = ["latest", 0, true];
    }
    return this.full > 0 ? 0 : PAUSE_MS;
  }

  render() {
    const { name, records } = this;
    return panel(
      this.words.title ?? name,
      h(
        "div",
        { class: "row bar" },
        button(this.paused ? "Go on" : "Pause", () => this.toggle(), { "aria-pressed": this.paused ? "true" : "false" }),
        button("From the oldest", () => this.from("oldest")),
        button("From now on", () => this.from("latest")),
        h(
          "span",
          { class: "hint", role: "status" },
          [
            this.paused ? "paused" : "following",
            records.length > 0 && `${several(records.length, this.words.what)} shown, newest first`,
            this.skipped && "faster than it can be shown: some are left out",
          ]
            .filter(Boolean)
            .join(" · "),
        ),
      ),
      this.more?.(),
      failure(this.failed),
      records.length === 0
        ? h("p", { class: "hint" }, this.words.none)
        : h("ol", { class: "events", "aria-label": name }, [...records].reverse().map((record) => this.row(record))),
    );
  }

  row(record) {
    const data = payload(record);
    return h(
      "li",
      { key: `${record.partition}/${record.offset}` },
      h(
        "details",
        null,
        h(
          "summary",
          null,
          h("span", { class: "event-time" }, timeOf(record.time)),
          record.stage && h("span", { class: "event-class" }, `${record.stage}: ${record.class ?? ""}`),
          h("span", { class: "event-key" }, cut(record.key ?? "", 40)),
          h("span", { class: "event-data" }, cut(record.message ?? data, ROW_CHARS)),
        ),
        pairs(
          ["Key", h("code", { class: "long" }, record.key ?? "")],
          ["Id", h("code", { class: "long" }, record.id ?? "")],
          ["Time", record.time ?? ""],
          ["Partition · offset", `${record.partition} · ${record.offset}`],
          record.port && ["Port", record.port],
          record.stage && ["Stage", record.stage],
          record.class && ["Class", record.class],
          record.message && ["Message", h("span", { class: "long" }, record.message)],
          record.traceparent && ["Trace", h("code", { class: "long" }, record.traceparent)],
        ),
        h("pre", { class: "code", tabindex: 0 }, cut(full(record, data), FULL_CHARS)),
      ),
    );
  }
}

/** Dead letters are a tail with another row, and can be given to their stage again. */
export function deadLetters(app, name, detail) {
  const output = detail.output.find((one) => one.name === "dead-letters") ?? { name: "dead-letters", bytes: 0 };
  const tail = new Tail(app, ["pipelines", name, "dead-letters"], output);
  tail.words = { none: "No dead letters: every event was handled.", what: "dead letter", title: "Dead letters" };
  let said = null;
  let failed = null;
  let stage = "";
  const replay = () =>
    app.confirm(
      {
        title: stage ? `Replay the dead letters of ${stage}?` : "Replay all dead letters?",
        text: "Each is given to the stage it failed in once more. One that fails again becomes a dead letter again.",
        yes: "Replay",
      },
      async () => {
        [said, failed] = ["Replaying …", null];
        app.draw();
        try {
          said = await replayAll(app, name, stage);
        } catch (error) {
          [said, failed] = [null, error];
        }
        app.draw();
      },
    );
  tail.more = () => [
    app.scopes.has("write") &&
      tail.records.length > 0 &&
      h(
        "div",
        { class: "row bar" },
        h(
          "label",
          null,
          "of stage ",
          h(
            "select",
            { value: stage, on: { change: (event) => (stage = event.target.value) } },
            h("option", { value: "" }, "all"),
            detail.stage.map((one) => h("option", { value: one.name }, one.name)),
          ),
        ),
        button("Replay", replay),
      ),
    said && h("p", { class: "notice ok", role: "status" }, said),
    failure(failed),
  ];
  return tail;
}

/** Page after page, up to what there was at the beginning. */
async function replayAll(app, name, stage) {
  const sum = { replayed: 0, duplicates: 0, skipped: 0 };
  let query = stage ? { stage } : {};
  for (;;) {
    const page = await app.api.json(app.api.path("pipelines", name, "dead-letters", "replay"), { method: "POST", query });
    for (const part of Object.keys(sum)) sum[part] += page[part];
    if (page.done) break;
    query = { ...query, cursor: page.cursor, until: page.until };
  }
  const more = [sum.duplicates > 0 && `${whole(sum.duplicates)} had been before`, sum.skipped > 0 && `${whole(sum.skipped)} left out`];
  return [`${several(sum.replayed, "dead letter")} replayed`, ...more.filter(Boolean)].join(", ");
}

/** The payload as one line of text. */
function payload(record) {
  if (record.data !== undefined) return typeof record.data === "string" ? record.data : JSON.stringify(record.data);
  if (record.data_base64 === undefined) return "(empty)";
  const bytes = Uint8Array.from(atob(record.data_base64), (char) => char.charCodeAt(0));
  try {
    return TEXT.decode(bytes);
  } catch {
    return `${several(bytes.length, "byte")}: ${record.data_base64}`;
  }
}

/** Of payloads that are no JSON, those that are text. */
const TEXT = new TextDecoder("utf-8", { fatal: true });

const full = (record, data) =>
  record.data !== undefined && typeof record.data !== "string" ? JSON.stringify(record.data, null, 2) : data;
