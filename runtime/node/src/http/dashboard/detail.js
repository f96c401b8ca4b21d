// One pipeline: its graph with what goes along it, its partitions, what leaves it, what its stages say, its versions.

import { deadLetters, Tail } from "./events.js";
import { h } from "./dom.js";
import { bytes, count, micros, moment, quantile, rate, seconds, several, whole } from "./figures.js";
import { graph, lagOf } from "./graph.js";
import { IN_EVENTS, IN_GRAPH, IN_LOGS } from "./keys.js";
import { Log } from "./logs.js";
import { badge, button, failure, loading, pairs, panel, table, tile, tiles } from "./parts.js";
import { putTimes, Readings } from "./readings.js";
import { spark, times } from "./spark.js";

const TABS = [
  ["graph", "Graph"],
  ["partitions", "Partitions"],
  ["outputs", "Outputs"],
  ["dead-letters", "Dead letters"],
  ["logs", "Logs"],
  ["versions", "Versions"],
];

/** Below this width the graph goes down and not to the right. */
const NARROW = matchMedia("(max-width: 720px)");

/** Below this what is beside the graph is under it. Above, it takes so much, and margins this. */
const MIDDLING = matchMedia("(max-width: 960px)");
const SIDE_WIDTH = 356;
const MARGINS = 58;

