/** The editor's modules without DOM: views, history, strokes, prompts, cache. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { LatestCache } from "../../../web/js/editor/cache.js";
import * as geometry from "../../../web/js/editor/geometry.js";
import { History } from "../../../web/js/editor/history.js";
import * as prompts from "../../../web/js/editor/prompts.js";
import * as strokes from "../../../web/js/editor/strokes.js";
import { texts } from "../../../web/js/editor/texts.js";

const IMAGE = { width: 4000, height: 3000 };
const AREA = { width: 800, height: 500 };

/** @param {number[]} a @param {number[]} b */
function near(a, b) {
  assert.equal(a.length, b.length);
  a.forEach((value, index) => assert.ok(Math.abs(value - b[index]) < 1e-6, `${a} is not ${b}`));
}

test("a fitted view shows the whole image in the middle", () => {
  const view = geometry.fitView(IMAGE, AREA);
  const [x0, y0] = geometry.toScreen(view, [0, 0]);
  const [x1, y1] = geometry.toScreen(view, [4000, 3000]);
  assert.ok(x0 >= 0 && y0 >= 0 && x1 <= 800 && y1 <= 500);
  near([x0 + x1, y0 + y1], [800, 500]);
});

test("screen and image coordinates are inverse", () => {
  const view = { scale: 0.37, x: 12.5, y: -80 };
  near(geometry.toImage(view, geometry.toScreen(view, [123.4, 567.8])), [123.4, 567.8]);
});

test("zooming keeps the image point under the pointer", () => {
  const start = geometry.zoomView(geometry.fitView(IMAGE, AREA), [400, 250], 6, IMAGE, AREA);
  const before = geometry.toImage(start, [420, 260]);
  const view = geometry.zoomView(start, [420, 260], 1.5, IMAGE, AREA);
  near(geometry.toImage(view, [420, 260]), before);
  assert.ok(view.scale > start.scale);
});

test("the zoom is limited on both sides", () => {
  const fit = geometry.fitView(IMAGE, AREA);
  assert.equal(geometry.zoomView(fit, [0, 0], 1e9, IMAGE, AREA).scale, geometry.SCALE_MAX);
  near([geometry.zoomView(fit, [0, 0], 1e-9, IMAGE, AREA).scale], [fit.scale]);
});

test("an image cannot be panned out of sight", () => {
  const close = geometry.zoomView(geometry.fitView(IMAGE, AREA), [400, 250], 8, IMAGE, AREA);
  const view = geometry.panView(close, [1e6, -1e6], IMAGE, AREA);
  near(geometry.toScreen(view, [0, 3000]), [400, 250]);
});

test("two fingers zoom around their middle and pan", () => {
  const start = geometry.zoomView(geometry.fitView(IMAGE, AREA), [400, 250], 4, IMAGE, AREA);
  const point = geometry.toImage(start, [400, 250]);
  const view = geometry.pinchView(start, [[350, 250], [450, 250]], [[310, 260], [510, 260]], IMAGE, AREA);
  near([view.scale], [start.scale * 2]);
  near(geometry.toScreen(view, point), [410, 260]);
});

test("a view scrolls to a point outside", () => {
  const close = geometry.zoomView(geometry.fitView(IMAGE, AREA), [400, 250], 8, IMAGE, AREA);
  const [x, y] = geometry.toScreen(geometry.reveal(close, [10, 10], IMAGE, AREA), [10, 10]);
  assert.ok(x > 0 && x < 800 && y > 0 && y < 500);
});

test("a box has its corners in order, inside the image, and a smallest size", () => {
  assert.deepEqual(geometry.boxOf([900.04, 700], [-50, 100.06], IMAGE, 2), [0, 100.1, 900, 700]);
  assert.equal(geometry.boxOf([10, 10], [11, 500], IMAGE, 2), null);
});

test("points on a line are left out, corners stay", () => {
  const line = Array.from({ length: 50 }, (_, index) => /** @type {[number, number]} */ ([index, 0.1 * (index % 2)]));
  const corner = Array.from({ length: 50 }, (_, index) => /** @type {[number, number]} */ ([49, index + 1]));
  assert.deepEqual(geometry.simplified([...line, ...corner], 0.5), [[0, 0], [49, 0.1], [49, 50]].with(1, geometry.simplified([...line, ...corner], 0.5)[1]));
  assert.deepEqual(geometry.simplified([[1, 1]], 0.5), [[1, 1]]);
});

test("every point of a simplified line stays within the tolerance", () => {
  const curve = Array.from({ length: 400 }, (_, index) => /** @type {[number, number]} */ ([100 * Math.cos(index / 60), 100 * Math.sin(index / 60)]));
  const kept = geometry.simplified(curve, 0.5);
  assert.ok(kept.length < 60);
  for (const point of curve) {
    const off = Math.min(...kept.slice(1).map((end, index) => geometry.distanceToSegment(point, kept[index], end)));
    assert.ok(off <= 0.5 + 1e-9);
  }
});

