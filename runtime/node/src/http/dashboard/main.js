// The page: which view is shown, and how often it reads the node.
//
// - One view at a time polls, one round at a time, and only while somebody can see it. A node that
//   is slow or fails is asked less often.
// - A view is `{ title, interval, poll, render, tellsScopes?, keys?, help?, close? }`; `poll` reads
//   what `render` shows, and `render` has no effects.
// - A token that is refused, or missing, asks for one.

import { account } from "./account.js";
import { Api } from "./api.js";
import { deploy } from "./deploy.js";
import { h, render } from "./dom.js";
import { EVERYWHERE, list, listen } from "./keys.js";
import { node } from "./node.js";
import { button, failure } from "./parts.js";
import { pipeline } from "./detail.js";
import { pipelines } from "./pipelines.js";

const VIEWS = { "": pipelines, p: pipeline, deploy, tenant: account, node };

const TABS = [
  ["", "Pipelines", ["", "p"]],
  ["deploy", "Deploy", ["deploy"]],
  ["tenant", "Tenant", ["tenant"]],
  ["node", "Node", ["node"]],
];

/** Longest time between two rounds while requests fail. */
const BACK_OFF_MS = 30_000;

/** A node that takes long is asked so many times less often than it could answer. */
const EASE = 10;

const THEME = "sluicebox-theme";
const THEMES = ["auto", "light", "dark"];

class App {
  constructor() {
    this.api = new Api();
    this.scopes = new Set();
    this.view = null;
    this.place = null;
    this.error = null;
    this.asksToken = false;
    this.tokenHint = null;
    this.question = null;
    this.showsKeys = false;
    this.round = null;
    this.timer = null;
    this.failures = 0;
    this.seen = false;
    this.drawn = false;
  }

