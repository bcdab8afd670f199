/** Clicks on a subject by SAM with random weights, in Chromium. `make test-web-sam` runs it. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";

import { done, drop, launch, open, read, RESULT_MS, samples, skip } from "./page.js";
import { ROOT, Server } from "./server.js";

const TORCH = join(ROOT, ".venv-models/bin/python");
/** Interpreter with torch and transformers. */

const missing = skip || (existsSync(TORCH) ? false : `no torch at ${TORCH}; run make test-web-sam`);

test("clicks are segmented by SAM, which encodes an image once", { skip: missing, timeout: 10 * RESULT_MS }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "maskdrop-sam-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const weights = join(ROOT, ".local/weights");
  for (const name of existsSync(weights) ? await readdir(weights) : []) await symlink(join(weights, name), join(folder, name));
  const code = "import sys; from pathlib import Path; from tests.bench.random_weights import save_sam; save_sam('sam2', 'tiny', Path(sys.argv[1]))";
  await promisify(execFile)(TORCH, ["-c", code, folder], { cwd: ROOT });
  const segmenting = await Server.start({ python: TORCH, env: { MODEL_WEIGHTS_DIR: folder } });
  t.after(() => segmenting.close());
  const browser = await launch();
  t.after(() => browser.close());
  const page = await open(t, browser, segmenting.url);
  await drop(page, await read(await samples(1)));
  await done(page, 1);
  await page.getByTestId("edit").click();
  const stage = page.getByTestId("editor-stage");
  await page.getByTestId("editor-tool-point").click();
  const area = (await stage.boundingBox()) ?? assert.fail("no stage");

  /** Clicks, and returns the milliseconds to the mask and, of these, those of the request. @param {number} x @param {number} y */
  const click = async (x, y) => {
    await page.evaluate(() => {
      performance.clearResourceTimings();
      const status = /** @type {HTMLElement} */ (document.querySelector("[data-testid=editor-status]"));
      /** @type {any} */ (globalThis).shown = new Promise((resolve) => {
        addEventListener("pointerup", () => {
          const start = performance.now();
          new MutationObserver(() => /sam2|No subject/.test(status.textContent ?? "") && requestAnimationFrame(() => resolve(performance.now() - start))).observe(status, { childList: true });
        }, { once: true, capture: true });
      });
    });
    await page.mouse.click(area.x + x * area.width, area.y + y * area.height);
    return page.evaluate(async () => {
      const total = await /** @type {any} */ (globalThis).shown;
      const requests = performance.getEntriesByType("resource").filter((one) => one.name.endsWith("/v1/masks"));
      return { total, requests: requests.length, request: requests.reduce((sum, one) => sum + one.duration, 0) };
    });
  };
  const first = await click(0.5, 0.4);
  const next = [];
  for (const [x, y] of [[0.55, 0.45], [0.45, 0.5], [0.5, 0.6]]) next.push(await click(x, y));
  assert.deepEqual(next.map(({ requests }) => requests), [1, 1, 1]);
  const { total, request } = next.sort((a, b) => a.total - b.total)[1];
  const text = [first.total, total, request, total - request].map((ms) => Math.round(ms));
  t.diagnostic(`SAM 2.1 tiny: mask after the first click ${text[0]} ms, after the next ${text[1]} ms: request ${text[2]} ms, browser ${text[3]} ms`);
  assert.ok(total < first.total / 2, "the next click is not encoded again");
});
