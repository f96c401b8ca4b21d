// Following what goes on: one question behind the other.
//
// - It is paused when asked to, and rests while nobody looks.
// - What is asked waits at the node until there is something, so that silence costs a request every
//   few seconds.
// - What `read` throws is shown, and asked again later; a token that is refused ends it.

/** How long a request waits for something to come. */
export const WAIT = "5s";

/** Between two questions, at least. */
export const PAUSE_MS = 500;

/** And after one that failed, where the node does not say. */
const FAILED_SECONDS = 5;

/** `read(signal)` asks once, and gives how long to wait before it is called again. */
export class Follow {
  constructor(app) {
    this.app = app;
    this.paused = false;
    this.failed = null;
    this.abort = null;
  }

  start() {
    this.abort = new AbortController();
    this.#run(this.abort.signal).catch(() => {});
  }

  stop() {
    this.abort?.abort();
    this.abort = null;
  }

  toggle() {
    this.paused = !this.paused;
    if (this.paused) this.stop();
    else this.start();
    this.app.draw();
  }

  async #run(signal) {
    while (!signal.aborted) {
      await shown(signal);
      let pause;
      try {
        pause = await this.read(signal);
        this.failed = null;
      } catch (error) {
        if (error.name === "AbortError") return;
        if (error.status === 401) return this.app.refused(error);
        this.failed = error;
        pause = (error.retryAfter ?? FAILED_SECONDS) * 1000;
      }
      if (signal.aborted) return;
      this.app.draw();
      await rest(pause, signal);
    }
  }
}

/** `2026-01-02T03:04:05.678901Z` as the time of day. */
export const timeOf = (time) => (time ?? "").replace("T", " ").replace("Z", "").slice(11, 23);

/** Nobody looks: nothing is asked for. */
function shown(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((done) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      signal.removeEventListener("abort", look);
      done();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look);
  });
}

const rest = (ms, signal) =>
  new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      done();
    });
  });