  start() {
    this.#theme(localStorage.getItem(THEME) ?? "auto");
    addEventListener("hashchange", () => this.open());
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#rest() : this.#soon(0)));
    matchMedia("(max-width: 720px)").addEventListener("change", () => this.draw());
    // The address names a view, not a place on the page.
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault();
      document.getElementById("main").focus();
    });
    listen(() => this.#keys());
    this.open();
  }

  go(hash) {
    if (location.hash === hash) this.open();
    else location.hash = hash;
  }

  /** Shows what the address names. */
  open() {
    const parts = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
    const [name, ...params] = parts;
    this.#rest();
    this.view?.close?.();
    this.place = Object.hasOwn(VIEWS, name) ? name : "";
    this.view = VIEWS[this.place](this, params);
    Object.assign(this, { error: null, failures: 0, seen: false });
    document.title = `${this.view.title} · sluicebox`;
    this.draw();
    if (this.drawn) document.getElementById("main").focus({ preventScroll: true });
    this.drawn = true;
    this.#soon(0);
  }

  async readScopes(signal) {
    const usage = await this.api.json(this.api.path("usage"), { signal });
    this.scopes = new Set(usage.scopes);
  }

  #rest() {
    clearTimeout(this.timer);
    this.round?.abort();
    this.round = null;
  }

  #soon(ms) {
    clearTimeout(this.timer);
    if (document.hidden || this.asksToken) return;
    this.timer = setTimeout(() => this.#read(), ms);
  }

  /** One round: reads, draws, and says when the next one is. */
  async #read() {
    const round = new AbortController();
    this.round?.abort();
    this.round = round;
    const { view } = this;
    const began = performance.now();
    let next;
    try {
      const knows = this.scopes.size > 0 || view.tellsScopes;
      await Promise.all([view.poll(round.signal), knows || this.readScopes(round.signal)]);
      Object.assign(this, { error: null, failures: 0, seen: true });
      next = Math.max(view.interval, (performance.now() - began) * EASE);
    } catch (error) {
      if (error.name === "AbortError" || round.signal.aborted) return;
      if (error.status === 401) return this.refused(error);
      if (error.status === undefined) console.error(error);
      this.error = error;
      this.failures += 1;
      next = (error.retryAfter ?? 0) * 1000 || Math.min(BACK_OFF_MS, view.interval * 2 ** this.failures);
    }
    if (round.signal.aborted) return;
    this.draw();
    if (!this.error) this.#useful();
    this.#soon(next);
  }

  /** Marks for who measures when there was first something to see. */
  #useful() {
    if (performance.getEntriesByName("useful").length === 0) requestAnimationFrame(() => performance.mark("useful"));
  }

  /** The node does not know the token, or wants one. */
  refused() {
    this.tokenHint = this.api.token === null ? null : "This token is not known here: it was revoked, or is of another node.";
    this.asksToken = true;
    this.#rest();
    this.draw();
    document.getElementById("token")?.focus();
  }

  #enter(text) {
    const token = text.trim();
    if (!this.api.use(token)) {
      this.tokenHint = "That is no token. One looks like sbx_<tenant>_ and 43 letters and digits.";
      return this.draw();
    }
    Object.assign(this, { asksToken: false, tokenHint: null, scopes: new Set() });
    this.open();
  }

  #leave() {
    this.api.use(null);
    Object.assign(this, { scopes: new Set(), tokenHint: null, asksToken: true });
    this.#rest();
    this.view?.close?.();
    this.draw();
    document.getElementById("token")?.focus();
  }

  /** Asks before something is done: `{ title, text, yes, retype? }`. */
  confirm(question, act) {
    const back = document.activeElement;
    this.question = { ...question, typed: "", act, back };
    this.draw();
  }

  #answer(yes) {
    const { question } = this;
    if (!question || (yes && question.retype && question.typed !== question.retype)) return;
    this.question = null;
    this.draw();
    question.back?.focus?.();
    if (yes) question.act();
  }

  #keys() {
    if (this.question) return { Escape: () => this.#answer(false) };
    const toggle = (shows) => () => {
      this.showsKeys = shows;
      this.draw();
    };
    if (this.showsKeys) return { "?": toggle(false), Escape: toggle(false) };
    return {
      ...this.view?.keys,
      "g p": () => this.go("#/"),
      "g d": () => this.go("#/deploy"),
      "g t": () => this.go("#/tenant"),
      "g n": () => this.go("#/node"),
      t: () => this.#nextTheme(),
      "?": toggle(true),
    };
  }

  #nextTheme() {
    this.#theme(THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length]);
    localStorage.setItem(THEME, this.theme);
    this.draw();
  }

  #theme(theme) {
    this.theme = THEMES.includes(theme) ? theme : "auto";
    if (this.theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.theme;
  }

  /** Brings the page to what is known now. */
  draw() {
    render(document.getElementById("top"), this.#top());
    render(document.getElementById("main"), this.asksToken ? this.#signIn() : [this.#trouble(), (this.seen || !this.error) && this.view?.render()]);
    render(document.getElementById("over"), this.#over());
  }

  #top() {
    const tab = ([place, text, places]) =>
      h("a", { href: `#/${place}`, "aria-current": places.includes(this.place) ? "page" : undefined }, text);
    return [
      h("a", { class: "brand", href: "#/" }, h("img", { src: "icon.svg", alt: "", width: 22, height: 22 }), h("span", null, "sluicebox")),
      !this.asksToken && h("nav", { class: "main-tabs", "aria-label": "Views" }, TABS.map(tab)),
      h(
        "div",
        { class: "top-end" },
        !this.asksToken && h("span", { class: "tenant", title: "Tenant" }, this.api.tenant),
        button(`Theme: ${this.theme}`, () => this.#nextTheme(), { class: "plain", "aria-label": `Theme: ${this.theme}. Change it` }),
        button(
          "?",
          () => {
            this.showsKeys = true;
            this.draw();
          },
          { class: "plain", "aria-label": "Keys", title: "Keys" },
        ),
        this.api.token !== null && !this.asksToken && button("Sign out", () => this.#leave(), { class: "plain" }),
      ),
    ];
  }

  #trouble() {
    const { error } = this;
    if (!error) return h("div", { key: "trouble" });
    if (error.status === undefined) return h("div", { key: "trouble" }, failure(new Error("The dashboard made a mistake; the console says which.")));
    const older = this.seen ? "What is shown is older. " : "";
    const again = this.failures > 0 && h("p", { class: "hint" }, `${older}It is tried again by itself.`);
    return h("div", { key: "trouble" }, failure(error, again));
  }

  #signIn() {
    const submit = (event) => {
      event.preventDefault();
      this.#enter(event.target.elements.token.value);
    };
    return h(
      "section",
      { class: "panel sign-in" },
      h("h1", null, "Sign in"),
      h("p", { class: "hint" }, "With a token of your tenant. To look it takes the scope read, to change something write."),
      h(
        "form",
        { on: { submit } },
        h(
          "label",
          { class: "field" },
          h("span", null, "Token"),
          h("input", { id: "token", name: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "token-hint" }),
        ),
        h("button", { class: "primary" }, "Sign in"),
      ),
      h("p", { id: "token-hint", class: this.tokenHint ? "bad-text" : "hint", role: "alert" }, this.tokenHint ?? "It is kept in this tab until you close it, or sign out."),
    );
  }

  #over() {
    if (this.question) return this.#dialog(this.question);
    if (!this.showsKeys) return [];
    const close = () => {
      this.showsKeys = false;
      this.draw();
    };
    return dialog(
      "Keys",
      close,
      list(EVERYWHERE, this.view?.help ?? []),
      h("p", { class: "row end" }, button("Close", close, { class: "primary", autofocus: true })),
    );
  }

  #dialog(question) {
    const { title, text, yes, retype } = question;
    const type = (event) => {
      question.typed = event.target.value;
      this.draw();
    };
    return dialog(
      title,
      () => this.#answer(false),
      h("p", null, text),
      retype &&
        h(
          "label",
          { class: "field" },
          h("span", null, "Write ", h("code", { class: "long" }, retype), " to go on"),
          h("input", { type: "text", autocomplete: "off", spellcheck: "false", on: { input: type } }),
        ),
      h(
        "p",
        { class: "row end" },
        button("Cancel", () => this.#answer(false), retype ? {} : { autofocus: true }),
        button(yes, () => this.#answer(true), { class: retype ? "danger" : "primary", disabled: Boolean(retype) && question.typed !== retype }),
      ),
    );
  }
}

/** A dialog that keeps the focus, and tells when it is left. */
function dialog(title, close, ...children) {
  const cancel = (event) => {
    event.preventDefault();
    close();
  };
  return h(
    "dialog",
    { key: `dialog-${title}`, "aria-label": title, made: (element) => queueMicrotask(() => element.isConnected && element.showModal()), on: { cancel } },
    h("h2", null, title),
    children,
  );
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

new App().start();
