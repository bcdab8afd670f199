/**
 * Compares a view with what it must look like: facts of its layout, and a coarse image.
 *
 * Screenshots differ between machines by fonts and antialiasing, so that a comparison of pixels fails without a fault. The coarse
 * image has cells of about 100 pixels: text changes the mean of a cell little, a missing stylesheet or an empty view much.
 */

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

const FILE = join(import.meta.dirname, "views.json");

const CELLS = 12;
/** Cells of the coarse image in each direction. */

/** Largest mean difference of the cells, and share of cells that may differ by more than CELL. Values are 0 to 255. */
const MEAN = 8;
const CELL = 48;
const SHARE = 0.06;

/** Share of a control that another one may cover. */
const OVERLAP = 0.25;

/** Opens the file of coarse images. With `write`, `compare` records instead. */
export class Baseline {
  /** @param {{write?: boolean}} [options] */
  static async load({ write = Boolean(process.env.SCREENSHOTS) } = {}) {
    const baseline = new Baseline();
    baseline.write = write;
    baseline.images = /** @type {Record<string, string>} */ (JSON.parse(await readFile(FILE, "utf8").catch(() => "{}")));
    return baseline;
  }

  async save() {
    const sorted = Object.fromEntries(Object.entries(this.images).sort(([a], [b]) => (a < b ? -1 : 1)));
    if (this.write) await writeFile(FILE, `${JSON.stringify(sorted, null, 1)}\n`);
  }

  /** Returns the difference in words; none if there is none. @param {string} name @param {number[]} cells */
  compare(name, cells) {
    if (this.write) this.images[name] = Buffer.from(cells).toString("hex");
    const stored = this.images[name];
    if (!stored) return [`${name}: no coarse image in ${FILE}; make screenshots writes it`];
    const gaps = [...Buffer.from(stored, "hex")].map((value, i) => Math.abs(value - (cells[i] ?? 0)));
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
    const share = gaps.filter((gap) => gap > CELL).length / gaps.length;
    return mean > MEAN || share > SHARE ? [`${name}: looks different: mean ${mean.toFixed(1)} of 255, ${Math.round(100 * share)} % of the cells`] : [];
  }
}

/**
 * The mean luminance of CELLS x CELLS parts of a screenshot, 0 to 255. The browser decodes it.
 * @param {import("playwright-core").Page} page @param {Buffer} png @returns {Promise<number[]>}
 */
export function coarse(page, png) {
  return page.evaluate(
    async ([body, cells]) => {
      const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
      const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
      context.drawImage(bitmap, 0, 0);
      const { data, width, height } = context.getImageData(0, 0, bitmap.width, bitmap.height);
      const sums = new Float64Array(cells * cells);
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          const at = 4 * (y * width + x);
          sums[Math.floor((y * cells) / height) * cells + Math.floor((x * cells) / width)] += 0.3 * data[at] + 0.59 * data[at + 1] + 0.11 * data[at + 2];
        }
      }
      return [...sums].map((sum) => Math.round((sum * cells * cells) / (width * height)));
    },
    /** @type {[string, number]} */ ([png.toString("base64"), CELLS]),
  );
}

/**
 * Faults of the layout, on every machine: a page wider than the window, controls that cover each other or lie outside, images
 * and canvases without a size, no main text.
 * @param {import("playwright-core").Page} page @returns {Promise<string[]>}
 */
export function layoutFaults(page) {
  return page.evaluate((allowed) => {
    const found = /** @type {string[]} */ ([]);
    const wide = document.documentElement.scrollWidth - innerWidth;
    if (wide > 0) found.push(`${wide} px wider than the window`);
    const nameOf = (/** @type {Element} */ one) => `${one.localName}.${one.className || ""} "${(one.textContent || one.getAttribute("aria-label") || "").trim().slice(0, 24)}"`;
    /** The part of an element that is not clipped by an ancestor that scrolls. */
    const shown = (/** @type {Element} */ one) => {
      let { left, top, right, bottom } = one.getBoundingClientRect();
      for (let parent = one.parentElement; parent; parent = parent.parentElement) {
        if (getComputedStyle(parent).overflow === "visible") continue;
        const box = parent.getBoundingClientRect();
        [left, top, right, bottom] = [Math.max(left, box.left), Math.max(top, box.top), Math.min(right, box.right), Math.min(bottom, box.bottom)];
      }
      return { left, top, right, bottom, area: Math.max(0, right - left) * Math.max(0, bottom - top) };
    };
    const fixed = (/** @type {Element} */ one) => {
      for (let now = /** @type {Element | null} */ (one); now; now = now.parentElement) if (/fixed|sticky/.test(getComputedStyle(now).position)) return true;
      return false;
    };
    const controls = [...document.querySelectorAll("button, a[href], input:not(.segmented input), select, textarea, summary")]
      .filter((one) => one.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && !one.matches(".skip, .hidden-text, .compare *, .boxes *"))
      .map((one) => ({ one, box: shown(one) }))
      .filter(({ box }) => box.area > 0);
    if (controls.length < 7) found.push(`${controls.length} controls`); // six views and the logo
    for (const [i, { one, box }] of controls.entries()) {
      if (box.left < -1 || box.right > innerWidth + 1) found.push(`outside: ${nameOf(one)}`);
      for (const { one: other, box: second } of controls.slice(i + 1)) {
        if (one.contains(other) || other.contains(one) || fixed(one) !== fixed(other)) continue; // a bar lies over what scrolls
        const width = Math.min(box.right, second.right) - Math.max(box.left, second.left);
        const height = Math.min(box.bottom, second.bottom) - Math.max(box.top, second.top);
        if (width > 0 && height > 0 && width * height > allowed * Math.min(box.area, second.area)) found.push(`${nameOf(one)} over ${nameOf(other)}`);
      }
    }
    for (const one of document.querySelectorAll("main img, main canvas")) {
      const { width, height } = one.getBoundingClientRect();
      if (one.checkVisibility() && (width < 8 || height < 8)) found.push(`no size: ${nameOf(one)}`);
    }
    const main = document.querySelector("main");
    if ((main?.innerText.trim().length ?? 0) < 20) found.push("main is empty");
    if (getComputedStyle(document.body).margin !== "0px") found.push("the stylesheet is missing");
    return found;
  }, OVERLAP);
}
