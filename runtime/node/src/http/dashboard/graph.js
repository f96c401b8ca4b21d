// The graph of a pipeline: what it consists of, taken from the node's description, and its drawing.
//
// - Edges of the same two stages are one line, as they go the same way.
// - A line has the rate at which events pass it, how they get there (the class of the link) and
//   how long they wait. Within a segment a stage is called directly: its only input is that line,
//   so what it took is what passed. Between segments the node counts.
// - One box at a time can be reached with the tabulator; arrows go on from there along the lines.

import { h, s } from "./dom.js";
import { count, cut, micros, quantile, rate, seconds, several } from "./figures.js";
import { layout } from "./layout.js";

/** How an edge is passed, for people: shortly, and in full. */
const WAYS = {
  http: ["HTTP", "over HTTP"],
  call: ["in segment", "called directly, in the same segment"],
  worker: ["in worker", "to a partition of the same worker"],
  node: ["in node", "to another worker of the node"],
  ring: ["shared memory", "to another node of the machine, by shared memory"],
  network: ["network", "to another node, over the network"],
  output: ["output", "kept for readers"],
};

/** Ways that a line has room for. */
const WAYS_SHOWN = 2;

const BOX = { width: 172, height: 76 };
const END = { width: 132, height: 48 };
const LABEL_CHARS = 21;

/** Boxes and lines of a pipeline. */
export function model(detail) {
  const { manifest } = detail;
  const stages = detail.stage.map((stage) => ({ id: `stage/${stage.name}`, kind: "stage", name: stage.name, stage, ...BOX }));
  const segmentOf = new Map(detail.segments.flatMap((names) => names.map((name) => [name, names[0]])));
  const outputs = detail.output
    .filter((output) => output.name !== "dead-letters")
    .map((output) => ({ id: `output/${output.name}`, kind: "output", name: output.name, output, ...END }));
  const boxes = [{ id: "ingest", kind: "ingest", name: "ingest", ...END }, ...stages, ...outputs];
  const known = new Set(boxes.map((box) => box.id));
  const lines = new Map();
  const join = (from, to, port, more) => {
    if (!known.has(from) || !known.has(to)) return;
    const id = `${from}→${to}`;
    const line = lines.get(id) ?? { id, from, to, ports: [], ...more };
    if (port && !line.ports.includes(port)) line.ports.push(port);
    lines.set(id, line);
  };
  for (const to of manifest.ingest?.to ?? []) {
    const [name] = to.split(".");
    join("ingest", `stage/${name}`, null, { kind: "ingest", segment: segmentOf.get(name), into: name });
  }
  for (const edge of manifest.edges ?? []) {
    const [[from, port], [to]] = [edge.from.split("."), edge.to.split(".")];
    const [a, b] = [segmentOf.get(from), segmentOf.get(to)];
    // A stage that is not the root of its segment is called by the one before it.
    const kind = a === b && b !== to ? "call" : "hop";
    join(`stage/${from}`, `stage/${to}`, port, { kind, hop: [from, to], into: to });
  }
  for (const [name, output] of Object.entries(manifest.outputs ?? {})) {
    const [from, port] = (output.from ?? "").split(".");
    join(`stage/${from}`, `output/${name}`, port, { kind: "output", output: name });
  }
  return { boxes, lines: [...lines.values()], segmentOf };
}

/** What is said of a line: rate, ways, and the time events wait. */
export function figuresOf(line, detail, readings) {
  if (line.kind === "call") {
    return { rate: readings.rate(`stage/${line.into}/in`), ways: ["call"], lag: null };
  }
  if (line.kind === "output") {
    return { rate: readings.rate(`output/${line.output}`), ways: ["output"], lag: null };
  }
  if (line.kind === "ingest") {
    return { rate: readings.rate("ingest/events"), ways: ["http"], lag: lagOf(line.segment, detail, readings) };
  }
  const [from, to] = line.hop;
  const hops = detail.hop.filter((hop) => hop.from === from && hop.to === to);
  const used = hops.map((hop) => [hop.way, readings.rate(`hop/${from}/${to}/${hop.way}/events`) ?? 0]);
  const busy = used.filter(([, events]) => events > 0);
  const ways = (busy.length > 0 ? busy.sort((a, b) => b[1] - a[1]) : used).map(([way]) => way);
  const times = hops.flatMap((hop) => readings.times(`hop/${from}/${to}/${hop.way}/waited`));
  const p50 = quantile(merged(times), 0.5);
  const all = hops.length === 0 ? null : used.reduce((sum, [, events]) => sum + events, 0);
  return { rate: all, ways, lag: p50 === null ? null : { micros: p50 } };
}

/** Rows of times of several ways, as rows of all of them. */
function merged(rows) {
  const all = new Map();
  for (const [from, to, many] of rows) {
    const row = all.get(to) ?? [from, to, 0];
    row[2] += many;
    all.set(to, row);
  }
  return [...all.values()].sort((a, b) => a[0] - b[0]);
}

