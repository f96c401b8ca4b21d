// The node: how it is, its log and workers, the nodes it knows, and its GPU over time.
//
// What concerns all tenants takes a token of scope `admin`, or the node's own machine; others see
// the tenant's own share of the GPU and are told what is missing.

import { h } from "./dom.js";
import { bytes, count, micros, percent, quantile, rate, seconds, several } from "./figures.js";
import { badge, loading, pairs, panel, table, tile, tiles } from "./parts.js";
import { Readings } from "./readings.js";
import { meter, spark } from "./spark.js";

export function node(app) {
  const readings = new Readings();
  let ready = null;
  let gpu = null;
  let nodes = null;
  let figures = null;
  let refused = null;

  async function poll(signal) {
    const { api } = app;
    const readiness = api.text("/readyz", { signal }).then((text) => ({ ok: true, text: text.trim() })).catch((error) => {
      if (error.status !== 503) throw error;
      return { ok: false, text: error.message };
    });
    const of = (asked) =>
      asked.catch((error) => {
        if (error.status !== 403) throw error;
        refused = error;
        return null;
      });
    const more = refused ? [null, null] : [of(api.json("/v1/nodes", { signal })), of(api.text("/metrics", { signal }))];
    let text;
    [ready, gpu, nodes, text] = await Promise.all([readiness, api.json(api.path("gpu"), { signal }), ...more]);
    figures = text === null ? null : parse(text);
    const reading = new Map([["own/gpu", gpu.used["device-micros"]], ["=own/held", gpu.used["held-bytes"]]]);
    for (const one of gpu.stages) reading.set(`stage/${one.pipeline}/${one.stage}/gpu`, one["device-micros"]);
    for (const [name, value] of figures ?? []) {
      if (/_total[{ ]|_total$|_bucket\{|_sum|_count/.test(name)) reading.set(name, value);
    }
    readings.add(reading);
  }

  const sum = (family) => [...(figures ?? [])].filter(([name]) => name.split("{")[0] === family).reduce((all, [, value]) => all + value, 0);

  /** What a label is of all rows of a family. */
  const rows = (family) => [...(figures ?? [])].filter(([name]) => name.split("{")[0] === family);

  function workers() {
    const all = rows("sluicebox_worker_busy_seconds_total");
    return panel(
      "Workers",
      table(
        "Workers",
        [{ name: "Worker", is: "name" }, { name: "Runs guests", is: "number" }, { name: "Of late" }, { name: "Waiting", is: "number" }],
        all.map(([name]) => {
          const worker = label(name, "worker");
          const busy = readings.rate(name);
          return {
            key: worker,
            cells: [
              worker,
              percent(busy),
              spark(readings.series(name), `Worker ${worker} of late, now ${percent(busy)}`, { most: 1 }),
              bytes(figures.get(`sluicebox_worker_inbox_bytes{worker="${worker}"}`) ?? 0),
            ],
          };
        }),
      ),
    );
  }

  function log() {
    const state = (family) => label(rows(family).find(([, value]) => value === 1)?.[0] ?? "", "state") ?? "–";
    const p99 = quantile(histogram("sluicebox_log_sync_seconds"), 0.99);
    return panel(
      "Log",
      pairs(
        ["State", state("sluicebox_log_health")],
        ["Checkpoints", `${state("sluicebox_checkpoint_health")}, ${count(sum("sluicebox_checkpoints_total"))} made`],
        ["Written", rate(readings.rate("sluicebox_log_written_bytes_total"), bytes)],
        ["Syncs", `${rate(readings.rate("sluicebox_log_syncs_total"))}, p99 ${p99 === null ? "–" : seconds(p99)}`],
        ["Not on disk yet", bytes(sum("sluicebox_log_pending_bytes"))],
        ["Files", count(sum("sluicebox_log_segments"))],
      ),
    );
  }

  /** Times of a family in the last minute, from buckets that each count those before as well. */
  function histogram(family) {
    const prefix = `${family}_bucket{`;
    const all = [...(figures ?? [])]
      .filter(([name]) => name.startsWith(prefix))
      .map(([name]) => [label(name, "le") === "+Inf" ? Infinity : Number(label(name, "le")), (readings.rate(name, 60_000) ?? 0)])
      .sort((a, b) => a[0] - b[0]);
    return all.map(([to, many], at) => [all[at - 1]?.[0] ?? 0, to, Math.max(0, many - (all[at - 1]?.[1] ?? 0))]);
  }

  function members() {
    if (!nodes) return null;
    if (nodes.length === 1) {
      const [own] = nodes;
      return panel(
        "Cluster",
        h("p", { class: "hint" }, own.name ? `${own.name} knows no other nodes.` : "This node is alone."),
        pairs(["Address", own.address], ["Up for", seconds(own.seconds)], ["Pipelines", count(own.pipelines ?? 0)]),
      );
    }
    return panel(
      "Cluster",
      table(
        "Nodes",
        [{ name: "Node", is: "name" }, { name: "State" }, { name: "For", is: "number" }, { name: "Address" }, { name: "Pipelines", is: "number" }, { name: "Round trip", is: "number" }, { name: "Says" }],
        nodes.map((one) => ({
          key: one.name,
          cells: [one.name, badge(one.state), seconds(one.seconds), one.address, count(one.pipelines ?? null), micros(one["round-trip-micros"] ?? null), one.why ?? ""],
        })),
      ),
    );
  }

  function gpuPanel() {
    const { device, share, used, process } = gpu;
    if (!device && gpu.stages.length === 0) {
      return panel("GPU", h("p", { class: "hint" }, gpu.why ?? "No stage has used the GPU yet; it is looked for when one does."));
    }
    const own = readings.rate("own/gpu");
    const part = own === null ? null : own / 1e6;
    return panel(
      "GPU",
      h(
        "div",
        { class: "split-even" },
        pairs(
          ["State", badge(gpu.state)],
          gpu.why && ["Why", h("span", { class: "long" }, gpu.why)],
          device && ["Device", h("span", { class: "long" }, `${device.name} (${device.kind})`)],
          device && ["Driver", h("span", { class: "long" }, device.driver)],
          device && ["Memory of the device", bytes(device["memory-bytes"])],
          ["Process", `${several(process.starts, "start")}, ${several(process.failures, "failure")}`],
        ),
        pairs(
          ["Share when others work", percent(share.share / 1000)],
          ["Memory that is ours", bytes(share["memory-bytes"])],
          ["Memory in use", h("div", null, bytes(used["held-bytes"]), meter(used["held-bytes"], share["memory-bytes"], `${bytes(used["held-bytes"])} of ${bytes(share["memory-bytes"])}`))],
          ["Submissions that wait", count(used.queued)],
        ),
      ),
      h("h3", null, "Share of the device's time"),
      table(
        "Share of the device's time",
        [{ name: "Of", is: "name" }, { name: "Now", is: "number" }, { name: "Of late" }, { name: "In all", is: "number" }],
        [shareRow(`tenant ${app.api.tenant}`, "own/gpu", used["device-micros"], part), ...gpu.stages.map(stageRow), ...otherTenants()],
      ),
    );
  }

  function shareRow(name, key, all, part, scale = 1e6) {
    const points = readings.series(key).map(([ago, value]) => [ago, value / scale]);
    return {
      key: name,
      cells: [name, percent(part), spark(points, `${name} of late, now ${percent(part)}`, { most: 1, width: 240, height: 36 }), micros(all)],
    };
  }

  function stageRow(one) {
    const key = `stage/${one.pipeline}/${one.stage}/gpu`;
    const now = readings.rate(key);
    return shareRow(`${one.pipeline} / ${one.stage}`, key, one["device-micros"], now === null ? null : now / 1e6);
  }

  function otherTenants() {
    return rows("sluicebox_gpu_device_seconds_total")
      .filter(([name]) => label(name, "tenant") !== null && label(name, "tenant") !== app.api.tenant)
      .map(([name, value]) => shareRow(`tenant ${label(name, "tenant")}`, name, value * 1e6, readings.rate(name), 1));
  }

  function render() {
    if (!gpu) return loading();
    return [
      h("div", { class: "heading" }, h("h1", null, "Node"), h("span", { class: `badge ${ready.ok ? "ok" : "warn"}` }, ready.ok ? "ready" : "not ready"), !ready.ok && h("p", { class: "hint" }, ready.text)),
      refused &&
        h("p", { class: "notice", role: "status" }, "Workers, log, other nodes and other tenants are shown to tokens with the scope admin, and on the node's own machine."),
      figures &&
        tiles(
          tile("Guests run", percent(busyAll()), "of a core, all workers"),
          tile("Connections", count(sum("sluicebox_connections")), `${several(sum("sluicebox_followers"), "follower")} · ${several(sum("sluicebox_sessions"), "session")}`),
          tile("Requests", rate(repliesRate()), "answered"),
          tile("Bodies in memory", bytes(sum("sluicebox_body_bytes")), `${several(sum("sluicebox_waiting"), "client waits", "clients wait")} for results`),
        ),
      gpuPanel(),
      figures && h("div", { class: "columns" }, workers(), log()),
      members(),
    ];
  }

  const busyAll = () => {
    const all = rows("sluicebox_worker_busy_seconds_total").map(([name]) => readings.rate(name));
    return all.length === 0 || all.includes(null) ? null : all.reduce((a, b) => a + b, 0);
  };
  const repliesRate = () => {
    const all = rows("sluicebox_replies_total").map(([name]) => readings.rate(name));
    return all.length === 0 || all.includes(null) ? null : all.reduce((a, b) => a + b, 0);
  };

  return { title: "Node", interval: 2_000, poll, render };
}

/** Lines of OpenMetrics: a number by its name with labels. */
function parse(text) {
  const figures = new Map();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const end = line.lastIndexOf(" ");
    figures.set(line.slice(0, end).replace("{}", ""), Number(line.slice(end + 1)));
  }
  return figures;
}

/** The value of a label; names and words have no quotes in them. */
const label = (name, of) => new RegExp(`[{,]${of}="([^"]*)"`).exec(name)?.[1] ?? null;
