/** Geometry of the editor: views of an image, boxes, lines. Points are [x, y]. It uses no DOM. */

/** @typedef {[number, number]} Point */
/** @typedef {[number, number, number, number]} Box x0, y0, x1, y1. */
/** @typedef {{width: number, height: number}} Size */
/**
 * @typedef {object} View Where an image is on the screen: screen = image * scale + (x, y), in CSS pixels.
 * @property {number} scale
 * @property {number} x
 * @property {number} y
 */

/** CSS pixels of one image pixel at most. */
export const SCALE_MAX = 16;

/** Free space around the image where it fits into the area, in CSS pixels. */
const MARGIN = 12;

/** The view in which the whole image is visible. @param {Size} image @param {Size} area @returns {View} */
export function fitView(image, area) {
  const across = Math.max(1, area.width - 2 * MARGIN) / image.width;
  const down = Math.max(1, area.height - 2 * MARGIN) / image.height;
  const scale = Math.min(across, down, SCALE_MAX);
  return { scale, x: (area.width - image.width * scale) / 2, y: (area.height - image.height * scale) / 2 };
}

/** @param {View} view @param {Point} point On the screen. @returns {Point} In the image. */
export function toImage({ scale, x, y }, point) {
  return [(point[0] - x) / scale, (point[1] - y) / scale];
}

/** @param {View} view @param {Point} point In the image. @returns {Point} On the screen. */
export function toScreen({ scale, x, y }, point) {
  return [point[0] * scale + x, point[1] * scale + y];
}

/**
 * Zooms so that the image point under `point` stays there. The smallest scale is that of `fitView`.
 * @param {View} view @param {Point} point On the screen. @param {number} factor @param {Size} image @param {Size} area
 * @returns {View}
 */
export function zoomView(view, point, factor, image, area) {
  const smallest = Math.min(fitView(image, area).scale, 1);
  const scale = Math.min(SCALE_MAX, Math.max(smallest, view.scale * factor));
  const [x, y] = toImage(view, point);
  return keepVisible({ scale, x: point[0] - x * scale, y: point[1] - y * scale }, image, area);
}

/** @param {View} view @param {Point} by In CSS pixels. @param {Size} image @param {Size} area @returns {View} */
export function panView(view, by, image, area) {
  return keepVisible({ ...view, x: view.x + by[0], y: view.y + by[1] }, image, area);
}

/**
 * The view after two fingers moved from `before` to `after`.
 * @param {View} view @param {[Point, Point]} before @param {[Point, Point]} after @param {Size} image @param {Size} area
 */
export function pinchView(view, before, after, image, area) {
  const spread = distance(...before);
  const [from, to] = [middle(...before), middle(...after)];
  const zoomed = zoomView(view, from, spread > 0 ? distance(...after) / spread : 1, image, area);
  return panView(zoomed, [to[0] - from[0], to[1] - from[1]], image, area);
}

/** Scrolls so that an image point is inside the area. @param {View} view @param {Point} point @param {Size} image @param {Size} area */
export function reveal(view, point, image, area) {
  const [x, y] = toScreen(view, point);
  const shift = (/** @type {number} */ at, /** @type {number} */ side) =>
    at < MARGIN ? MARGIN - at : at > side - MARGIN ? side - MARGIN - at : 0;
  return panView(view, [shift(x, area.width), shift(y, area.height)], image, area);
}

/** Centres an image that is smaller than the area, and keeps a larger one over the centre of the area.
 * @param {View} view @param {Size} image @param {Size} area @returns {View} */
function keepVisible(view, image, area) {
  const along = (/** @type {number} */ start, /** @type {number} */ length, /** @type {number} */ side) =>
    length <= side ? (side - length) / 2 : Math.min(side / 2, Math.max(side / 2 - length, start));
  return {
    scale: view.scale,
    x: along(view.x, image.width * view.scale, area.width),
    y: along(view.y, image.height * view.scale, area.height),
  };
}

/** @param {Point} a @param {Point} b */
export function distance(a, b) {
  return Math.hypot(a[0] - b[0], a[1] - b[1]);
}

/** @param {Point} a @param {Point} b @returns {Point} */
function middle(a, b) {
  return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
}

/** @param {Point} point @param {Size} image @returns {Point} */
export function inside([x, y], image) {
  return [Math.min(image.width, Math.max(0, x)), Math.min(image.height, Math.max(0, y))];
}

/**
 * The box between two corners, inside the image and rounded to 0.1 pixel; null for one with a side below `least`.
 * @param {Point} a @param {Point} b @param {Size} image @param {number} least @returns {Box | null}
 */
export function boxOf(a, b, image, least) {
  const [c, d] = [inside(a, image), inside(b, image)];
  /** @type {Box} */
  const box = [
    round(Math.min(c[0], d[0])),
    round(Math.min(c[1], d[1])),
    round(Math.max(c[0], d[0])),
    round(Math.max(c[1], d[1])),
  ];
  return box[2] - box[0] >= least && box[3] - box[1] >= least ? box : null;
}

/** Rounds to 0.1. @param {number} value */
export function round(value) {
  return Math.round(value * 10) / 10;
}

/** @param {Point} point @param {Point} a @param {Point} b */
export function distanceToSegment(point, a, b) {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const length = dx * dx + dy * dy;
  const share = length > 0 ? ((point[0] - a[0]) * dx + (point[1] - a[1]) * dy) / length : 0;
  const at = Math.min(1, Math.max(0, share));
  return distance(point, [a[0] + at * dx, a[1] + at * dy]);
}

/** Distance of a point to the outline of a box. @param {Point} point @param {Box} box */
export function distanceToOutline(point, [x0, y0, x1, y1]) {
  /** @type {Point[]} */
  const corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
  return Math.min(...corners.map((corner, index) => distanceToSegment(point, corner, corners[(index + 1) % 4] ?? corner)));
}

/**
 * Leaves out points of a line that lie within `tolerance` of the line through the others (Douglas and Peucker).
 * @param {Point[]} points @param {number} tolerance @returns {Point[]}
 */
export function simplified(points, tolerance) {
  const last = points.length - 1;
  if (last < 2) return points;
  const kept = new Uint8Array(points.length);
  kept[0] = kept[last] = 1;
  /** @type {[number, number][]} */
  const open = [[0, last]];
  for (let range = open.pop(); range; range = open.pop()) {
    const [from, to] = range;
    let [far, at] = [tolerance, 0];
    for (let index = from + 1; index < to; index += 1) {
      const [point, start, end] = /** @type {[Point, Point, Point]} */ ([points[index], points[from], points[to]]);
      const off = distanceToSegment(point, start, end);
      if (off > far) [far, at] = [off, index];
    }
    if (at) {
      kept[at] = 1;
      open.push([from, at], [at, to]);
    }
  }
  return points.filter((_, index) => kept[index]);
}