/** What waits before a segment, and how long that takes at the rate of now. */
export function lagOf(segment, detail, readings) {
  const waiting = detail.partition
    .filter((partition) => partition.segment === segment)
    .reduce((sum, partition) => sum + (partition["inbox-events"] ?? 0), 0);
  const taken = readings.rate(`stage/${segment}/in`);
  if (waiting === 0) return { waiting, micros: 0 };
  return { waiting, micros: taken > 0 ? (waiting / taken) * 1e6 : null };
}

const lagText = (lag) => {
  if (!lag) return null;
  if (lag.waiting > 0 && lag.micros === null) return `${count(lag.waiting)} wait`;
  return lag.micros === 0 ? "no lag" : `lag ${lag.micros < 1e6 ? micros(lag.micros) : seconds(lag.micros / 1e6)}`;
};

function wayText(ways) {
  if (ways.length === 0) return "nothing yet";
  const words = ways.slice(0, WAYS_SHOWN).map((way) => WAYS[way]?.[0] ?? way);
  return words.join(" + ") + (ways.length > WAYS_SHOWN ? " …" : "");
}

/** How much smaller a graph is drawn so that it need not be scrolled. */
const SMALLER = 0.8;

/** Between two layers: as it should be, and as little as the words of a line need. */
const GAP = 150;
const GAP_MIN = 122;

/**
 * The drawing, for so much width. `chosen` is the id of the box that is shown beside it, `choose` is
 * told another; `roving` and `rove` are the same of the box that the tabulator comes to.
 */
export function graph({ detail, readings, chosen, choose, roving, rove, down, room }) {
  const { boxes, lines } = model(detail);
  const [pad, beside] = [10, down ? 44 : 10];
  let placed = layout(boxes, lines, down ? { down, gap: 74, apart: 24 } : { gap: GAP, apart: 34 });
  if (!down && placed.width + 2 * pad > room) placed = layout(boxes, lines, { gap: GAP_MIN, apart: 34 });
  const focus = boxes.some((box) => box.id === roving) ? roving : boxes[0].id;
  const view = [-beside, -pad, placed.width + 2 * beside, placed.height + 2 * pad];
  const places = labelPlaces(lines);
  const about = new Map(lines.map((line) => [line.id, figuresOf(line, detail, readings)]));
  const top = Math.max(0, ...[...about.values()].map((of) => of.rate ?? 0));
  return h(
    "div",
    { class: "graph-scroll", key: `graph-${down}` },
    s(
      "svg",
      {
        class: view[2] * SMALLER <= room ? "graph fits" : "graph",
        viewBox: view.join(" "),
        width: view[2],
        height: view[3],
        role: "group",
        "aria-label": `Graph of ${detail.name}: ${several(detail.stage.length, "stage")}. Arrow keys move along edges.`,
        on: { keydown: (event) => move(event, { boxes, lines, placed, down, rove }) },
      },
      arrow(),
      lines.map((line) => drawLine(line, about.get(line.id), placed, { down, top, part: places.get(line.id) })),
      boxes.map((box) =>
        drawBox(box, placed.places.get(box.id), {
          detail,
          readings,
          isChosen: box.id === chosen,
          isFocus: box.id === focus,
          choose,
          rove,
        }),
      ),
    ),
  );
}

