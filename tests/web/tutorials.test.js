/**
 * The tutorials of docs/tutorials/: their commands run in order, and their screenshots are made at the places where the pages
 * show them. `make test-web` runs it; `make screenshots` also writes the screenshots to docs/images/console/.
 */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

import { decoded, done, downloaded, drawn, drop, launch, open, read, REPORTS, RESULT_MS, samples, skip } from "./page.js";
import { freePort, ROOT } from "./server.js";
import { Shell, steps } from "./tutorial.js";

const run = promisify(execFile);

const PYTHON = process.env.MASKDROP_PYTHON ?? join(ROOT, ".venv/bin/python");
const TORCH = process.env.MASKDROP_TORCH ?? join(ROOT, ".venv-models/bin/python");

const FOLDER = join(REPORTS, "tutorials");
const VIEW = { viewport: { width: 1360, height: 800 }, colorScheme: /** @type {const} */ ("light"), reducedMotion: /** @type {const} */ ("reduce") };
const TUTORIAL_MS = 600_000;

/** Reduces a PNG to 128 colours: half its size, without a visible difference. */
const REDUCE = "import sys; from PIL import Image; Image.open(sys.argv[1]).convert('RGB').quantize(128).save(sys.argv[2], optimize=True)";

/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  if (skip) return;
  await mkdir(FOLDER, { recursive: true });
  browser = await launch();
});

after(() => browser?.close());

/** Keeps an image of a tutorial as an artefact, and writes it to docs/images/console/ on request. @param {string} name @param {Buffer} png */
async function keep(name, png) {
  const file = join(FOLDER, `${name}.png`);
  await writeFile(file, png);
  if (process.env.SCREENSHOTS) await run(PYTHON, ["-c", REDUCE, file, join(ROOT, "docs/images/console", `${name}.png`)]);
}

/**
 * Runs a tutorial. @param {string} name @param {Shell} shell
 * @param {Record<string, () => Promise<Buffer>>} images Makes the image of each name.
 */
async function follow(name, shell, images) {
  const made = /** @type {string[]} */ ([]);
  for (const step of await steps(name)) {
    if (step.image) {
      await keep(step.image, await (images[step.image] ?? assert.fail(`no screenshot ${step.image}`))());
      made.push(step.image);
    } else await shell.run(step);
  }
  assert.deepEqual(made.sort(), Object.keys(images).sort());
}

/** @param {import("node:test").TestContext} t @param {Parameters<typeof Shell.start>[0]} options */
async function shellFor(t, options) {
  const shell = await Shell.start(options);
  t.after(() => shell.close());
  return shell;
}

/** A screenshot of the page from its top. @param {import("playwright-core").Page} page */
async function shot(page) {
  await page.evaluate(() => {
    for (const part of document.querySelectorAll("html, aside")) part.scrollTop = 0;
  });
  await drawn(page);
  return page.screenshot();
}

/** Enters a key in the view Settings. @param {import("playwright-core").Page} page @param {string} key */
async function useKey(page, key) {
  await page.goto(`${page.url().split("#")[0]}#settings`);
  await page.getByTestId("key").fill(key);
  await page.getByTestId("save-key").click();
  await page.locator(".good").waitFor();
}

/** @param {import("playwright-core").Page} page @param {string} view */
async function show(page, view) {
  await page.goto(`${page.url().split("#")[0]}#${view}`);
  await page.locator(`main[data-view=${view}]`).getByRole("heading", { level: 1 }).waitFor();
  await page.waitForLoadState("networkidle");
}

/** Loads a file that a command wrote, and takes a screenshot. @param {string} file @param {import("playwright-core").PageScreenshotOptions} [options] */
async function report(file, options) {
  const context = await browser.newContext(VIEW);
  try {
    const page = await context.newPage();
    await page.goto(`file://${file}`, { waitUntil: "networkidle" });
    return await page.screenshot(options);
  } finally {
    await context.close();
  }
}

test("drop folder: the local stack cuts out the photos of a folder, and five photos dropped on its console", { skip, timeout: TUTORIAL_MS }, async (t) => {
  const [aws, sagemaker, model] = [await freePort(), await freePort(), await freePort()].map(String);
  const ports = { MASKDROP_LOCAL_AWS_PORT: aws, MASKDROP_LOCAL_SAGEMAKER_PORT: sagemaker, MASKDROP_LOCAL_MODEL_PORT: model };
  const shell = await shellFor(t, { python: PYTHON, env: ports, ports: { 8085: sagemaker } });
  t.after(() => run(PYTHON, ["-m", "cli", "down"], { cwd: ROOT, env: { ...process.env, ...ports, PYTHONPATH: ROOT, MASKDROP_LOCAL_DIR: shell.folder } }));
  /** @type {import("playwright-core").Page} */
  let page;
  await follow("drop-folder", shell, {
    "drop-folder-history": async () => {
      page = await open(t, browser, `http://127.0.0.1:${sagemaker}`, { context: VIEW, errors: /status of 40[13]/ });
      await useKey(page, JSON.parse(await readFile(join(shell.folder, "stack.json"), "utf8")).api_key);
      await show(page, "history");
      assert.equal(await page.getByTestId("job").count(), 2);
      return page.screenshot({ clip: { x: 0, y: 0, width: 1360, height: 480 } });
    },
    "drop-folder-studio": async () => {
      await show(page, "studio");
      await drop(page, await read(await samples(5)));
      await done(page, 5);
      assert.equal(await page.getByTestId("item").count(), 5);
      const cutOut = await decoded(page, await downloaded(page));
      assert.ok(cutOut.opaque > 0.02 && cutOut.clear > 0.02, `a cut-out has both: ${JSON.stringify(cutOut)}`);
      await page.getByTestId("item").first().click();
      await page.locator("[data-testid=download]:enabled").waitFor();
      return shot(page);
    },
  });
});

