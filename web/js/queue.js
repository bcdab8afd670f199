/** The queue of images: a few requests at a time, retries, cancellation, a connection that is lost. It uses no DOM. */

import { ApiError, pause } from "./api.js";
import { readable } from "./names.js";

/** @import { Cutout, Item } from "./types.js" */

/** Requests at a time: one is uploaded while the server works on another. */
export const CONCURRENCY = 2;

const ATTEMPTS_MAX = 4;
const BACKOFF_S = 1;
const BACKOFF_MAX_S = 15;

let lastId = 0;

/**
 * Processes items in their order. Fires `change` when an item or the queue changes.
 *
 * hold: why nothing is sent. "offline": the server cannot be reached, the queue continues by itself. "key": the API key is
 * missing or revoked, the queue continues with `resume`.
 */
export class Queue extends EventTarget {
  /**
   * @param {object} options
   * @param {(item: Item, signal: AbortSignal) => Promise<Cutout>} options.process
   * @param {() => Promise<unknown>} options.reach Succeeds as soon as the server can be reached.
   * @param {(ms: number) => Promise<void>} [options.wait]
   */
  constructor({ process, reach, wait = pause }) {
    super();
    this.process = process;
    this.reach = reach;
    this.wait = wait;
    /** @type {Item[]} */
    this.items = [];
    /** @type {"" | "offline" | "key"} */
    this.hold = "";
    /** @type {Map<number, AbortController>} */
    this.running = new Map();
  }

  /**
   * @param {{name: string, file?: Blob, url?: string}[]} sources
   * @returns {Item[]}
   */
  add(sources) {
    const items = sources.map(({ name, file = null, url = "" }) => newItem(name, file, url));
    this.items = [...this.items, ...items];
    this.advance();
    return items;
  }

  /**
   * Adds an image of which more is known; one with a result is not processed.
   * @param {Partial<Item> & {name: string, file: Blob}} known
   * @returns {Item}
   */
  open(known) {
    const item = { ...newItem(known.name, known.file, ""), ...known, name: readable(known.name) };
    if (item.result) Object.assign(item, { state: "done", revision: 1 });
    this.items = [...this.items, item];
    this.advance();
    return item;
  }

  /** Numbers of the items by state. */
  get counts() {
    const counts = { waiting: 0, running: 0, done: 0, failed: 0, cancelled: 0 };
    for (const item of this.items) counts[item.state] += 1;
    return counts;
  }

  /** Whether an item waits or runs. */
  get busy() {
    return this.items.some((item) => item.state === "waiting" || item.state === "running");
  }

  /** Cancels an item that has not ended. @param {Item} item */
  cancel(item) {
    if (item.state !== "waiting" && item.state !== "running") return;
    this.stop(item);
    item.state = "cancelled";
    this.advance();
  }

  cancelAll() {
    for (const item of this.items) this.cancel(item);
  }

  /** Processes an item again. @param {Item} item */
  retry(item) {
    this.stop(item);
    Object.assign(item, { state: "waiting", error: null, attempts: 0 });
    this.advance();
  }

  /** Ends the request of an item, and frees its place. @param {Item} item */
  stop(item) {
    this.running.get(item.id)?.abort();
    this.running.delete(item.id);
  }

  retryFailed() {
    for (const item of this.items) if (item.state === "failed" || item.state === "cancelled") this.retry(item);
  }

  /** @param {Item} item */
  remove(item) {
    this.cancel(item);
    this.items = this.items.filter((other) => other !== item);
    this.changed();
  }

  clear() {
    this.cancelAll();
    this.items = [];
    this.changed();
  }

  /** Continues after a hold. */
  resume() {
    this.hold = "";
    this.advance();
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** Starts items as long as there is room. */
  advance() {
    if (!this.hold) {
      for (const item of this.items) {
        if (this.running.size >= CONCURRENCY) break;
        if (item.state === "waiting") void this.run(item);
      }
    }
    this.changed();
  }

  /** @param {Item} item */
  async run(item) {
    const controller = new AbortController();
    this.running.set(item.id, controller);
    Object.assign(item, { state: "running", attempts: item.attempts + 1 });
    try {
      const { blob, facts } = await this.process(item, controller.signal);
      if (controller.signal.aborted) return;
      const changes = { state: "done", result: blob, facts, error: null, preview: null, accepted: false };
      Object.assign(item, changes, { revision: item.revision + 1 });
    } catch (error) {
      if (controller.signal.aborted) return;
      await this.failed(item, error, controller.signal);
    } finally {
      if (this.running.get(item.id) === controller) this.running.delete(item.id);
      this.advance();
    }
  }

  /** @param {Item} item @param {unknown} error @param {AbortSignal} signal */
  async failed(item, error, signal) {
    const known =
      error instanceof ApiError
        ? error
        : new ApiError(500, { code: "internal", message: String(error), retryable: false });
    if (known.key || known.offline) {
      Object.assign(item, { state: "waiting", attempts: 0 });
      if (known.key) this.hold = "key";
      else if (!this.hold) void this.recover();
      return;
    }
    if (known.retryable && item.attempts < ATTEMPTS_MAX) {
      await this.wait(1000 * (known.retryAfter ?? backoff(item.attempts)));
      if (!signal.aborted) item.state = "waiting";
      return;
    }
    Object.assign(item, { state: "failed", error: known.info });
  }

  /** Waits until the server can be reached. */
  async recover() {
    this.hold = "offline";
    for (let attempt = 1; this.hold === "offline"; attempt += 1) {
      await this.wait(1000 * backoff(attempt));
      try {
        await this.reach();
      } catch (error) {
        if (error instanceof ApiError && error.offline) continue;
      }
      if (this.hold === "offline") this.resume();
    }
  }
}

/** @param {number} attempt From 1. @returns {number} Seconds. */
export function backoff(attempt) {
  return Math.min(BACKOFF_MAX_S, BACKOFF_S * 2 ** (attempt - 1));
}

/** @param {string} name @param {Blob | null} file @param {string} url @returns {Item} */
function newItem(name, file, url) {
  lastId += 1;
  return {
    id: lastId,
    name: readable(name),
    file,
    url,
    state: "waiting",
    preview: null,
    result: null,
    facts: null,
    error: null,
    attempts: 0,
    prompts: [],
    strokes: [],
    accepted: false,
    corrected: false,
    job: null,
    revision: 0,
  };
}
