/**
 * How every view looks at the widths of a phone, a tablet and a desktop, light and dark. Screenshots are kept in reports/web/.
 * tests/web/views.js has the comparison; `make screenshots` records the coarse images again.
 */

import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { done, drawn, drop, launch, open, REPORTS, RESULT_MS, skip } from "./page.js";
import { ROOT, Server } from "./server.js";
import { Baseline, coarse, layoutFaults } from "./views.js";

const WIDTHS = [390, 768, 1440];
const VIEWS = ["detect", "review", "history", "usage", "settings"];
const FOLDER = join(REPORTS, "views");

/** @type {Server} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;
/** @type {Baseline} */
let baseline;

before(async () => {
  if (skip) return;
  await mkdir(FOLDER, { recursive: true });
  [server, browser, baseline] = await Promise.all([Server.start(), launch(), Baseline.load()]);
});

after(async () => {
  await browser?.close();
  await server?.close();
});

/** @param {"light" | "dark"} scheme */
const context = (scheme) => ({ colorScheme: scheme, reducedMotion: /** @type {const} */ ("reduce") });

/**
 * Compares the page at all widths. @param {import("playwright-core").Page} page @param {string} place @param {string} scheme
 * @param {Baseline} against
 */
async function faults(page, place, scheme, against) {
  const found = [];
  for (const width of WIDTHS) {
    const name = `${place}-${width}-${scheme}`;
    await page.setViewportSize({ width, height: 900 });
    await page.evaluate(() => scrollTo(0, 0));
    await drawn(page);
    const png = await page.screenshot();
    if (against === baseline) await writeFile(join(FOLDER, `${name}.png`), png);
    found.push(...(await layoutFaults(page)).map((fault) => `${name}: ${fault}`), ...against.compare(name, await coarse(page, png)));
  }
  return found;
}

const photo = () => readFile(join(ROOT, "samples/default/astronaut.png"));

/** Puts one cut-out into the queue. @param {import("playwright-core").Page} page */
async function cutOut(page) {
  await drop(page, [{ name: "astronaut.png", type: "image/png", body: await photo() }]);
  await done(page, 1);
  await page.locator("[data-testid=download]:enabled").waitFor();
}

for (const scheme of /** @type {const} */ (["light", "dark"])) {
  test(`every view fits and looks as before, ${scheme}`, { skip, timeout: 3 * RESULT_MS }, async (t) => {
    const page = await open(t, browser, server.url, { context: context(scheme) });
    await page.getByTestId("drop").waitFor();
    const found = await faults(page, "welcome", scheme, baseline);
    await cutOut(page);
    found.push(...(await faults(page, "studio", scheme, baseline)));
    await page.getByTestId("edit").click();
    await page.getByTestId("editor-stage").waitFor();
    found.push(...(await faults(page, "editor", scheme, baseline)));
    for (const view of VIEWS) {
      await page.goto(`${server.url}/console/#${view}`);
      await page.locator(`main[data-view=${view}]`).getByRole("heading", { level: 1 }).waitFor();
      await page.waitForLoadState("networkidle");
      found.push(...(await faults(page, view, scheme, baseline)));
    }
    await baseline.save();
    assert.deepEqual(found, []);
  });
}

/** What a stylesheet is after a fault, by its description. @type {Record<string, (css: string) => string>} */
const BROKEN = {
  "an empty stylesheet": () => "",
  "a stylesheet cut in half": (css) => css.slice(0, css.length / 2),
  "a studio without columns": (css) => `${css} .studio { display: block !important } .stage, .side { position: absolute; top: 80px; left: 0; width: 100% }`,
  "a page that is too wide": (css) => `${css} main { min-width: 1600px }`,
  "a view that is not shown": (css) => `${css} main { opacity: 0 }`,
};

/** Differences between machines. @type {Record<string, string>} */
const HARMLESS = {
  "a wide font": "body { font-family: 'DejaVu Sans Mono', monospace !important; letter-spacing: 0.02em }",
  "a serif font": "body { font-family: 'DejaVu Serif', serif !important }",
  "smaller text": "body { font-size: 14px !important }",
};

/** Opens the studio with another stylesheet, and returns its faults. @param {import("node:test").TestContext} t @param {(css: string) => string} change */
async function withStylesheet(t, change) {
  const page = await open(t, browser, server.url, { context: context("light") });
  await page.route("**/css/app.css", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: change(await response.text()) });
  });
  await page.reload();
  const recorded = await Baseline.load({ write: false });
  await cutOut(page);
  return faults(page, "studio", "light", recorded);
}

for (const [fault, change] of Object.entries(BROKEN)) {
  test(`the comparison finds ${fault}`, { skip, timeout: 2 * RESULT_MS }, async (t) => {
    const found = await withStylesheet(t, change);
    t.diagnostic(found.join("; ").slice(0, 400));
    assert.notDeepEqual(found, []);
  });
}

for (const [difference, css] of Object.entries(HARMLESS)) {
  test(`the comparison allows ${difference}`, { skip, timeout: 2 * RESULT_MS }, async (t) => {
    assert.deepEqual(await withStylesheet(t, (all) => `${all}\n${css}`), []);
  });
}