const arrow = () =>
  s(
    "defs",
    null,
    s(
      "marker",
      { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse", markerUnits: "userSpaceOnUse" },
      s("path", { d: "M0 0.5L7.5 4L0 7.5Z", class: "arrow" }),
    ),
  );

/** How far along its last piece the words of a line stand: where it is alone. */
function labelPlaces(lines) {
  const many = (end, of) => lines.filter((line) => line[end] === of[end]).length > 1;
  return new Map(lines.map((line) => [line.id, 0.5 + (many("from", line) ? 0.12 : 0) - (many("to", line) ? 0.12 : 0)]));
}

/** The point of a curve that leaves and arrives straight. */
function along([[x0, y0], [x1, y1]], t, down) {
  const even = 1.5 * t * (1 - t) + t ** 3;
  const late = 3 * (1 - t) * t ** 2 + t ** 3;
  return down ? [x0 + (x1 - x0) * late, y0 + (y1 - y0) * even] : [x0 + (x1 - x0) * even, y0 + (y1 - y0) * late];
}

function drawLine(line, of, placed, { down, top, part }) {
  const points = placed.ways.get(line.id);
  let path = `M${points[0].map(round).join(" ")}`;
  for (let at = 1; at < points.length; at += 1) {
    const [[x0, y0], [x1, y1]] = [points[at - 1], points[at]];
    const c = down ? [x0, (y0 + y1) / 2, x1, (y0 + y1) / 2] : [(x0 + x1) / 2, y0, (x0 + x1) / 2, y1];
    path += `C${c.map(round).join(" ")} ${round(x1)} ${round(y1)}`;
  }
  const [x, y] = along(points.slice(-2), part, down);
  const width = of.rate > 0 && top > 0 ? 1.4 + 2.2 * Math.sqrt(of.rate / top) : 1.2;
  const lag = lagText(of.lag);
  // That an output is one is seen.
  const words = [rate(of.rate), line.kind !== "output" && wayText(of.ways), lag].filter(Boolean);
  const full = [rate(of.rate), ...of.ways.map((way) => WAYS[way]?.[1] ?? way), lag].filter(Boolean);
  const from = line.ports.length > 0 && line.ports.join() !== "out" ? ` by ${line.ports.join(", ")}` : "";
  // Beside a line that goes down; the rate above one that goes to the right, the rest below it.
  const at = down ? [[8, -9], [8, 5], [8, 19]] : [[0, -7], [0, 15], [0, 29]];
  return s(
    "g",
    { class: `edge way-${of.ways[0] ?? "none"}`, key: line.id },
    s("title", null, `${nameOf(line.from)} to ${nameOf(line.to)}${from}: ${full.join(", ")}`),
    s("path", { class: "edge-line", d: path, "stroke-width": round(width), "marker-end": "url(#arrow)" }),
    s(
      "g",
      { class: "edge-label", transform: `translate(${round(x)} ${round(y)})` },
      words.map((text, row) =>
        s("text", { x: at[row][0], y: at[row][1], class: row === 0 ? "edge-rate" : "edge-more", "text-anchor": down ? "start" : "middle" }, text),
      ),
    ),
  );
}

const nameOf = (id) => id.slice(id.indexOf("/") + 1);

function drawBox(box, place, { detail, readings, isChosen, isFocus, choose, rove }) {
  const { lines, about, state } = wordsOf(box, detail, readings);
  const rows = lines.length;
  return s(
    "g",
    {
      class: `box box-${box.kind} ${state}${isChosen ? " chosen" : ""}`,
      key: box.id,
      transform: `translate(${round(place.x)} ${round(place.y)})`,
      tabindex: isFocus ? 0 : -1,
      role: "button",
      "aria-pressed": isChosen ? "true" : "false",
      "aria-label": about,
      "data-box": box.id,
      on: {
        click: () => choose(box),
        focus: () => rove(box.id),
        keydown: (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          choose(box);
        },
      },
    },
    s("title", null, box.name),
    s("rect", { class: "box-face", width: place.width, height: place.height, rx: box.kind === "stage" ? 8 : place.height / 2 }),
    lines.map((text, at) =>
      s(
        "text",
        {
          x: place.width / 2,
          y: round(place.height / 2 + (at - (rows - 1) / 2) * 18 + 4.5),
          "text-anchor": "middle",
          class: at === 0 ? "box-name" : "box-figure",
        },
        text,
      ),
    ),
  );
}

function wordsOf(box, detail, readings) {
  const name = cut(box.name, box.kind === "stage" ? LABEL_CHARS : 16);
  if (box.kind === "ingest") {
    const all = rate(readings.rate("ingest/events"));
    return { lines: [name, all], about: `Ingest, ${all}`, state: "" };
  }
  if (box.kind === "output") {
    const all = rate(readings.rate(`output/${box.name}`));
    return { lines: [name, all], about: `Output ${box.name}, ${all}`, state: "" };
  }
  const p99 = quantile(readings.times(`stage/${box.name}/call`), 0.99);
  const wrong = (readings.rate(`stage/${box.name}/wrong`, 60_000) ?? 0) > 0;
  const isHalted = (detail.partition ?? []).some((one) => one.halted?.startsWith(`${box.name}:`));
  const state = isHalted ? "halted" : wrong ? "failing" : "";
  const instances = several(box.stage.instances, "instance");
  const third = isHalted ? "halted" : wrong ? "fails of late" : instances;
  const call = p99 === null ? "no calls of late" : `p99 ${micros(p99)}`;
  const about = `Stage ${box.name}, ${rate(readings.rate(`stage/${box.name}/in`))} in, call ${call}, ${third}`;
  return { lines: [name, call, third], about, state };
}

/** Arrows: along a line forth and back, and to what is beside in the same layer. */
function move(event, { boxes, lines, placed, down, rove }) {
  const from = event.target.closest?.("[data-box]")?.dataset.box;
  if (!from) return;
  const [forth, back, before, after] = down
    ? ["ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight"]
    : ["ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"];
  const across = (id) => (down ? placed.places.get(id).x : placed.places.get(id).y);
  const layer = boxes
    .filter((box) => placed.layerOf.get(box.id) === placed.layerOf.get(from))
    .sort((a, b) => across(a.id) - across(b.id));
  const at = layer.findIndex((box) => box.id === from);
  const to = {
    [forth]: lines.find((line) => line.from === from)?.to,
    [back]: lines.find((line) => line.to === from)?.from,
    [before]: layer[at - 1]?.id,
    [after]: layer[at + 1]?.id,
    Home: boxes[0].id,
    End: boxes.at(-1).id,
  }[event.key];
  if (!to) return;
  event.preventDefault();
  rove(to);
  event.currentTarget.querySelector(`[data-box="${CSS.escape(to)}"]`)?.focus();
}

const round = (value) => Math.round(value * 10) / 10;
