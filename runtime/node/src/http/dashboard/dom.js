// Elements as plain values, and how the page is brought to look like them.
//
// - `h` and `s` describe an element of HTML or SVG; `render` changes what differs and leaves the
//   rest, so that focus, selection, scrolling and open details last from one reading to the next.
// - All text is set as text. There is no way from a string to HTML here, nor to a script: only
//   listeners that are functions, and attributes that are named by this program, never by data.
// - Children with a `key` keep their element when they move.

const SVG = "http://www.w3.org/2000/svg";

/** What an element is made from is kept on it, by this name. */
const MADE = Symbol("made");

/** Properties that an attribute would only set the first time. */
const LIVE = new Set(["value", "checked", "disabled", "selected", "open", "indeterminate"]);

function described(space, tag, props, children) {
  return { space, tag, props: props ?? {}, children: children.flat(Infinity).filter(isShown).map(asNode) };
}

const isShown = (child) => child !== null && child !== undefined && child !== false && child !== true;

const asNode = (child) => (typeof child === "object" ? child : { text: String(child) });

/** An element of HTML: `h("p", { class: "hint" }, "text", child)`. `on` has listeners by event. */
export const h = (tag, props, ...children) => described(null, tag, props, children);

/** The same of SVG. */
export const s = (tag, props, ...children) => described(SVG, tag, props, children);

/** Makes the children of an element look like these. */
export function render(parent, ...nodes) {
  update(parent, nodes.flat(Infinity).filter(isShown).map(asNode));
}

function create(node) {
  if (node.text !== undefined) {
    const text = document.createTextNode(node.text);
    text[MADE] = node;
    return text;
  }
  const element = node.space ? document.createElementNS(node.space, node.tag) : document.createElement(node.tag);
  element[MADE] = { ...node, props: {}, children: [] };
  patch(element, node);
  return element;
}

const isSame = (made, node) =>
  made !== undefined &&
  (made.text !== undefined) === (node.text !== undefined) &&
  made.tag === node.tag &&
  made.props?.key === node.props?.key;

function patch(element, node) {
  const before = element[MADE];
  element[MADE] = node;
  if (node.text !== undefined) {
    if (before.text !== node.text) element.data = node.text;
    return;
  }
  for (const name of Object.keys(before.props)) {
    if (!(name in node.props)) set(element, name, undefined, before.props[name]);
  }
  // Children first: the value of a selection means one of them.
  update(element, node.children);
  for (const [name, value] of Object.entries(node.props)) set(element, name, value, before.props[name]);
}

function set(element, name, value, before) {
  if (name === "key" || name === "made") {
    if (name === "made" && before === undefined) value(element);
    return;
  }
  if (name === "on") return listen(element, value ?? {}, before ?? {});
  if (LIVE.has(name)) {
    // What a person has typed since stands until the value itself is another.
    if (value !== before) element[name] = value ?? "";
    return;
  }
  if (value === before) return;
  if (value === undefined || value === null || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : String(value));
}

function listen(element, listeners, before) {
  const known = (element[ON] ??= {});
  for (const event of Object.keys(before)) {
    if (!(event in listeners)) known[event] = null;
  }
  for (const [event, listener] of Object.entries(listeners)) {
    // One listener for each event, that calls whichever function there is now.
    if (!(event in known)) element.addEventListener(event, (fired) => known[event]?.(fired));
    known[event] = listener;
  }
}

const ON = Symbol("listeners");

function update(parent, nodes) {
  const keyed = new Map();
  for (const child of parent.childNodes) {
    const key = child[MADE]?.props?.key;
    if (key !== undefined) keyed.set(key, child);
  }
  const wanted = new Set(nodes.map((node) => node.props?.key));
  let at = parent.firstChild;
  for (const node of nodes) {
    const key = node.props?.key;
    // What is no longer wanted goes first, so that what stays need not be moved, which takes focus.
    while (at && at[MADE]?.props?.key !== undefined && !wanted.has(at[MADE].props.key)) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
    let child = key === undefined ? at : (keyed.get(key) ?? null);
    if (child && isSame(child[MADE], node)) {
      keyed.delete(key);
      if (child === at) at = at.nextSibling;
      else parent.insertBefore(child, at);
      patch(child, node);
      continue;
    }
    child = create(node);
    parent.insertBefore(child, at);
    // What stood here is another thing, and goes, unless it is to be found by its key.
    if (key === undefined && at && at[MADE]?.props?.key === undefined) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}
