// The tenant: what it may use, what it uses, and what it is billed by.

import { h } from "./dom.js";
import { bytes, count, micros, percent, rate, whole } from "./figures.js";
import { loading, panel, table } from "./parts.js";
import { Readings } from "./readings.js";
import { meter } from "./spark.js";

/** What quotas are of, for people. */
const RESOURCES = {
  "events-per-second": "Events in",
  "bytes-per-second": "Bytes in",
  "memory-bytes": "Memory of instances",
  "state-bytes": "State in memory",
  "disk-bytes": "Kept on disk",
  "component-bytes": "Components and assets",
  pipelines: "Pipelines",
  streams: "Open streams",
  connections: "Connections",
};

export function account(app) {
  const readings = new Readings();
  let usage = null;
  let gpu = null;
  let components = null;

  async function poll(signal) {
    const { api } = app;
    const asked = [api.json(api.path("usage"), { signal }), api.json(api.path("gpu"), { signal })];
    // What is uploaded changes seldom.
    if (!components) asked.push(api.json(api.path("components"), { signal }));
    const answers = await Promise.all(asked);
    [usage, gpu, components] = [answers[0], answers[1], answers[2] ?? components];
    app.scopes = new Set(usage.scopes);
    const figures = new Map();
    const sum = (of) => usage.pipelines.reduce((all, one) => all + one[of], 0);
    figures.set("events-per-second", sum("ingest-events"));
    figures.set("bytes-per-second", sum("ingest-bytes"));
    figures.set("fuel", sum("fuel"));
    readings.add(figures);
  }

  function quota({ resource, limit, used }) {
    const unit = resource.includes("bytes") ? bytes : count;
    const isRate = resource.endsWith("-per-second");
    let now = used ?? null;
    if (isRate) now = readings.rate(resource);
    else if (resource === "component-bytes") now = components.reduce((all, one) => all + one.bytes, 0);
    const [shown, most] = isRate ? [rate(now, unit), rate(limit, unit)] : [unit(now), unit(limit)];
    const name = RESOURCES[resource] ?? resource;
    return {
      key: resource,
      cells: [
        name,
        shown,
        h("div", { class: "with-meter" }, meter(now ?? 0, limit, `${shown} of ${most}`)),
        percent(now === null ? null : now / limit),
        most,
      ],
    };
  }

  function bill() {
    const rows = usage.pipelines.map((one) => ({
      key: one.name,
      cells: [
        h("a", { href: `#/p/${encodeURIComponent(one.name)}`, class: "long" }, one.name),
        whole(one.events),
        count(one.fuel),
        whole(one.reruns),
        whole(one["ingest-events"]),
        bytes(one["ingest-bytes"]),
        one["disk-bytes"] === undefined ? "–" : bytes(one["disk-bytes"]),
        one.since === "applied" ? "first applied" : "start of the node",
      ],
    }));
    const sum = (of) => usage.pipelines.reduce((all, one) => all + (one[of] ?? 0), 0);
    if (rows.length > 1) {
      rows.push({
        key: "",
        cells: [h("strong", null, "All"), whole(sum("events")), count(sum("fuel")), whole(sum("reruns")), whole(sum("ingest-events")), bytes(sum("ingest-bytes")), bytes(sum("disk-bytes")), ""],
      });
    }
    return table(
      "What pipelines have used",
      [
        { name: "Pipeline", is: "name" },
        { name: "Events handled", is: "number" },
        { name: "Fuel", is: "number" },
        { name: "Taken back", is: "number" },
        { name: "Events in*", is: "number" },
        { name: "Bytes in*", is: "number" },
        { name: "On disk", is: "number" },
        { name: "Counted since" },
      ],
      rows,
      "No pipelines, so nothing was used.",
    );
  }

  const gpuBill = () =>
    gpu.stages.length > 0 &&
    table(
      "What stages have used of the GPU",
      [{ name: "Stage", is: "name" }, { name: "Device time", is: "number" }, { name: "To the device", is: "number" }, { name: "From it", is: "number" }],
      [
        ...gpu.stages.map((one) => [`${one.pipeline} / ${one.stage}`, one]),
        ["All", gpu.used],
      ].map(([name, one]) => ({
        key: name,
        cells: [name, micros(one["device-micros"]), bytes(one["up-bytes"]), bytes(one["down-bytes"])],
      })),
    );

  function render() {
    if (!usage) return loading();
    return [
      h(
        "div",
        { class: "heading" },
        h("h1", { class: "long" }, `Tenant ${usage.tenant}`),
        h("p", { class: "hint" }, `weight ${usage.weight} · this token may ${usage.scopes.join(", ")}`),
      ),
      panel(
        "Quotas",
        table(
          "Quotas",
          [{ name: "Of", is: "name" }, { name: "Now", is: "number" }, { name: "" }, { name: "Used", is: "number" }, { name: "Limit", is: "number" }],
          usage.quota.map(quota),
        ),
      ),
      panel(
        "Usage",
        h(
          "p",
          { class: "hint" },
          "What a bill is made from: fuel measures the work of stages, the same for the same events. Calls that were taken back and made again are counted and billed. * since the node started.",
        ),
        bill(),
        gpuBill(),
        gpu.used["memory-byte-seconds"] > 0 && h("p", { class: "hint" }, `GPU memory held, times how long: ${bytes(gpu.used["memory-byte-seconds"])} · s.`),
      ),
    ];
  }

  return { title: "Tenant", interval: 2_000, poll, render, tellsScopes: true };
}
