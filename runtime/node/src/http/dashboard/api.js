// The node's interface: requests of one tenant, and what is said when one fails.
//
// - The token is kept for this tab and no longer, and goes into a header; it is never part of an
//   address. Without one the node may be in development mode, whose only tenant is `dev`.
// - Names go into paths percent-encoded, whatever they are.
// - Whatever goes wrong becomes a `Failure` with the node's own words, as text.

const TOKEN = "sluicebox-token";

/** A token has the name of its tenant in it, for people. */
const TOKEN_FORM = /^sbx_([a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)_[A-Za-z0-9_-]{43}$/;

/** What is between two requests of a page, at most, whatever the node asks for. */
const RETRY_SECONDS_MAX = 60;

/** A request that failed: with the node's problem document, or because there was no answer. */
export class Failure extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail ?? problem.title ?? "the node did not answer");
    this.status = status;
    this.code = problem.code ?? "";
    this.problem = problem;
    this.retryAfter = retryAfter;
  }
}

export class Api {
  constructor() {
    this.token = sessionStorage.getItem(TOKEN);
    this.tenant = this.token ? tenantOf(this.token) : "dev";
  }

  /** Takes another token; null is none. False if it cannot be one. */
  use(token) {
    const tenant = token === null ? "dev" : tenantOf(token);
    if (tenant === null) return false;
    this.token = token;
    this.tenant = tenant;
    if (token === null) sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, token);
    return true;
  }

  /** The path of something of the tenant's. */
  path(...parts) {
    return `/v1/tenants/${[this.tenant, ...parts].map(encodeURIComponent).join("/")}`;
  }

  /** A request; gives the response if it is a good one. */
  async ask(path, { method = "GET", query = {}, headers = {}, body, signal } = {}) {
    const asked = new URLSearchParams(query).toString();
    const all = { ...headers };
    if (this.token !== null) all.authorization = `Bearer ${this.token}`;
    let response;
    try {
      response = await fetch(asked ? `${path}?${asked}` : path, {
        method,
        headers: all,
        body,
        signal,
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure(0, { title: "the node cannot be reached" });
    }
    if (response.ok) return response;
    throw await failureOf(response);
  }

  async json(path, options) {
    const response = await this.ask(path, options);
    return response.json();
  }

  async text(path, options) {
    const response = await this.ask(path, options);
    return response.text();
  }

  /** A page of an output, the dead letters or a log: its records, the cursor behind them, and how many were gone before. */
  async page(parts, query, signal) {
    const response = await this.ask(this.path(...parts), { query, signal });
    const lines = (await response.text()).split("\n").filter((line) => line !== "");
    const { headers } = response;
    const missed = Number(headers.get("sluicebox-missed") ?? 0);
    return { records: lines.map((line) => JSON.parse(line)), cursor: headers.get("sluicebox-cursor"), missed };
  }
}

async function failureOf(response) {
  let problem = { title: response.statusText || `status ${response.status}` };
  try {
    const type = response.headers.get("content-type") ?? "";
    if (type.includes("json")) problem = await response.json();
    else problem.detail = (await response.text()).trim().slice(0, 500) || undefined;
  } catch {
    // It was cut off; the status says enough.
  }
  const after = Number(response.headers.get("retry-after"));
  const retryAfter = after > 0 ? Math.min(after, RETRY_SECONDS_MAX) : null;
  return new Failure(response.status, problem, retryAfter);
}

/** The tenant that a token is of; null if it has not the form of one. */
export function tenantOf(token) {
  return TOKEN_FORM.exec(token)?.[1] ?? null;
}
