/** What the editor shows: the source, a small copy of it for requests, the cut-out without strokes, masks. */

import { alphaOf, levelsOf, masked } from "./stage.js";
import { subjectOf } from "../design.js";
import { scaled } from "./prompts.js";
import { covering } from "./strokes.js";

/** @import { App } from "../app.js" */
/** @import { Facts, Item } from "../types.js" */
/** @import { Size } from "./geometry.js" */
/** @import { Prompt } from "./prompts.js" */
/** @import { Level } from "./stage.js" */
/** @typedef {{alpha: HTMLCanvasElement, share: number, facts: Facts}} Mask share: of the image, 0 to 1. */

/** Long side of the copy that is sent for each click: the input of SAM, whose embedding the server then has cached. */
const REQUEST_SIDE = 1024;

const QUALITY = 0.92;

/** Cut-outs without strokes by the JSON of their prompts, one for each item. @type {WeakMap<Item, {key: string, blob: Blob}>} */
const cutouts = new WeakMap();

export class Sources {
  /** @param {App} app @param {Item} item */
  constructor(app, item) {
    this.app = app;
    this.item = item;
    /** @type {Level[]} */
    this.levels = [];
    /** @type {Level[]} The cut-out without strokes. */
    this.own = [];
    /** @type {{blob: Blob, size: Size} | null} */
    this.small = null;
    this.controller = new AbortController();
  }

  destroy() {
    this.controller.abort();
    for (const { image } of [...this.levels, ...this.own]) if (image instanceof ImageBitmap) image.close();
    this.levels = this.own = [];
  }

  /** @returns {Size} Of the upright image, in pixels. */
  get size() {
    const [level] = this.levels;
    return level ?? { width: 1, height: 1 };
  }

  /** Decodes the source. Raises ApiError for a file that neither the browser nor the server can show. */
  async load() {
    const file = /** @type {Blob} */ (this.item.file);
    let image;
    try {
      image = await createImageBitmap(file);
    } catch {
      image = await createImageBitmap(await this.copy(file));
    }
    this.levels = await levelsOf(image);
  }

  /** The source as the server decodes it, for formats that the browser does not know. @param {Blob} file */
  async copy(file) {
    const { facts, error } = this.item;
    if (!facts) throw new Error(error?.message ?? "The image is not processed yet.");
    const { width, height } = facts;
    const strokes = [covering({ width, height })];
    const { signal } = this.controller;
    return (await this.app.api.cutout(file, { strokes, output: { format: "jpg" } }, { signal })).blob;
  }

  /** @returns {Promise<{blob: Blob, size: Size}>} */
  async forRequests() {
    if (this.small) return this.small;
    const level = /** @type {Level} */ (this.levels.at(-1));
    const scale = Math.min(1, REQUEST_SIDE / Math.max(level.width, level.height));
    const size = { width: Math.max(1, Math.round(level.width * scale)), height: Math.max(1, Math.round(level.height * scale)) };
    const canvas = document.createElement("canvas");
    Object.assign(canvas, size);
    const ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    ctx.fillStyle = "#ffffff";
    ctx.fillRect(0, 0, size.width, size.height);
    ctx.imageSmoothingQuality = "high";
    ctx.drawImage(level.image, 0, 0, size.width, size.height);
    const blob = await new Promise((/** @type {(blob: Blob | null) => void} */ done) => canvas.toBlob(done, "image/jpeg", QUALITY));
    if (!blob) throw new Error("The image cannot be encoded.");
    this.small ??= { blob, size };
    return this.small;
  }

  /** @param {Prompt[]} prompts @param {AbortSignal} signal @returns {Promise<Mask>} */
  async mask(prompts, signal) {
    const { blob, size } = await this.forRequests();
    const prompt = scaled(prompts, this.size, size);
    const result = await this.app.api.cutout(blob, { prompt }, { path: "/v1/masks", signal });
    const image = await createImageBitmap(result.blob);
    const { canvas, share } = alphaOf(image);
    image.close();
    return { alpha: canvas, share, facts: result.facts };
  }

  /** @returns {Promise<{label: string, score: number, box: import("./geometry.js").Box}[]>} Boxes in pixels of the source. */
  async instances() {
    const { blob, size } = await this.forRequests();
    const { detections } = await this.app.api.detections(blob, {}, this.controller.signal);
    return scaled(detections.map(({ box }) => ({ box: /** @type {any} */ (box) })), size, this.size).map(({ box }, index) => {
      const { label, score } = /** @type {import("../types.js").Detection} */ (detections[index]);
      return { label, score, box: /** @type {import("./geometry.js").Box} */ (box) };
    });
  }

  /** The cut-out of the item's own prompts without its strokes. @returns {Promise<Level[]>} */
  async cutout() {
    const { item } = this;
    const { strokes, ...options } = subjectOf(this.app.design, item);
    const key = JSON.stringify(options);
    let known = cutouts.get(item);
    if (known?.key !== key) {
      const finished = item.state === "done" && !item.strokes.length ? item.result : null;
      const { signal } = this.controller;
      const made = finished ?? (await this.app.api.cutout(/** @type {Blob} */ (item.file), options, { signal })).blob;
      known = { key, blob: made };
      cutouts.set(item, known);
    }
    this.own = await levelsOf(await createImageBitmap(known.blob));
    return this.own;
  }

  /** The source behind a mask: the cut-out until the server has made it. @param {Mask} mask @returns {Level[]} */
  behind(mask) {
    const level = this.levels.at(-1);
    return level ? [masked(mask.alpha, level.image)] : [];
  }
}
