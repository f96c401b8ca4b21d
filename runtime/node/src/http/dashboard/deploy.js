// Components go up, and manifests are applied, with everything the node has against them.

import { h } from "./dom.js";
import { bytes, moment, several } from "./figures.js";
import { button, failure, loading, panel, table } from "./parts.js";

/** The name a manifest gives itself, if it is easy to see. */
const NAME = /^\s*(?:name\s*=\s*"([^"]*)"|"name"\s*:\s*"([^"]*)",?)\s*(?:#.*)?$/m;

const EXAMPLE = `version = 1
name = "word-count"

[ingest]
to = ["split"]

[stages.split]
component = "word-count-split"
`;

export function deploy(app) {
  let components = null;
  const upload = { name: "", file: null, busy: false, said: null, failed: null };
  const asset = { file: null, busy: false, said: null, failed: null };
  const apply = { text: "", discard: "", busy: false, said: null, failed: null };

  async function poll(signal) {
    components = await app.api.json(app.api.path("components"), { signal });
  }

  /** Does something once, and remembers what came of it. */
  async function once(form, act) {
    if (form.busy) return;
    Object.assign(form, { busy: true, said: null, failed: null });
    app.draw();
    try {
      form.said = await act();
    } catch (error) {
      form.failed = error;
    }
    form.busy = false;
    app.draw();
  }

  const push = () =>
    once(upload, async () => {
      if (!upload.file) throw new Error("Choose a file first: a component, *.wasm.");
      if (!upload.name) throw new Error("Give it the name that manifests use.");
      const component = await app.api.json(app.api.path("components", upload.name), {
        method: "PUT",
        headers: { "content-type": "application/wasm" },
        body: upload.file,
      });
      await poll();
      return [`${component.name} is ${bytes(component.bytes)}, world ${component.world}, ${component.digest}`];
    });

  const pushAsset = () =>
    once(asset, async () => {
      if (!asset.file) throw new Error("Choose a file first.");
      const made = await app.api.json(app.api.path("assets"), {
        method: "POST",
        headers: { "content-type": "application/octet-stream" },
        body: asset.file,
      });
      return [`In a manifest it is ${made.digest}`];
    });

  const put = (dry) =>
    once(apply, async () => {
      const found = NAME.exec(apply.text);
      const name = found?.[1] ?? found?.[2];
      if (!name) throw new Error('Write a line name = "…" that says which pipeline this is.');
      const query = new URLSearchParams(dry ? { "dry-run": "true" } : {});
      for (const stage of apply.discard.split(/[\s,]+/).filter(Boolean)) query.append("discard-state", stage);
      const json = apply.text.trimStart().startsWith("{");
      const applied = await app.api.json(app.api.path("pipelines", name), {
        method: "PUT",
        query,
        headers: { "content-type": json ? "application/json" : "application/toml" },
        body: apply.text,
      });
      const changes = applied.changes.length > 0 ? applied.changes : [applied.changed || applied.created ? "a first version" : "nothing would change"];
      const head = dry ? `Would be version ${applied.version} of ${applied.name}:` : `Version ${applied.version} of ${applied.name} runs:`;
      return [head, ...changes, dry ? null : h("a", { href: `#/p/${encodeURIComponent(applied.name)}` }, `Look at ${applied.name}`)].filter(Boolean);
    });

  function render() {
    if (!components) return loading();
    const may = app.scopes.has("write");
    return [
      h("div", { class: "heading" }, h("h1", null, "Deploy")),
      !may && h("p", { class: "notice", role: "status" }, "This token may not change anything: it takes the scope write."),
      h("div", { class: "columns" }, h("div", null, uploadPanel(may), assetPanel(may)), applyPanel(may)),
      panel("Components", list()),
    ];
  }

  const outcome = (form) => [
    form.said && h("div", { class: "notice ok", role: "status" }, form.said.map((line) => h("p", { class: "long" }, line))),
    failure(form.failed),
  ];

  const picker = (text, form, more = {}) =>
    h(
      "label",
      { class: "field" },
      h("span", null, text),
      h("input", {
        type: "file",
        ...more,
        on: {
          change: (event) => {
            form.file = event.target.files[0] ?? null;
            more.picked?.(form.file);
            app.draw();
          },
        },
        picked: undefined,
      }),
    );

  const uploadPanel = (may) =>
    panel(
      "Upload a component",
      h(
        "form",
        { on: { submit: (event) => (event.preventDefault(), push()) } },
        picker("Component, *.wasm", upload, {
          accept: ".wasm,application/wasm",
          picked: (file) => {
            if (file && !upload.name) upload.name = file.name.replace(/\.wasm$/, "").replace(/[^a-z0-9-]+/gi, "-").toLowerCase();
          },
        }),
        h(
          "label",
          { class: "field" },
          h("span", null, "Name"),
          h("input", { type: "text", value: upload.name, autocomplete: "off", spellcheck: "false", maxlength: 63, on: { input: (event) => (upload.name = event.target.value.trim()) } }),
        ),
        h("button", { class: "primary", disabled: upload.busy || !may }, upload.busy ? "Compiling …" : "Upload"),
      ),
      outcome(upload),
    );

  const assetPanel = (may) =>
    panel(
      "Upload an asset",
      h("p", { class: "hint" }, "A file that stages read: a table, weights. Manifests name it by its digest."),
      h(
        "form",
        { on: { submit: (event) => (event.preventDefault(), pushAsset()) } },
        picker("File", asset),
        h("button", { disabled: asset.busy || !may }, asset.busy ? "Uploading …" : "Upload"),
      ),
      outcome(asset),
    );

  const applyPanel = (may) =>
    panel(
      "Apply a manifest",
      h(
        "form",
        { on: { submit: (event) => (event.preventDefault(), put(false)) } },
        h(
          "label",
          { class: "field" },
          h("span", null, "From a file, *.toml or *.json"),
          h("input", {
            type: "file",
            accept: ".toml,.json",
            on: {
              change: async (event) => {
                apply.text = (await event.target.files[0]?.text()) ?? apply.text;
                app.draw();
              },
            },
          }),
        ),
        h(
          "label",
          { class: "field" },
          h("span", null, "Manifest"),
          h("textarea", {
            rows: 16,
            value: apply.text,
            placeholder: EXAMPLE,
            spellcheck: "false",
            autocomplete: "off",
            on: { input: (event) => (apply.text = event.target.value) },
          }),
        ),
        h(
          "label",
          { class: "field" },
          h("span", null, "Stages whose state is given up, if any"),
          h("input", { type: "text", value: apply.discard, autocomplete: "off", spellcheck: "false", on: { input: (event) => (apply.discard = event.target.value) } }),
        ),
        h(
          "div",
          { class: "row" },
          h("button", { class: "primary", disabled: apply.busy || !may }, apply.busy ? "Applying …" : "Apply"),
          button("Check only", () => put(true), { disabled: apply.busy || !may }),
        ),
      ),
      outcome(apply),
    );

  const list = () =>
    table(
      "Components",
      [{ name: "Name", is: "name" }, { name: "Size", is: "number" }, { name: "World" }, { name: "Uploaded, UTC" }, { name: "Digest" }, { name: "Imports" }],
      components.map((one) => ({
        key: one.name,
        cells: [
          one.name,
          bytes(one.bytes),
          one.world,
          moment(one.created * 1e6),
          h("code", { title: one.digest }, one.digest.replace("sha256:", "").slice(0, 12)),
          h("span", { title: one.imports.join("\n") }, several(one.imports.length, "import")),
        ],
      })),
      "None yet.",
    );

  return { title: "Deploy", interval: 15_000, poll, render };
}
