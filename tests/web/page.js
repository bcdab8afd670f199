/** What the tests in Chromium share: the browser, a page of the console, files dropped on it, results read from it. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

import { chromium } from "playwright-core";

import { ROOT } from "./server.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

export const REPORTS = join(ROOT, "reports", "web");

/** One result on a slow machine. */
export const RESULT_MS = 60_000;

/** The reason for which tests are skipped, or false. */
export const skip = existsSync(CHROMIUM) ? false : `no Chromium at ${CHROMIUM}; set CHROMIUM`;

export const launch = () => chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });

/** @param {number} count @returns {Promise<string[]>} Paths of photos in samples/, repeated if there are fewer. */
export async function samples(count) {
  const files = await readdir(join(ROOT, "samples"), { recursive: true });
  const images = files.filter((file) => /\.(jpe?g|png|webp)$/i.test(file)).sort();
  return Array.from({ length: count }, (_, i) => join(ROOT, "samples", images[i % images.length]));
}

/**
 * Opens a console in a context of its own. Afterwards the test fails if the page called another origin, had a key in a URL,
 * violated its policy or logged an error.
 * @param {import("node:test").TestContext} t
 * @param {import("playwright-core").Browser} browser
 * @param {string} url Origin of the server.
 * @param {{errors?: RegExp, context?: import("playwright-core").BrowserContextOptions}} [options]
 *   errors: messages in the browser's console that the test causes.
 */
export async function open(t, browser, url, { errors = /^$/, context: options = {} } = {}) {
  const context = await browser.newContext({ locale: "en-GB", viewport: { width: 1440, height: 900 }, ...options });
  const faults = /** @type {string[]} */ ([]);
  context.on("request", (request) => {
    const target = request.url();
    if (!/^(blob|data):/.test(target) && new URL(target).origin !== new URL(url).origin) faults.push(`request to ${target}`);
    if (/maskdrop_|[?&]key=/i.test(new URL(target).search)) faults.push(`key in ${target}`);
  });
  context.on("console", (message) => {
    if (message.type() === "error" && !errors.test(message.text())) faults.push(message.text());
  });
  context.on("weberror", (error) => faults.push(String(error.error())));
  await context.addInitScript(() => addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`)));
  const page = await context.newPage();
  await page.goto(`${url}/console/`);
  t.after(async () => {
    await context.close();
    assert.deepEqual(faults, []);
  });
  return page;
}

/** @param {string[]} paths @returns {Promise<{name: string, body: Buffer}[]>} */
export const read = (paths) => Promise.all(paths.map(async (path, i) => ({ name: `${i}-${path.split("/").at(-1)}`, body: await readFile(path) })));

/** Drops files on the page as a user does. @param {import("playwright-core").Page} page @param {{name: string, type?: string, body: Buffer}[]} files */
export async function drop(page, files) {
  const encoded = files.map(({ name, type = "image/jpeg", body }) => ({ name, type, body: body.toString("base64") }));
  const transfer = await page.evaluateHandle((all) => {
    const data = new DataTransfer();
    for (const { name, type, body } of all) {
      const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
      data.items.add(new File([bytes], name, { type }));
    }
    return data;
  }, encoded);
  for (const kind of ["dragenter", "dragover", "drop"]) await page.dispatchEvent("body", kind, { dataTransfer: transfer });
}

/** Waits for the results of the queue. @param {import("playwright-core").Page} page @param {number} count */
export async function done(page, count) {
  await page.locator('[data-testid=item][data-state=done]').nth(count - 1).waitFor({ timeout: RESULT_MS });
}

/** Waits until all images of the page are decoded and drawn. @param {import("playwright-core").Page} page */
export async function drawn(page) {
  await page.evaluate(async () => {
    await Promise.all([...document.images].map((image) => image.decode().catch(() => null)));
    for (let i = 0; i < 2; i++) await new Promise((frame) => requestAnimationFrame(frame));
  });
}

/** Downloads the result of the selected image. @param {import("playwright-core").Page} page */
export async function downloaded(page) {
  const [download] = await Promise.all([page.waitForEvent("download", { timeout: RESULT_MS }), page.getByTestId("download").click()]);
  return readFile(await download.path());
}

/** Size and alpha of an image, decoded by the browser. @param {import("playwright-core").Page} page @param {Buffer} png */
export function decoded(page, png) {
  return page.evaluate(async (body) => {
    const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
    const alpha = data.filter((_, i) => i % 4 === 3);
    const share = (test) => alpha.filter(test).length / alpha.length;
    return { width: bitmap.width, height: bitmap.height, opaque: share((a) => a === 255), clear: share((a) => a === 0), corner: alpha[0] };
  }, png.toString("base64"));
}