export function pipeline(app, [name, tab = "graph", part]) {
  const readings = new Readings();
  let detail = null;
  let chosen = null;
  let roving = "ingest";
  let done = null;
  let failed = null;
  let tail = null;
  let closed = false;
  const at = (...parts) => `#/p/${[name, ...parts].map(encodeURIComponent).join("/")}`;

  const isTail = ["outputs", "dead-letters", "logs"].includes(tab);

  async function poll(signal) {
    detail = await app.api.json(app.api.path("pipelines", name), { signal });
    readings.add(figuresOf(detail));
    if (isTail && !tail && !closed) begin();
  }

  function begin() {
    const outputs = detail.output.filter((one) => one.name !== "dead-letters");
    const chosenOutput = outputs.find((one) => one.name === part) ?? outputs[0];
    if (tab === "logs") tail = new Log(app, name, detail, part);
    else if (tab === "dead-letters") tail = deadLetters(app, name, detail);
    else if (chosenOutput) tail = new Tail(app, ["pipelines", name, "outputs", chosenOutput.name], chosenOutput);
    tail?.start();
  }

  const choose = (box) => {
    if (box.kind === "output") return app.go(at("outputs", box.name));
    chosen = chosen === box.id ? null : box.id;
    app.draw();
  };

  /** Asks, does it, and says what came of it. */
  const change = (asked, act) =>
    app.confirm(asked, async () => {
      done = null;
      failed = null;
      try {
        done = await act();
      } catch (error) {
        failed = error;
      }
      app.draw();
    });

  const resume = () =>
    change({ title: `Resume ${name}?`, text: "Partitions that have halted try the event again that they halted at.", yes: "Resume" }, async () => {
      await app.api.ask(app.api.path("pipelines", name, "resume"), { method: "POST" });
      return "It goes on.";
    });

  const rollBack = (to) =>
    change({ title: `Roll ${name} back to version ${to}?`, text: `What version ${to} was becomes a new version. State is kept.`, yes: "Roll back" }, async () => {
      const query = { to };
      const applied = await app.api.json(app.api.path("pipelines", name, "rollback"), { method: "POST", query });
      return `Version ${applied.version} runs. ${applied.changes.join("; ")}`;
    });

  const remove = () =>
    change({ title: `Delete ${name}?`, text: "Its state, outputs and dead letters are gone with it.", yes: "Delete", retype: name }, async () => {
      await app.api.ask(app.api.path("pipelines", name), { method: "DELETE" });
      app.go("#/");
      return null;
    });

  function header() {
    const { state, version, delivery, node } = detail;
    const may = app.scopes.has("write");
    const halted = detail.partition.filter((one) => one.halted);
    return [
      h(
        "div",
        { class: "heading" },
        h("p", { class: "crumb" }, h("a", { href: "#/" }, "Pipelines"), " /"),
        h("h1", { class: "long" }, name),
        badge(state),
        h("p", { class: "hint" }, [`version ${version}`, delivery, node && `on ${node}`].filter(Boolean).join(" · ")),
      ),
      halted.length > 0 &&
        h(
          "div",
          { class: "notice bad", role: "status" },
          h("p", null, `${several(halted.length, "partition has", "partitions have")} halted. `, h("span", { class: "long" }, halted[0].halted)),
          may && button("Resume", resume),
        ),
      done && h("p", { class: "notice ok", role: "status" }, done),
      failure(failed),
    ];
  }

  const tabs = () =>
    h(
      "nav",
      { class: "tabs", "aria-label": "Parts of the pipeline" },
      TABS.map(([id, text]) =>
        h("a", { href: id === "graph" ? at() : at(id), "aria-current": id === tab ? "page" : undefined }, text),
      ),
    );

  function render() {
    if (!detail) return loading();
    const body = { graph: graphTab, partitions, outputs, "dead-letters": followed, logs: followed, versions }[tab] ?? graphTab;
    return [header(), tabs(), body()];
  }

  const followed = () => tail?.render();

  function graphTab() {
    const down = NARROW.matches;
    const beside = chosen && !MIDDLING.matches ? SIDE_WIDTH : 0;
    const room = document.getElementById("main").clientWidth - MARGINS - beside;
    const rove = (id) => {
      if (roving === id) return;
      roving = id;
      app.draw();
    };
    return [
      overview(detail, readings),
      h(
        "div",
        { class: chosen ? "split open" : "split" },
        h("section", { class: "panel graph-panel", "aria-label": "Graph" }, graph({ detail, readings, chosen, choose, roving, rove, down, room })),
        chosen && side(),
      ),
    ];
  }

  function side() {
    const close = () => {
      chosen = null;
      app.draw();
      document.querySelector(`[data-box="${CSS.escape(roving)}"]`)?.focus();
    };
    const stage = detail.stage.find((one) => `stage/${one.name}` === chosen);
    return h(
      "section",
      { class: "panel side", "aria-label": stage ? `Stage ${stage.name}` : "Ingest", "aria-live": "off" },
      h("div", { class: "side-head" }, h("h2", { class: "long" }, stage?.name ?? "ingest"), button("×", close, { class: "plain", "aria-label": "Close" })),
      stage ? stagePanel(stage, detail, readings) : ingestPanel(detail, readings),
      stage && h("p", { class: "row end" }, h("a", { class: "button", href: at("logs", stage.name) }, "What it says")),
    );
  }

  function partitions() {
    return panel(
      "Partitions",
      table(
        "Partitions",
        [
          { name: "Segment", is: "name" },
          { name: "Partition", is: "number" },
          { name: "Where" },
          { name: "Waiting", is: "number" },
          { name: "State size", is: "number" },
          { name: "Open streams", is: "number" },
          { name: "Watermark, UTC" },
          { name: "Says" },
        ],
        detail.partition.map((one) => ({
          key: `${one.segment}/${one.partition}`,
          cells: [
            one.segment,
            one.partition,
            one.node ? `${one.node}${one.way ? `, by ${one.way}` : ", no link"}` : `worker ${one.worker}`,
            `${count(one["inbox-events"])} · ${bytes(one["inbox-bytes"])}`,
            bytes(one["state-bytes"]),
            count(one["open-streams"]),
            moment(one.watermark),
            one.halted ?? one.unavailable ?? "",
          ],
        })),
      ),
    );
  }

  function outputs() {
    const all = detail.output.filter((one) => one.name !== "dead-letters");
    if (all.length === 0) return h("p", { class: "hint" }, "This pipeline has no outputs.");
    const shown = tail?.name;
    return [
      h(
        "nav",
        { class: "chips", "aria-label": "Outputs" },
        all.map((one) =>
          h(
            "a",
            { href: at("outputs", one.name), "aria-current": one.name === shown ? "page" : undefined },
            h("span", { class: "long" }, one.name),
            h("span", { class: "faint" }, ` ${rate(readings.rate(`output/${one.name}`))}`),
          ),
        ),
      ),
      tail?.render(),
    ];
  }

  function versions() {
    const may = app.scopes.has("write");
    return [
      panel(
        "Versions",
        table(
          "Versions that are kept",
          [{ name: "Version", is: "name" }, { name: "State" }],
          [...detail.versions].reverse().map((version) => ({
            key: version,
            cells: [
              `v${version}`,
              version === detail.version ? badge("running") : may ? button("Roll back to it", () => rollBack(version)) : "",
            ],
          })),
        ),
      ),
      panel("Manifest, with every default", h("pre", { class: "code", tabindex: 0 }, JSON.stringify(detail.manifest, null, 2))),
      may &&
        panel(
          "Changes",
          h("p", { class: "row" }, h("a", { class: "button", href: "#/deploy" }, "Apply another version"), button("Delete this pipeline", remove, { class: "danger" })),
        ),
    ];
  }

  const keys = Object.fromEntries(TABS.map(([id], index) => [String(index + 1), () => app.go(id === "graph" ? at() : at(id))]));
  keys.p = () => tail?.toggle();
  if (tab === "logs") {
    keys.l = () => tail?.nextLevel();
    keys.s = () => tail?.nextStage();
  }
  keys.Escape = () => {
    chosen = null;
    app.draw();
  };
  return {
    title: name,
    interval: isTail ? 5_000 : 1_000,
    poll,
    render,
    keys,
    help: [...IN_GRAPH, ...(tab === "logs" ? IN_LOGS : isTail ? IN_EVENTS : [])],
    close: () => {
      closed = true;
      tail?.stop();
    },
  };
}

