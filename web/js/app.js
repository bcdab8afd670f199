/** What the views share: the API, the queue, the design, the settings. */

import { Api, ApiError } from "./api.js";
import { plain, requestOf, subjectOf, isPlain, marketplacesOf } from "./design.js";
import { configOf } from "./config.js";
import { Queue } from "./queue.js";

/** @import { Cutout, Design, Engine, Item, Preset } from "./types.js" */
/** @import { Settings } from "./settings.js" */

/** Finished images that are kept for each item: one has up to tens of megabytes. */
const FINISHED_MAX = 3;

/** Milliseconds before engines and presets are requested again after an error of the server. */
const LOAD_AGAIN_MS = 5000;

/**
 * Fires `design` when the design changes, `select` when another item is selected, `status` when the catalogue or the
 * state of the connection changes.
 */
export class App extends EventTarget {
  /** @param {Settings} settings @param {{api?: Api}} [options] */
  constructor(settings, { api } = {}) {
    super();
    this.settings = settings;
    this.api = api ?? new Api({ key: () => settings.key });
    this.queue = new Queue({
      process: (item, signal) => this.cutOut(item, signal),
      reach: async () => {
        await this.api.health();
        if (this.status === "offline") await this.load();
      },
    });
    /** @type {Design} */
    this.design = plain();
    /** @type {Item | null} */
    this.selected = null;
    /** @type {Item | null} The image that the viewer opens in the editor when it is shown. */
    this.toEdit = null;
    /** Days for which the operator keeps corrections as training records; 0: none are kept. */
    this.correctionsDays = 0;
    /** @type {Engine[]} */
    this.engines = [];
    /** @type {Preset[]} */
    this.presets = [];
    /** @type {import("./design.js").Marketplace[]} */
    this.marketplaces = [];
    /** @type {"" | "loading" | "offline" | "key"} */
    this.status = "loading";
    /** Whether a later load is planned. */
    this.later = false;
    /** @type {WeakMap<Item, Map<string, Promise<Cutout>>>} */
    this.finished = new WeakMap();
  }

  /** Loads engines, presets and marketplaces; without a connection, again as soon as there is one. */
  async load() {
    const { files = {}, corrections_days = 0 } = await configOf();
    this.api.files = Object.entries(files);
    this.correctionsDays = corrections_days;
    try {
      const [engines, presets, openapi] = await Promise.all([
        this.api.engines(),
        this.api.presets(),
        this.api.openapi(),
      ]);
      this.engines = engines;
      this.presets = presets;
      this.marketplaces = marketplacesOf(openapi);
      this.status = "";
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.status = error.key ? "key" : "offline";
      if (error.offline && !this.queue.hold) void this.queue.recover();
      else if (!error.key && !error.offline) void this.loadLater();
    }
    this.fire("status");
  }

  /** Loads them again after an error of the server. */
  async loadLater() {
    if (this.later) return;
    this.later = true;
    await this.queue.wait(LOAD_AGAIN_MS);
    this.later = false;
    if (this.status === "offline") await this.load();
  }

  /** Uses another key, and continues. @param {string} key @param {boolean} remember */
  async useKey(key, remember) {
    this.settings.setKey(key, remember);
    await this.reconnect();
  }

  /** Continues as soon as the server can be reached and accepts the key. */
  async reconnect() {
    await this.load();
    if (!this.status) this.queue.resume();
  }

  /** @param {string} name */
  fire(name) {
    this.dispatchEvent(new Event(name));
  }

  /** @param {Item | null} item */
  select(item) {
    if (this.selected === item) return;
    this.selected = item;
    this.fire("select");
  }

  /** Changes the design. A change of anything ends the preset. @param {Partial<Design>} changes */
  change(changes) {
    this.design = { ...this.design, preset: "", ...changes };
    this.fire("design");
  }

  /** @param {Item} item @param {AbortSignal} signal @returns {Promise<Cutout>} */
  async cutOut(item, signal) {
    if (item.file && !item.result) void this.preview(item, item.file, signal);
    return this.api.cutout(item.file ?? item.url, subjectOf(this.design, item), { signal });
  }

  /**
   * Shows a cut-out by the small network in the browser until the server's result is there, where it is installed.
   * @param {Item} item @param {Blob} file @param {AbortSignal} signal
   */
  async preview(item, file, signal) {
    const blob = await import("./preview.js").then(({ preview }) => preview(file, { signal })).catch(() => null);
    if (!blob || item.state !== "running" || item.result) return;
    item.preview = blob;
    this.queue.changed();
  }

  /**
   * The finished image of an item with the current design: rendered once for each design and each revision of the item.
   * @param {Item} item @returns {Promise<Cutout>}
   */
  finish(item) {
    const { design } = this;
    if (isPlain(design) && item.result && item.facts) return Promise.resolve({ blob: item.result, facts: item.facts });
    const { path, options } = requestOf(design, item, this.marketplaces);
    const known = this.finished.get(item) ?? new Map();
    this.finished.set(item, known);
    const key = `${item.revision} ${path} ${JSON.stringify(options)} ${design.image ? imageId(design.image) : ""} ${design.format}`;
    let cutout = known.get(key);
    if (!cutout) {
      cutout = this.render(item, design, path, options);
      known.set(key, cutout);
      for (const old of [...known.keys()].slice(0, -FINISHED_MAX)) known.delete(old);
      cutout.catch(() => known.delete(key));
    }
    return cutout;
  }

  /** @param {Item} item @param {Design} design @param {string} path @param {Record<string, unknown>} options */
  async render(item, design, path, options) {
    const cutout = await this.api.cutout(item.file ?? item.url, options, { path }).catch((error) => {
      if (error instanceof ApiError && (error.key || error.offline)) void this.load();
      throw error;
    });
    if (design.background !== "image" || !design.image || design.preset) return cutout;
    const { withImage } = await import("./compose.js");
    return { ...cutout, blob: await withImage(cutout.blob, design.image, design.format) };
  }
}

/** @type {WeakMap<Blob, number>} */
const ids = new WeakMap();
let lastId = 0;

/** @param {Blob} image */
function imageId(image) {
  const id = ids.get(image) ?? (lastId += 1);
  ids.set(image, id);
  return id;
}
