/**
 * The canvases of the editor, one over the other, in the size of the screen: the source, the cut-out (or the mask), and
 * marks. Strokes are lines, so they are drawn again for each view; no pixel is read back. While a stroke is drawn, only
 * the rectangle that it changes is drawn again.
 */

import { h } from "../dom.js";
import { fitView, toScreen } from "./geometry.js";
import { rings, union } from "./strokes.js";

/** @import { Box, Point, Size, View } from "./geometry.js" */
/** @import { BrushStroke } from "./strokes.js" */
/** @import { Prompt } from "./prompts.js" */

/** Long side of the smaller copy of an image, which is drawn unless the view is larger. */
const SMALL_SIDE = 2048;

const RATIO_MAX = 2;

/** @typedef {{image: CanvasImageSource, width: number, height: number}} Level */

/**
 * @typedef {object} Marks What is drawn over the image.
 * @property {Prompt[]} prompts
 * @property {number} selected
 * @property {Box[]} found Instances of a detection.
 * @property {Box | null} band The box that is being drawn.
 * @property {{at: Point, width: number, cross: boolean} | null} cursor width: of the brush in image pixels; 0 for none.
 */

export class Stage {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
    this.under = h("canvas", { class: "editor-under", "aria-hidden": "true" });
    this.top = h("canvas", { class: "editor-top", "aria-hidden": "true" });
    this.over = h("canvas", { class: "editor-over", "aria-hidden": "true" });
    element.prepend(this.under, this.top, this.over);
    this.base = h("canvas");
    /** @type {Size} */
    this.size = { width: 1, height: 1 };
    /** @type {Size} */
    this.area = { width: 1, height: 1 };
    /** @type {View} */
    this.view = { scale: 1, x: 0, y: 0 };
    this.ratio = 1;
    this.fitted = true;
    /** @type {Level[]} */
    this.source = [];
    /** @type {Level[]} */
    this.shown = [];
    /** @type {BrushStroke[]} */
    this.strokes = [];
    /** @type {BrushStroke[]} */
    this.live = [];
    /** @type {Marks} */
    this.marks = { prompts: [], selected: -1, found: [], band: null, cursor: null };
    this.stale = { view: true, base: true, top: true, marks: true };
    /** @type {Box | null} */
    this.dirty = null;
    this.frame = 0;
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(element);
    this.resize();
  }

  destroy() {
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
    for (const canvas of [this.under, this.top, this.over, this.base]) canvas.width = canvas.height = 0;
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!width || !height) return;
    this.area = { width, height };
    this.ratio = Math.min(RATIO_MAX, devicePixelRatio || 1);
    for (const canvas of [this.under, this.top, this.over, this.base]) {
      canvas.width = Math.round(width * this.ratio);
      canvas.height = Math.round(height * this.ratio);
    }
    this.setView(this.fitted ? fitView(this.size, this.area) : this.view, this.fitted);
  }

  /** @param {View} view @param {boolean} [fitted] */
  setView(view, fitted = false) {
    this.view = view;
    this.fitted = fitted;
    this.redraw("view");
  }

  /** @param {Level[]} source The image in one or two sizes, the largest first. */
  setSource(source) {
    this.source = source;
    const [{ width, height }] = /** @type {[Level]} */ (source);
    this.size = { width, height };
    this.setView(fitView(this.size, this.area), true);
  }

  /** Sets what is over the source: the cut-out with strokes, or a mask. @param {Level[]} shown @param {BrushStroke[]} strokes */
  setShown(shown, strokes) {
    const added = shown === this.shown && strokes.length >= this.strokes.length && this.strokes.every((one, index) => one === strokes[index]);
    const more = added ? strokes.slice(this.strokes.length) : [];
    this.shown = shown;
    this.strokes = strokes;
    this.live = [];
    if (!added || this.stale.base) return this.redraw("base");
    for (const stroke of more) this.paint(context(this.base), stroke);
    this.redraw("top");
  }

  /** Shows a stroke that is being drawn. @param {BrushStroke[]} live @param {Box | null} changed In the image. */
  setLive(live, changed) {
    this.live = live;
    this.dirty = union(this.dirty, changed);
    this.redraw("live");
  }

  /** @param {Partial<Marks>} marks */
  setMarks(marks) {
    this.marks = { ...this.marks, ...marks };
    this.redraw("marks");
  }

  /** @param {"view" | "base" | "top" | "live" | "marks"} part */
  redraw(part) {
    if (part === "view") this.stale = { view: true, base: true, top: true, marks: true };
    else if (part === "base") this.stale.base = this.stale.top = true;
    else if (part === "top" || part === "marks") this.stale[part] = true;
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const { stale, dirty } = this;
    this.stale = { view: false, base: false, top: false, marks: false };
    this.dirty = null;
    if (stale.view) this.drawUnder();
    if (stale.base) this.drawBase();
    if (stale.top) this.drawTop(null);
    else if (dirty) this.drawTop(dirty);
    if (stale.marks) this.drawMarks();
  }

  /** The level that has at least the pixels of the screen, else the largest. @param {Level[]} levels */
  level(levels) {
    const needed = this.size.width * this.view.scale * this.ratio;
    return levels.findLast((level) => level.width >= needed) ?? levels[0];
  }

  /** @param {CanvasRenderingContext2D} ctx */
  place(ctx) {
    const { scale, x, y } = this.view;
    const { ratio } = this;
    ctx.setTransform(scale * ratio, 0, 0, scale * ratio, x * ratio, y * ratio);
  }

  /** @param {HTMLCanvasElement} canvas @param {Level[]} levels */
  drawImage(canvas, levels) {
    const ctx = context(canvas);
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, canvas.width, canvas.height);
    const level = this.level(levels);
    if (!level) return;
    this.place(ctx);
    ctx.imageSmoothingEnabled = this.view.scale * this.ratio < 4;
    ctx.drawImage(level.image, 0, 0, this.size.width, this.size.height);
  }

  drawUnder() {
    this.drawImage(this.under, this.source);
  }

  drawBase() {
    this.drawImage(this.base, this.shown);
    for (const stroke of this.strokes) this.paint(context(this.base), stroke);
  }

  /** @param {Box | null} part Of the image; null for all of it. */
  drawTop(part) {
    const ctx = context(this.top);
    const { width, height } = this.top;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    let [x0, y0, x1, y1] = [0, 0, width, height];
    if (part) {
      const [a, b] = [toScreen(this.view, [part[0], part[1]]), toScreen(this.view, [part[2], part[3]])];
      x0 = Math.max(0, Math.floor(a[0] * this.ratio) - 1);
      y0 = Math.max(0, Math.floor(a[1] * this.ratio) - 1);
      x1 = Math.min(width, Math.ceil(b[0] * this.ratio) + 1);
      y1 = Math.min(height, Math.ceil(b[1] * this.ratio) + 1);
    }
    if (x1 <= x0 || y1 <= y0) return;
    ctx.clearRect(x0, y0, x1 - x0, y1 - y0);
    ctx.drawImage(this.base, x0, y0, x1 - x0, y1 - y0, x0, y0, x1 - x0, y1 - y0);
    if (!this.live.length) return;
    ctx.save();
    ctx.beginPath();
    ctx.rect(x0, y0, x1 - x0, y1 - y0);
    ctx.clip();
    for (const stroke of this.live) this.paint(ctx, stroke);
    ctx.restore();
  }

  /** Draws a stroke as the server does. @param {CanvasRenderingContext2D} ctx @param {BrushStroke} stroke */
  paint(ctx, { mode, width, hardness, points }) {
    const level = this.level(this.source);
    const [first, ...rest] = points;
    if (!level || !first) return;
    ctx.save();
    this.place(ctx);
    ctx.lineCap = ctx.lineJoin = "round";
    if (mode === "erase") ctx.globalCompositeOperation = "destination-out";
    else {
      const pattern = ctx.createPattern(level.image, "no-repeat");
      pattern?.setTransform(new DOMMatrix().scale(this.size.width / level.width, this.size.height / level.height));
      ctx.strokeStyle = pattern ?? "black";
    }
    ctx.beginPath();
    ctx.moveTo(...first);
    if (!rest.length) ctx.lineTo(first[0] + 0.01, first[1]);
    for (const point of rest) ctx.lineTo(...point);
    for (const ring of rings(width, hardness, this.view.scale * this.ratio)) {
      ctx.lineWidth = ring.width;
      ctx.globalAlpha = ring.alpha;
      ctx.stroke();
    }
    ctx.restore();
  }

  drawMarks() {
    const ctx = context(this.over);
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    ctx.clearRect(0, 0, this.area.width, this.area.height);
    const { prompts, selected, found, band, cursor } = this.marks;
    for (const box of found) this.outline(ctx, box, "#ffffff", 1.5, [5, 4]);
    prompts.forEach((prompt, index) => {
      const colour = prompt.mode === "ignore" ? "#ff5a4f" : "#2dd36f";
      if (prompt.box) this.outline(ctx, prompt.box, colour, index === selected ? 3 : 1.5, []);
      (prompt.points ?? []).forEach((point, at) => this.dot(ctx, point, prompt.labels?.[at] === 0 ? "#ff5a4f" : colour, index === selected));
    });
    if (band) this.outline(ctx, band, "#ffffff", 1.5, [3, 3]);
    if (cursor) this.cursor(ctx, cursor);
  }

  /** @param {CanvasRenderingContext2D} ctx @param {Box} box @param {string} colour @param {number} width @param {number[]} dash */
  outline(ctx, box, colour, width, dash) {
    const [x0, y0] = toScreen(this.view, [box[0], box[1]]);
    const [x1, y1] = toScreen(this.view, [box[2], box[3]]);
    for (const [style, line] of /** @type {[string, number][]} */ ([["rgb(0 0 0 / 60%)", width + 2], [colour, width]])) {
      ctx.setLineDash(line === width ? dash : []);
      ctx.strokeStyle = style;
      ctx.lineWidth = line;
      ctx.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    ctx.setLineDash([]);
  }

  /** @param {CanvasRenderingContext2D} ctx @param {Point} point @param {string} colour @param {boolean} large */
  dot(ctx, point, colour, large) {
    const [x, y] = toScreen(this.view, point);
    ctx.beginPath();
    ctx.arc(x, y, large ? 7 : 5, 0, 2 * Math.PI);
    ctx.fillStyle = colour;
    ctx.fill();
    ctx.lineWidth = 2;
    ctx.strokeStyle = "#ffffff";
    ctx.stroke();
  }

  /** @param {CanvasRenderingContext2D} ctx @param {{at: Point, width: number, cross: boolean}} cursor */
  cursor(ctx, { at, width, cross }) {
    const [x, y] = toScreen(this.view, at);
    ctx.beginPath();
    if (width) ctx.arc(x, y, Math.max(1, (width * this.view.scale) / 2), 0, 2 * Math.PI);
    if (cross || !width) {
      for (const [dx, dy] of /** @type {Point[]} */ ([[1, 0], [-1, 0], [0, 1], [0, -1]])) {
        ctx.moveTo(x + dx * 3, y + dy * 3);
        ctx.lineTo(x + dx * 12, y + dy * 12);
      }
    }
    for (const [style, line] of /** @type {[string, number][]} */ ([["rgb(0 0 0 / 70%)", 3], ["#ffffff", 1.5]])) {
      ctx.strokeStyle = style;
      ctx.lineWidth = line;
      ctx.stroke();
    }
  }
}