/** Tiles above the graph. */
function overview(detail, readings) {
  const { ingest } = detail;
  const [p50, p99] = [0.5, 0.99].map((part) => quantile(readings.times("ingest/acknowledged"), part));
  const result = quantile(readings.times("ingest/result"), 0.99);
  const out = detail.output.filter((one) => one.name !== "dead-letters");
  const outRate = out.map((one) => readings.rate(`output/${one.name}`)).reduce((sum, one) => (one === null ? sum : sum + one), 0);
  const state = detail.partition.reduce((sum, one) => sum + one["state-bytes"], 0);
  const waiting = detail.partition.reduce((sum, one) => sum + (one["inbox-events"] ?? 0), 0);
  const dead = detail.output.find((one) => one.name === "dead-letters");
  const refused = ingest.rejected > 0 ? `${count(ingest.rejected)} refused` : null;
  const repeated = ingest.duplicates > 0 ? `${count(ingest.duplicates)} known already` : null;
  const into = readings.rate("ingest/events");
  return tiles(
    tile("In", rate(into), [`${count(ingest.events)} in all`, refused, repeated].filter(Boolean).join(" · "), spark(readings.series("ingest/events"), `Events in of late, now ${rate(into)}`)),
    tile("Out", rate(outRate), `${count(out.reduce((sum, one) => sum + one.events, 0))} in all`, spark(readings.series("output"), `Events out of late, now ${rate(outRate)}`)),
    tile("Acknowledged in", micros(p50), p99 === null ? "none in the last minute" : `p99 ${micros(p99)}${result === null ? "" : ` · results p99 ${micros(result)}`}`),
    tile("Waiting", waiting > 0 ? count(waiting) : "none", detail.time ? `time lag ${seconds(detail.time["lag-ms"] === undefined ? null : detail.time["lag-ms"] / 1000)}` : "events before a stage", spark(readings.levels("=waiting"), `Events that wait of late, now ${count(waiting)}`)),
    tile("State", bytes(state), detail.disk ? `${bytes(detail.disk.bytes)} on disk` : "in memory", spark(readings.levels("=state"), `State of late, now ${bytes(state)}`)),
    tile("Dead letters", count(dead?.events ?? 0), dead?.bytes > 0 ? `${bytes(dead.bytes)} kept` : "none kept"),
  );
}