test("replace remove.bg: one line changes, and the code works with the server", { skip, timeout: TUTORIAL_MS }, async (t) => {
  const port = String(await freePort());
  const shell = await shellFor(t, { python: PYTHON, env: { SERVE_PORT: port }, ports: { 8080: port } });
  await follow("replace-removebg", shell, {
    "replace-removebg-report": () => report(join(shell.folder, "comparison/report.html")),
    "replace-removebg-studio": async () => {
      const page = await open(t, browser, `http://127.0.0.1:${port}`, { context: VIEW, errors: /status of 40[13]/ });
      const [key = ""] = /maskdrop_\S+/.exec(await readFile(join(shell.folder, "key.txt"), "utf8")) ?? [];
      await useKey(page, key);
      await show(page, "studio");
      await drop(page, [{ name: "coffee.png", type: "image/png", body: await readFile(join(ROOT, "samples/object/coffee.png")) }]);
      await done(page, 1);
      await page.getByTestId("design-background-colour").check({ force: true });
      await page.getByTestId("design-canvas").selectOption("custom");
      await page.getByTestId("design-width").fill("1000");
      await page.getByTestId("design-height").fill("1000");
      await page.getByTestId("design-height").blur();
      const placed = await decoded(page, await downloaded(page));
      assert.deepEqual([placed.width, placed.height, placed.opaque], [1000, 1000, 1]);
      return shot(page);
    },
  });
});

test("click to segment: a box and a point select the subject, in the console and by the API", { skip, timeout: TUTORIAL_MS }, async (t) => {
  const port = String(await freePort());
  const shell = await shellFor(t, { python: PYTHON, env: { SERVE_PORT: port }, ports: { 8080: port } });
  /**
   * Opens a photo in the editor, and returns the pixel of the screen for a pixel of the photo.
   * @param {import("playwright-core").Page} page @param {string} name @param {number} width @param {number} height
   */
  const edit = async (page, name, width, height) => {
    await drop(page, [{ name: name.split("/").at(-1) ?? name, type: "image/png", body: await readFile(join(ROOT, "samples", name)) }]);
    await done(page, 1);
    await page.getByTestId("edit").click();
    const stage = page.getByTestId("editor-stage");
    await stage.waitFor();
    const area = (await stage.boundingBox()) ?? assert.fail("no stage");
    const scale = Math.min(area.width / width, area.height / height);
    const [left, top] = [area.x + (area.width - scale * width) / 2, area.y + (area.height - scale * height) / 2];
    return (/** @type {number} */ x, /** @type {number} */ y) => /** @type {[number, number]} */ ([left + scale * x, top + scale * y]);
  };
  const masked = (/** @type {import("playwright-core").Page} */ page) => page.getByTestId("editor-status").getByText(/covers/).waitFor({ timeout: RESULT_MS });
  await follow("click-to-segment", shell, {
    "click-to-segment-box": async () => {
      const page = await open(t, browser, `http://127.0.0.1:${port}`, { context: VIEW });
      const at = await edit(page, "object/coffee.png", 600, 400);
      await page.getByTestId("editor-tool-box").click();
      await page.mouse.move(...at(160, 10));
      await page.mouse.down();
      await page.mouse.move(...at(430, 300), { steps: 8 });
      await page.mouse.up();
      await masked(page);
      return shot(page);
    },
    "click-to-segment-point": async () => {
      const page = await open(t, browser, `http://127.0.0.1:${port}`, { context: VIEW });
      const at = await edit(page, "default/astronaut.png", 512, 512);
      await page.getByTestId("editor-tool-point").click();
      await page.mouse.click(...at(220, 150));
      await masked(page);
      return shot(page);
    },
  });
  for (const name of ["cup", "person", "without-face", "erased"]) assert.ok(existsSync(join(shell.folder, "out", `${name}.png`)), name);
});

test("train your own: a network learns a cup, and is promoted", { skip: skip || (existsSync(TORCH) ? false : "no .venv-models; make test-models makes it"), timeout: TUTORIAL_MS }, async (t) => {
  const shell = await shellFor(t, { python: TORCH });
  await follow("train-your-own", shell, {
    "train-your-own-curves": () => readFile(join(shell.folder, "cups/run/curves.png")),
    "train-your-own-report": () => report(join(shell.folder, "cups/report/report.html")),
  });
});