/** @param {HTMLCanvasElement} canvas @returns {CanvasRenderingContext2D} */
function context(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
}

/** An image in its size, and a smaller copy of a large one. @param {ImageBitmap} image @returns {Promise<Level[]>} */
export async function levelsOf(image) {
  const { width, height } = image;
  const scale = SMALL_SIDE / Math.max(width, height);
  if (scale >= 1) return [{ image, width, height }];
  const [resizeWidth, resizeHeight] = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  const small = await createImageBitmap(image, { resizeWidth, resizeHeight, resizeQuality: "medium" });
  return [{ image, width, height }, { image: small, width: small.width, height: small.height }];
}

/**
 * A mask, white on the subject, as a canvas whose alpha is the mask. It reads pixels, once for each mask of at most 1 MP.
 * @param {ImageBitmap} mask @returns {{canvas: HTMLCanvasElement, share: number}} share: of the image, 0 to 1.
 */
export function alphaOf(mask) {
  const canvas = h("canvas", { width: mask.width, height: mask.height });
  const ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  ctx.drawImage(mask, 0, 0);
  const pixels = ctx.getImageData(0, 0, mask.width, mask.height);
  const { data } = pixels;
  let sum = 0;
  for (let index = 0; index < data.length; index += 4) {
    data[index + 3] = data[index] ?? 0;
    sum += data[index] ?? 0;
    data[index] = data[index + 1] = data[index + 2] = 255;
  }
  ctx.putImageData(pixels, 0, 0);
  return { canvas, share: sum / 255 / (mask.width * mask.height) };
}

/**
 * A copy of the alpha of a mask or a cut-out, filled with a colour or an image.
 * @param {HTMLCanvasElement | ImageBitmap} alpha @param {CanvasImageSource | string} fill @returns {Level}
 */
export function masked(alpha, fill) {
  const { width, height } = alpha;
  const canvas = h("canvas", { width, height });
  const ctx = context(canvas);
  ctx.drawImage(alpha, 0, 0);
  ctx.globalCompositeOperation = "source-in";
  if (typeof fill === "string") {
    ctx.fillStyle = fill;
    ctx.fillRect(0, 0, width, height);
  } else ctx.drawImage(fill, 0, 0, width, height);
  return { image: canvas, width, height };
}
