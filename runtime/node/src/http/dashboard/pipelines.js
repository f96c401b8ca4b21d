// All pipelines of the tenant: how each of them is, and what goes through it.

import { h } from "./dom.js";
import { bytes, count, rate, seconds, several } from "./figures.js";
import { badge, empty, loading, table } from "./parts.js";
import { Readings } from "./readings.js";
import { spark } from "./spark.js";

/** How often the list of other nodes' pipelines is asked for; figures come more often. */
const LIST_MS = 10_000;

export function pipelines(app) {
  const readings = new Readings();
  let usage = null;
  let listed = [];
  let unreachable = null;
  let listedAt = -Infinity;

  async function poll(signal) {
    usage = await app.api.json(app.api.path("usage"), { signal });
    app.scopes = new Set(usage.scopes);
    readings.add(figuresOf(usage));
    if (performance.now() - listedAt < LIST_MS) return;
    const response = await app.api.ask(app.api.path("pipelines"), { signal });
    listed = await response.json();
    unreachable = response.headers.get("sluicebox-unreachable");
    listedAt = performance.now();
  }

  function row(name) {
    const here = usage.pipelines.find((pipeline) => pipeline.name === name);
    const info = here ?? listed.find((pipeline) => pipeline.name === name);
    const link = h("a", { href: `#/p/${encodeURIComponent(name)}`, class: "long" }, name);
    const points = readings.series(`${name}/in`);
    const there = info.node ? `on ${info.node}` : "elsewhere";
    const lag = here?.["lag-ms"];
    return {
      key: name,
      cells: [
        link,
        badge(info.state),
        here ? rate(readings.rate(`${name}/in`)) : h("span", { class: "faint" }, there),
        here ? spark(points, `Events in of late, now ${rate(readings.rate(`${name}/in`))}`) : "",
        here ? rate(readings.rate(`${name}/out`)) : "",
        here ? waiting(here) : "",
        lag === undefined ? "" : seconds(lag / 1000),
        here ? bytes(here["state-bytes"]) : "",
        here ? h("span", { class: here["dead-letters"] > 0 ? "warn-text" : "" }, count(here["dead-letters"])) : "",
        h("span", { class: "nowrap" }, `v${info.version} · ${info.delivery}`),
      ],
    };
  }

  function render() {
    if (!usage) return loading();
    const here = usage.pipelines.map((pipeline) => pipeline.name);
    const names = [...new Set([...here, ...listed.map((pipeline) => pipeline.name)])].sort();
    const halted = usage.pipelines.filter((pipeline) => pipeline.state === "halted");
    if (names.length === 0) {
      return [
        heading(app, names),
        empty(
          "No pipelines yet",
          h("p", null, "Upload the components of its stages, then apply a manifest that joins them."),
          h("p", null, h("a", { class: "button", href: "#/deploy" }, "Deploy a pipeline")),
        ),
      ];
    }
    return [
      heading(app, names),
      unreachable && h("p", { class: "notice", role: "status" }, `Not reachable, so their pipelines are missing: ${unreachable}.`),
      halted.length > 0 &&
        h("p", { class: "notice bad", role: "status" }, `${several(halted.length, "pipeline has", "pipelines have")} halted: open one to see why.`),
      table(
        "Pipelines",
        [
          { name: "Pipeline", is: "name" },
          { name: "State" },
          { name: "In", is: "number" },
          { name: "Of late" },
          { name: "Out", is: "number" },
          { name: "Waiting", is: "number" },
          { name: "Time lag", is: "number" },
          { name: "State size", is: "number" },
          { name: "Dead letters", is: "number" },
          { name: "Version" },
        ],
        names.map(row),
      ),
    ];
  }

  return { title: "Pipelines", interval: 2_000, poll, render, tellsScopes: true };
}

const heading = (app, names) =>
  h("div", { class: "heading" }, h("h1", null, "Pipelines"), h("p", { class: "hint" }, `${several(names.length, "pipeline")} of ${app.api.tenant}`));

const waiting = (pipeline) => {
  const many = pipeline["inbox-events"];
  return many > 0 ? count(many) : "none";
};

function figuresOf(usage) {
  const figures = new Map();
  for (const pipeline of usage.pipelines) {
    figures.set(`${pipeline.name}/in`, pipeline["ingest-events"]);
    figures.set(`${pipeline.name}/out`, pipeline["output-events"]);
  }
  return figures;
}