function stagePanel(stage, detail, readings) {
  const at = `stage/${stage.name}`;
  const of = (what) => readings.rate(`${at}/${what}`);
  const segment = detail.segments.find((names) => names.includes(stage.name)) ?? [stage.name];
  const state = detail.partition.filter((one) => one.segment === segment[0]).reduce((sum, one) => sum + one["state-bytes"], 0);
  const rows = readings.times(`${at}/call`);
  const [p50, p99] = [0.5, 0.99].map((part) => quantile(rows, part));
  const [calls, into] = [of("calls"), of("in")];
  const lag = lagOf(segment[0], detail, readings);
  const [component, digest] = stage.component.split("@sha256:");
  return [
    spark(readings.series(`${at}/in`), `Events in of late, now ${rate(into)}`, { width: 300, height: 44 }),
    pairs(
      ["In", rate(into)],
      ["Out", rate(of("out"))],
      ["Calls", `${rate(calls)}${calls > 0 ? ` of ${count(Math.max(1, Math.round(into / calls)))} events` : ""}`],
      ["Call, p50 · p99", `${micros(p50)} · ${micros(p99)}`],
      ["Fuel", `${rate(of("fuel"))}${into > 0 ? `, ${count(Math.round(of("fuel") / into))} an event` : ""}`],
      ["Instances", whole(stage.instances)],
      segment[0] === stage.name && ["Waiting before it", lag.waiting > 0 ? count(lag.waiting) : "none"],
    ),
    h("h3", null, "Time of a call, last minute"),
    times(rows, `Time of a call of ${stage.name}`),
    h("h3", null, "What went wrong"),
    pairs(
      ["Failures", wrong(stage.failures)],
      ["Traps", wrong(stage.traps)],
      ["Dead letters", wrong(stage["dead-letters"])],
      stage["parked-keys"] > 0 && ["Parked", `${several(stage["parked-keys"], "key")}, ${several(stage["parked-events"], "event")}`],
      stage["late-events"] > 0 && ["Late events", whole(stage["late-events"])],
    ),
    h("h3", null, "What it is"),
    pairs(
      ["Component", h("span", { class: "long", title: stage.component }, component, digest && h("code", { class: "faint" }, ` ${digest.slice(0, 12)}`))],
      ["Instance serves", stage.scope],
      ["Segment", h("span", { class: "long" }, segment.join(" → "))],
      ["State of the segment", bytes(state)],
      stage.timers > 0 && ["Timers", whole(stage.timers)],
    ),
  ];
}

function ingestPanel(detail, readings) {
  const { ingest } = detail;
  const rows = readings.times("ingest/acknowledged");
  const results = readings.times("ingest/result");
  return [
    pairs(
      ["Events", `${rate(readings.rate("ingest/events"))}, ${whole(ingest.events)} in all`],
      ["Bytes", `${rate(readings.rate("ingest/bytes"), bytes)}, ${bytes(ingest.bytes)} in all`],
      ["Refused", wrong(ingest.rejected)],
      ["Known already", whole(ingest.duplicates)],
      ["p50 · p90 · p99", [0.5, 0.9, 0.99].map((part) => micros(quantile(rows, part))).join(" · ")],
    ),
    h("h3", null, "Time to the acknowledgement, last minute"),
    times(rows, "Time until events were acknowledged"),
    results.length > 0 && [h("h3", null, "Time to a result that was waited for"), times(results, "Time until results")],
  ];
}

const wrong = (many) => h("span", { class: many > 0 ? "warn-text" : "" }, whole(many));

function figuresOf(detail) {
  const figures = new Map();
  for (const name of ["events", "bytes", "rejected", "duplicates"]) figures.set(`ingest/${name}`, detail.ingest[name]);
  putTimes(figures, "ingest/acknowledged", detail.ingest.acknowledged);
  putTimes(figures, "ingest/result", detail.ingest.result);
  for (const stage of detail.stage) {
    const at = `stage/${stage.name}`;
    figures.set(`${at}/in`, stage["events-in"]);
    figures.set(`${at}/out`, stage["events-out"]);
    figures.set(`${at}/calls`, stage.calls);
    figures.set(`${at}/fuel`, stage.fuel);
    figures.set(`${at}/wrong`, stage.failures + stage.traps + stage["dead-letters"]);
    putTimes(figures, `${at}/call`, stage.call);
  }
  for (const hop of detail.hop) {
    const at = `hop/${hop.from}/${hop.to}/${hop.way}`;
    figures.set(`${at}/events`, hop.events);
    putTimes(figures, `${at}/waited`, hop.waited);
  }
  let out = 0;
  for (const output of detail.output) {
    figures.set(`output/${output.name}`, output.events);
    if (output.name !== "dead-letters") out += output.events;
  }
  figures.set("output", out);
  figures.set("=state", detail.partition.reduce((sum, one) => sum + one["state-bytes"], 0));
  figures.set("=waiting", detail.partition.reduce((sum, one) => sum + (one["inbox-events"] ?? 0), 0));
  return figures;
}