test("undo and redo walk through the states, and a new state ends the redo", () => {
  const history = new History("a");
  history.push("b");
  history.push("c");
  assert.ok(history.undo() && history.undo());
  assert.equal(history.state, "a");
  assert.equal(history.undo(), false);
  assert.ok(history.redo());
  assert.equal(history.state, "b");
  history.push("d");
  assert.equal(history.canRedo, false);
  assert.ok(history.undo());
  assert.equal(history.state, "b");
});

test("a stroke drops points that are closer than the least distance, and reports what changed", () => {
  const input = new strokes.StrokeInput({ mode: "erase", width: 20, hardness: 0.5 }, 2);
  assert.deepEqual(input.add([10, 10]), [-1, -1, 21, 21]);
  assert.equal(input.add([11, 10]), null);
  assert.deepEqual(input.add([30, 10]), [-1, -1, 41, 21]);
  assert.deepEqual(input.finished(0.5), [{ mode: "erase", width: 20, hardness: 0.5, points: [[10, 10], [30, 10]] }]);
});

test("a pen's pressure splits a stroke into joined strokes of steps of width", () => {
  const input = new strokes.StrokeInput({ mode: "restore", width: 40, hardness: 1 }, 1);
  for (const [x, pressure] of [[0, 0.2], [10, 0.22], [20, 0.9], [30, 1]]) input.add([x, 0], pressure);
  const [thin, thick, ...rest] = input.finished(0.1);
  assert.deepEqual(rest, []);
  assert.deepEqual([thin.points, thick.points], [[[0, 0], [10, 0]], [[10, 0], [30, 0]]]);
  assert.ok(thin.width < thick.width && thick.width === 40);
});

test("the limits of the API are checked before a request", () => {
  const one = { mode: /** @type {"erase"} */ ("erase"), width: 1, hardness: 1, points: [/** @type {[number, number]} */ ([0, 0])] };
  assert.ok(strokes.withinLimits(Array(strokes.STROKES_MAX).fill(one)));
  assert.equal(strokes.withinLimits(Array(strokes.STROKES_MAX + 1).fill(one)), false);
  assert.equal(strokes.withinLimits([{ ...one, points: Array(strokes.POINTS_MAX + 1).fill([0, 0]) }]), false);
});

test("rings in each other cover as the server's rim: linear from the hard part to the rim", () => {
  const drawn = strokes.rings(40, 0.5, 4);
  assert.ok(drawn.length > 4);
  for (const distance of [0, 9, 12, 15, 18, 19.9]) {
    const coverage = 1 - drawn.filter(({ width }) => distance <= width / 2).reduce((rest, { alpha }) => rest * (1 - alpha), 1);
    assert.ok(Math.abs(coverage - Math.min(1, (20 - distance) / 10)) <= 0.5 / drawn.length + 1e-9);
  }
  assert.deepEqual(strokes.rings(40, 1, 4), [{ width: 40, alpha: 1 }]);
});

test("a stroke of the API in percent has a width in pixels", () => {
  const stroke = { mode: "erase", width: "2%", points: [[1, 2]] };
  assert.deepEqual(strokes.fromApi(stroke, 4000), { mode: "erase", width: 80, hardness: 1, points: [[1, 2]] });
  assert.equal(strokes.fromApi({ ...stroke, width: "24px", hardness: 0 }, 4000).width, 24);
});

test("one stroke covers a whole image of any size within the limits", () => {
  for (const size of [{ width: 4000, height: 3000 }, { width: 30, height: 9000 }, { width: 12000, height: 8000 }, { width: 5, height: 3 }, { width: 1, height: 2 }]) {
    const stroke = strokes.covering(size);
    assert.ok(strokes.withinLimits([stroke]) && stroke.width <= strokes.WIDTH_MAX);
    for (let y = 0; y <= size.height; y += size.height / 97) {
      assert.ok(stroke.points.some(([, row]) => Math.abs(row - y) <= stroke.width / 2), `${size.width} x ${size.height} at ${y}`);
    }
  }
});

test("points refine the selected subject, and a new subject is another prompt", () => {
  let choice = prompts.withPoint({ prompts: [], selected: -1 }, [10.04, 20], 1);
  choice = prompts.withPoint(choice, [30, 40], 0);
  assert.deepEqual(choice.prompts, [{ points: [[10, 20], [30, 40]], labels: [1, 0] }]);
  choice = prompts.withPoint({ ...choice, selected: -1 }, [99, 99], 1);
  assert.equal(choice.prompts.length, 2);
  assert.equal(choice.selected, 1);
});

