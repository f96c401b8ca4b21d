// Where the boxes and lines of a graph without cycles go: in layers, from where events come in to
// where they leave.
//
// A box is in the layer behind all that lead to it; lines that pass layers get a place in each of
// them, so that they do not go through boxes; within a layer everything is near what it is joined
// to. The same graph always looks the same.

/** How often the order within layers is made better, there and back. */
const SWEEPS = 8;

/**
 * `boxes` are `{ id, width, height }`, `lines` `{ id, from, to }`. Gives the place of each box, the
 * points of each line, and the size of all. Layers go to the right, or down if `down`.
 */
export function layout(boxes, lines, { down = false, gap = 150, apart = 28 } = {}) {
  const layerOf = layersOf(boxes, lines);
  const depth = Math.max(0, ...layerOf.values()) + 1;
  const layers = Array.from({ length: depth }, () => []);
  const items = new Map();
  const add = (item) => {
    items.set(item.id, item);
    layers[item.layer].push(item);
    return item;
  };
  for (const box of boxes) {
    const [along, across] = down ? [box.height, box.width] : [box.width, box.height];
    add({ id: box.id, layer: layerOf.get(box.id), along, across, before: [], after: [] });
  }
  const chains = lines.map((line) => chain(line, items, add));
  order(layers);
  place(layers, apart);
  return coordinates({ layers, items, chains, boxes, down, gap });
}

/** The longest way to each box. */
function layersOf(boxes, lines) {
  const layerOf = new Map(boxes.map((box) => [box.id, 0]));
  // At most as many rounds as boxes: a way is no longer, and a cycle would never end.
  for (let round = 0; round < boxes.length; round += 1) {
    let changed = false;
    for (const { from, to } of lines) {
      const least = layerOf.get(from) + 1;
      if (layerOf.get(to) < least && least < boxes.length) {
        layerOf.set(to, least);
        changed = true;
      }
    }
    if (!changed) break;
  }
  return layerOf;
}

/** The items a line goes through: its ends, and a bend in each layer between. */
function chain(line, items, add) {
  const [from, to] = [items.get(line.from), items.get(line.to)];
  const through = [from];
  for (let layer = from.layer + 1; layer < to.layer; layer += 1) {
    const id = `${line.id}@${layer}`;
    through.push(add({ id, layer, along: 0, across: 12, before: [], after: [], bend: true }));
  }
  through.push(to);
  for (let at = 1; at < through.length; at += 1) {
    through[at - 1].after.push(through[at]);
    through[at].before.push(through[at - 1]);
  }
  return { line, through };
}

function order(layers) {
  const number = (layer) => layer.forEach((item, at) => (item.at = at));
  layers.forEach(number);
  const middle = (others, own) =>
    others.length === 0 ? own : others.reduce((sum, other) => sum + other.at, 0) / others.length;
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const forth = sweep % 2 === 0;
    for (const layer of forth ? layers : [...layers].reverse()) {
      const wanted = new Map(layer.map((item) => [item, middle(forth ? item.before : item.after, item.at)]));
      layer.sort((a, b) => wanted.get(a) - wanted.get(b) || a.at - b.at);
      number(layer);
    }
  }
}

/** The middle of each item across its layer: as near to its neighbours as its layer allows. */
function place(layers, apart) {
  for (const layer of layers) {
    let at = 0;
    for (const item of layer) {
      item.middle = at + item.across / 2;
      at += item.across + apart;
    }
    const all = at - apart;
    for (const item of layer) item.middle -= all / 2;
  }
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    for (const layer of sweep % 2 === 0 ? layers : [...layers].reverse()) {
      const others = (item) => (sweep % 2 === 0 ? item.before : item.after);
      for (const item of layer) {
        const near = others(item);
        if (near.length > 0) item.middle = near.reduce((sum, one) => sum + one.middle, 0) / near.length;
      }
      spread(layer, apart);
    }
  }
}

/** Moves what overlaps apart, from the middle of its layer outwards. */
function spread(layer, apart) {
  const need = (a, b) => (a.across + b.across) / 2 + apart;
  const mid = Math.floor((layer.length - 1) / 2);
  for (let at = mid + 1; at < layer.length; at += 1) {
    layer[at].middle = Math.max(layer[at].middle, layer[at - 1].middle + need(layer[at - 1], layer[at]));
  }
  for (let at = mid - 1; at >= 0; at -= 1) {
    layer[at].middle = Math.min(layer[at].middle, layer[at + 1].middle - need(layer[at], layer[at + 1]));
  }
}

function coordinates({ layers, items, chains, boxes, down, gap }) {
  const all = [...items.values()];
  const least = Math.min(...all.map((item) => item.middle - item.across / 2));
  const most = Math.max(...all.map((item) => item.middle + item.across / 2));
  const begins = [];
  let along = 0;
  for (const layer of layers) {
    const thick = Math.max(...layer.map((item) => item.along));
    begins.push([along, thick]);
    along += thick + gap;
  }
  along -= gap;
  const point = (item, side) => {
    const [begin, thick] = begins[item.layer];
    const half = item.bend ? thick / 2 : item.along / 2;
    return turn([begin + thick / 2 + side * half, item.middle - least], down);
  };
  const places = new Map(
    boxes.map((box) => {
      const [x, y] = point(items.get(box.id), 0);
      return [box.id, { x: x - box.width / 2, y: y - box.height / 2, width: box.width, height: box.height }];
    }),
  );
  const ways = new Map(
    chains.map(({ line, through }) => {
      const points = [point(through[0], 1)];
      for (const bend of through.slice(1, -1)) points.push(point(bend, -1), point(bend, 1));
      points.push(point(through.at(-1), -1));
      return [line.id, points];
    }),
  );
  const [width, height] = turn([along, most - least], down);
  return { places, ways, width, height, layerOf: new Map(all.map((item) => [item.id, item.layer])) };
}

const turn = ([x, y], down) => (down ? [y, x] : [x, y]);
