/** Strokes of the brush, in the form of the API, and the input of a pointer that becomes strokes. It uses no DOM. */

import { distance, round, simplified } from "./geometry.js";

/** @import { Box, Point } from "./geometry.js" */
/**
 * @typedef {object} BrushStroke
 * @property {"erase" | "restore"} mode
 * @property {number} width Diameter in pixels of the image.
 * @property {number} hardness Share of the radius with full effect, 0 to 1.
 * @property {Point[]} points In pixels of the upright image.
 */

/** Limits of the API; a test compares them with `maskdrop/strokes.py`. */
export const STROKES_MAX = 200;
export const POINTS_MAX = 5000;
export const WIDTH_MIN = 0.5;
export const WIDTH_MAX = 2000;

/** Share of the width at no pressure. */
const PRESSURE_MIN = 0.25;

/** Widths between the smallest and the full one: a pen that changes its pressure starts another stroke at each. */
const PRESSURE_STEPS = 4;

/** Opacities of a soft rim that are drawn one in the other. */
const RINGS_MAX = 8;

/** Collects the points of one movement of a pointer. */
export class StrokeInput {
  /**
   * @param {object} brush
   * @param {"erase" | "restore"} brush.mode
   * @param {number} brush.width
   * @param {number} brush.hardness
   * @param {number} least Distance in image pixels that a point must have from the last one.
   */
  constructor({ mode, width, hardness }, least) {
    this.brush = { mode, width, hardness };
    this.least = least;
    /** @type {BrushStroke[]} */
    this.strokes = [];
  }

  /**
   * Adds a point.
   * @param {Point} point @param {number} [pressure] 0 to 1; 1 for a device without pressure.
   * @returns {Box | null} The part of the image that changed; null for none.
   */
  add(point, pressure = 1) {
    const width = widthOf(this.brush.width, pressure);
    const stroke = this.strokes.at(-1);
    const last = stroke?.points.at(-1);
    if (!stroke || !last) {
      this.strokes.push({ ...this.brush, width, points: [point] });
      return around([point], width);
    }
    if (distance(last, point) < this.least) return null;
    if (stroke.width === width) stroke.points.push(point);
    else this.strokes.push({ ...this.brush, width, points: [last, point] });
    return around([last, point], Math.max(width, stroke.width));
  }

  /** The strokes for the API. @param {number} tolerance In image pixels. @returns {BrushStroke[]} */
  finished(tolerance) {
    return this.strokes.map((stroke) => ({
      ...stroke,
      points: simplified(stroke.points, tolerance).map(([x, y]) => /** @type {Point} */ ([round(x), round(y)])),
    }));
  }
}

/** The width at a pressure, in steps. @param {number} width @param {number} pressure */
export function widthOf(width, pressure) {
  const step = Math.ceil(Math.min(1, Math.max(0, pressure)) * PRESSURE_STEPS) / PRESSURE_STEPS;
  return Math.max(WIDTH_MIN, round(width * (PRESSURE_MIN + (1 - PRESSURE_MIN) * step)));
}

/** The rectangle that a line covers. @param {Point[]} points @param {number} width @returns {Box} */
export function around(points, width) {
  const reach = width / 2 + 1;
  const [across, down] = [points.map(([x]) => x), points.map(([, y]) => y)];
  return [Math.min(...across) - reach, Math.min(...down) - reach, Math.max(...across) + reach, Math.max(...down) + reach];
}

/** @param {Box | null} a @param {Box | null} b @returns {Box | null} */
export function union(a, b) {
  if (!a || !b) return a ?? b;
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];
}

/** Whether the API accepts the strokes. @param {BrushStroke[]} strokes */
export function withinLimits(strokes) {
  const points = strokes.reduce((sum, stroke) => sum + stroke.points.length, 0);
  return strokes.length <= STROKES_MAX && points <= POINTS_MAX;
}

/**
 * Lines that, drawn one in the other, make the rim of a stroke: its coverage falls linearly from hardness * radius to
 * radius, as on the server.
 * @param {number} width @param {number} hardness @param {number} scale Screen pixels of one image pixel.
 * @returns {{width: number, alpha: number}[]} The widest first.
 */
export function rings(width, hardness, scale) {
  const fall = (width / 2) * (1 - hardness);
  const count = Math.min(RINGS_MAX, Math.max(1, Math.ceil((fall * scale) / 2)));
  return Array.from({ length: count }, (_, index) => ({
    width: width - (2 * fall * (index + 0.5)) / count,
    alpha: 1 / (count - index),
  }));
}

/** A stroke that restores a whole image. @param {import("./geometry.js").Size} size @returns {BrushStroke} */
export function covering({ width, height }) {
  const brush = Math.min(WIDTH_MAX, Math.max(width, height));
  const rows = Math.ceil(height / Math.max(1, brush - 2));
  const points = Array.from({ length: rows }, (_, row) => {
    const y = ((row + 0.5) * height) / rows;
    return row % 2 ? [[width, y], [0, y]] : [[0, y], [width, y]];
  });
  return { mode: "restore", width: brush, hardness: 1, points: /** @type {Point[]} */ (points.flat()) };
}

/** A stroke of the API with a width in pixels. @param {Record<string, any>} stroke @param {number} longer Side of the image. @returns {BrushStroke} */
export function fromApi(stroke, longer) {
  const { mode, width, hardness = 1, points } = stroke;
  const text = String(width);
  const value = Number.parseFloat(text);
  return { mode, hardness: hardness ?? 1, points, width: text.endsWith("%") ? (longer * value) / 100 : value };
}