test("a point on the background needs a subject", () => {
  const none = { prompts: [], selected: -1 };
  assert.deepEqual(prompts.withPoint(none, [1, 1], 0), none);
  assert.deepEqual(prompts.withBox(none, [0, 0, 9, 9], 0), none);
  const box = prompts.withBox(none, [0, 0, 9, 9], 1);
  assert.deepEqual(prompts.withPoint({ ...box, selected: -1 }, [1, 1], 0).prompts, [{ box: [0, 0, 9, 9], points: [[1, 1]], labels: [0] }]);
  assert.deepEqual(prompts.withBox(box, [2, 2, 5, 5], 0).prompts[1], { box: [2, 2, 5, 5], mode: "ignore" });
});

test("lists of prompts are replaced, never changed", () => {
  const start = Object.freeze([Object.freeze({ points: Object.freeze([[1, 2]]), labels: Object.freeze([1]) })]);
  const choice = prompts.withPoint({ prompts: /** @type {any} */ (start), selected: 0 }, [3, 4], 1);
  assert.deepEqual(choice.prompts[0].points, [[1, 2], [3, 4]]);
  assert.equal(start[0].points.length, 1);
});

test("without a subject to keep, removed boxes go too", () => {
  const choice = { prompts: [{ box: [0, 0, 9, 9] }, { box: [1, 1, 3, 3], mode: "ignore" }], selected: 1 };
  assert.deepEqual(prompts.without(/** @type {any} */ (choice), 0), { prompts: [], selected: -1 });
  assert.deepEqual(prompts.without(/** @type {any} */ (choice), 1).prompts, [{ box: [0, 0, 9, 9] }]);
});

test("a detected instance is selected and unselected", () => {
  const chosen = prompts.toggled({ prompts: [], selected: -1 }, [1, 2, 30, 40]);
  assert.equal(prompts.indexOf(chosen.prompts, [1, 2, 30, 40]), 0);
  assert.deepEqual(prompts.toggled(chosen, [1, 2, 30, 40]).prompts, []);
});

test("the nearest prompt within reach is hit, and the smallest box at a point", () => {
  const list = /** @type {any} */ ([{ box: [0, 0, 100, 100] }, { points: [[90, 90]], labels: [1] }]);
  assert.equal(prompts.hit(list, [92, 91], 5), 1);
  assert.equal(prompts.hit(list, [50, 3], 5), 0);
  assert.equal(prompts.hit(list, [50, 50], 5), -1);
  assert.equal(prompts.boxAt([[0, 0, 100, 100], [40, 40, 60, 60]], [50, 50]), 1);
  assert.equal(prompts.boxAt([[0, 0, 100, 100]], [150, 50]), -1);
});

test("prompts of a small copy lie inside it", () => {
  const [one] = prompts.scaled([{ box: [0, 0, 4000, 3000], points: [[4000, 3000]], labels: [1] }], IMAGE, { width: 1024, height: 768 });
  assert.deepEqual([one.box, one.points], [[0, 0, 1024, 768], [[1024, 768]]]);
  const [tiny] = prompts.scaled([{ box: [4000 - 1, 0, 4000, 1] }], IMAGE, { width: 10, height: 10 });
  assert.ok(tiny.box && tiny.box[0] < tiny.box[2] && tiny.box[1] < tiny.box[3]);
});

test("a later request replaces the one that runs, and known results need none", async () => {
  /** @type {string[]} */
  const sent = [];
  /** @type {Map<string, (value: string) => void>} */
  const waiting = new Map();
  const cache = new LatestCache((key) => {
    sent.push(key);
    return new Promise((resolve) => waiting.set(key, resolve));
  });
  const [first, second] = [cache.get("a"), cache.get("b")];
  waiting.get("a")?.("A");
  waiting.get("b")?.("B");
  assert.deepEqual([await first, await second], [null, "B"]);
  assert.deepEqual([await cache.get("a"), await cache.get("b")], ["A", "B"]);
  assert.deepEqual(sent, ["a", "b"]);
});

test("an error of a replaced request is not reported", async () => {
  const cache = new LatestCache((key, signal) =>
    key === "b" ? Promise.resolve("B") : new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
  );
  const first = cache.get("a");
  assert.equal(await cache.get("b"), "B");
  assert.equal(await first, null);
});

test("the cache forgets the oldest result", async () => {
  const cache = new LatestCache((key) => Promise.resolve(key), 2);
  for (const key of ["a", "b", "c"]) await cache.get(key);
  assert.deepEqual([...cache.results.keys()], ["b", "c"]);
});

test("every text of the editor is in both languages with the same values", () => {
  const values = (/** @type {string} */ text) => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort();
  assert.deepEqual(Object.keys(texts.de), Object.keys(texts.en));
  for (const [key, text] of Object.entries(texts.en)) assert.deepEqual(values(texts.de[/** @type {keyof typeof texts.de} */ (key)]), values(text), key);
});
