/** The console in Chromium, against `maskdrop serve`. `make test-web` runs it. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { freePort, ROOT, Server } from "./server.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const REPORTS = join(ROOT, "reports", "web");

const SCRIPT_BYTES = 150_000;
/** Own script of the first page, before compression. */

const FIRST_PAINT_MS = 1000;

const RESULT_MS = 60_000;
/** One result on a slow machine. */

const skip = existsSync(CHROMIUM) ? false : `no Chromium at ${CHROMIUM}; set CHROMIUM`;

/** @type {Server} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;
/** @type {string[]} */
let photos;

before(async () => {
  if (skip) return;
  await mkdir(REPORTS, { recursive: true });
  photos = await samples(5);
  [server, browser] = await Promise.all([Server.start(), chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] })]);
});

after(async () => {
  await browser?.close();
  await server?.close();
});

/** @param {number} count @returns {Promise<string[]>} Paths of photos in samples/, repeated if there are fewer. */
async function samples(count) {
  const files = await readdir(join(ROOT, "samples"), { recursive: true });
  const images = files.filter((file) => /\.(jpe?g|png|webp)$/i.test(file)).sort();
  return Array.from({ length: count }, (_, i) => join(ROOT, "samples", images[i % images.length]));
}

/**
 * Opens the console in a context of its own, and records what it must not do: other origins, violations, errors.
 * @param {import("node:test").TestContext} t
 * @param {{url?: string, errors?: RegExp, context?: import("playwright-core").BrowserContextOptions}} [options]
 *   errors: messages in the browser's console that the test causes.
 */
async function open(t, { url = server.url, errors = /^$/, context: options = {} } = {}) {
  const context = await browser.newContext({ locale: "en-GB", viewport: { width: 1440, height: 900 }, acceptDownloads: true, ...options });
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

/** Drops files on the page as a user does. @param {import("playwright-core").Page} page @param {{name: string, type?: string, body: Buffer}[]} files */
async function drop(page, files) {
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

/** @param {string[]} paths */
const read = (paths) => Promise.all(paths.map(async (path, i) => ({ name: `${i}-${path.split("/").at(-1)}`, body: await readFile(path) })));

/** @param {import("playwright-core").Page} page @param {number} count */
async function done(page, count) {
  await page.locator('[data-testid=item][data-state=done]').nth(count - 1).waitFor({ timeout: RESULT_MS });
}

/** Size and alpha of a PNG, decoded by the browser. @param {import("playwright-core").Page} page @param {Buffer} png */
function decoded(page, png) {
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

/** @param {import("playwright-core").Page} page */
async function downloaded(page) {
  const [download] = await Promise.all([page.waitForEvent("download", { timeout: RESULT_MS }), page.getByTestId("download").click()]);
  return readFile(await download.path());
}

test("five photos are cut out, compared, placed on a canvas and downloaded", { skip, timeout: 5 * RESULT_MS }, async (t) => {
  const page = await open(t);
  await drop(page, await read(photos));
  await done(page, 5);
  assert.equal(await page.getByTestId("item").count(), 5);

  const slider = page.getByTestId("compare-slider");
  const earlier = await slider.inputValue();
  await slider.focus();
  await page.keyboard.press("ArrowLeft");
  assert.notEqual(await slider.inputValue(), earlier);
  await page.screenshot({ path: join(REPORTS, "compare.png") });

  const cutOut = await decoded(page, await downloaded(page));
  assert.ok(cutOut.opaque > 0.02 && cutOut.clear > 0.02, `a cut-out has both: ${JSON.stringify(cutOut)}`);

  await page.getByTestId("design-background-colour").check({ force: true });
  await page.getByTestId("design-canvas").selectOption("custom");
  await page.getByTestId("design-width").fill("1000");
  await page.getByTestId("design-height").fill("1000");
  await page.getByTestId("design-height").blur();
  const placed = await decoded(page, await downloaded(page));
  assert.deepEqual([placed.width, placed.height, placed.opaque], [1000, 1000, 1]);

  await page.getByTestId("design-background-none").check({ force: true });
  const clear = await decoded(page, await downloaded(page));
  assert.deepEqual([clear.width, clear.height], [1000, 1000]);
  assert.ok(clear.opaque > 0.02 && clear.clear > 0.02, JSON.stringify(clear));
});

test("a box selects the subject, the brush erases, undo restores, and the result follows", { skip, timeout: 3 * RESULT_MS }, async (t) => {
  const page = await open(t);
  const [photo] = await read([photos[0]]);
  await drop(page, [photo]);
  await done(page, 1);
  const earlier = await decoded(page, await downloaded(page));
  await page.getByTestId("edit").click();
  const stage = page.getByTestId("editor-stage");
  await stage.waitFor();
  const area = (await stage.boundingBox()) ?? assert.fail("no stage");
  /** Draws a line between two points, as shares of the stage. @param {number[]} points */
  const draw = async ([x0, y0, x1, y1]) => {
    await page.mouse.move(area.x + x0 * area.width, area.y + y0 * area.height);
    await page.mouse.down();
    await page.mouse.move(area.x + x1 * area.width, area.y + y1 * area.height, { steps: 8 });
    await page.mouse.up();
  };

  await page.getByTestId("editor-tool-erase").click();
  const undo = page.getByTestId("editor-undo");
  assert.ok(await undo.isDisabled());
  await draw([0.4, 0.5, 0.6, 0.5]);
  await draw([0.4, 0.6, 0.6, 0.6]);
  await undo.click();
  assert.ok(await undo.isEnabled(), "one stroke is left");
  await page.screenshot({ path: join(REPORTS, "editor.png") });
  await page.getByTestId("editor-apply").click();
  await done(page, 1);
  const erased = await decoded(page, await downloaded(page));
  assert.ok(erased.opaque < earlier.opaque, `${erased.opaque} of ${earlier.opaque}`);

  await page.getByTestId("edit").click();
  await stage.waitFor();
  await page.getByTestId("editor-tool-box").click();
  await draw([0.3, 0.2, 0.7, 0.8]);
  await page.getByTestId("editor-prompt").first().waitFor({ timeout: RESULT_MS });
  await page.getByTestId("editor-apply").click();
  await done(page, 1);
  const boxed = await decoded(page, await downloaded(page));
  assert.notDeepEqual(boxed, erased);
});

test("the keyboard alone cuts out, compares, changes the background and downloads", { skip, timeout: 3 * RESULT_MS }, async (t) => {
  const page = await open(t);
  /** Moves the focus with Tab to the element that matches. @param {string} selector */
  const reach = async (selector) => {
    for (let i = 0; i < 80; i++) {
      await page.keyboard.press("Tab");
      if (await page.evaluate((wanted) => document.activeElement?.matches(wanted), selector)) return;
    }
    assert.fail(`Tab does not reach ${selector}`);
  };
  await reach("[data-testid=drop] button");
  const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.keyboard.press("Enter")]);
  await chooser.setFiles(photos[0]);
  await done(page, 1);
  await reach("[data-testid=compare-slider]");
  const earlier = await page.getByTestId("compare-slider").inputValue();
  await page.keyboard.press("ArrowRight");
  assert.notEqual(await page.getByTestId("compare-slider").inputValue(), earlier);
  await reach("[data-testid=edit]");
  await reach("[data-testid=download]");
  await reach("[data-testid^=design-background-]");
  await page.keyboard.press("ArrowRight");
  assert.ok(await page.getByTestId("design-background-colour").isChecked());
  await page.locator("[data-testid=download]:enabled").focus();
  const [download] = await Promise.all([page.waitForEvent("download", { timeout: RESULT_MS }), page.keyboard.press("Enter")]);
  assert.equal((await decoded(page, await readFile(await download.path()))).opaque, 1);
});

test("a preview is shown before the result of the server", { skip: skip || (existsSync(join(ROOT, "web/vendor/portrait.onnx")) ? false : "no preview; run make preview"), timeout: RESULT_MS }, async (t) => {
  const page = await open(t, { errors: /ERR_FAILED/ });
  const [photo] = await read([photos[0]]);
  const found = await page.evaluate(async (body) => {
    const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
    const { preview } = await import("./js/preview.js");
    const { warm } = await import("./js/preview.js");
    await warm(); // as soon as files are above the page, or the button of the chooser has the focus
    const start = performance.now();
    const found = await preview(new Blob([bytes], { type: "image/png" }));
    const ms = performance.now() - start;
    if (!found) throw new Error("no preview");
    const { width, height } = await createImageBitmap(found);
    return { ms, width, height };
  }, photo.body.toString("base64"));
  t.diagnostic(`preview: ${Math.round(found.ms)} ms`);
  assert.deepEqual([found.width, found.height], [256, 256]);
});

test("a file that is not an image shows its reason", { skip, timeout: RESULT_MS }, async (t) => {
  const page = await open(t, { errors: /status of 4(15|22|00)/ });
  await drop(page, [{ name: "notes.jpg", body: Buffer.from("not an image") }]);
  const row = page.locator("[data-testid=item][data-state=failed]");
  await row.waitFor({ timeout: RESULT_MS });
  assert.match(await row.getByTestId("item-state").innerText(), /image|format|decode/i);
});

test("markup in the name of a file is shown as text", { skip, timeout: 2 * RESULT_MS }, async (t) => {
  const page = await open(t);
  const name = '<img src=x onerror="document.title=1"><b>bold.jpg';
  await drop(page, [{ name, body: await readFile(photos[0]) }]);
  await done(page, 1);
  assert.ok((await page.getByTestId("item").innerText()).includes(name));
  assert.equal(await page.locator("b").count(), 0);
  assert.equal(await page.title(), "Maskdrop");
});

test("a lost connection is shown, and the queue continues when it is back", { skip, timeout: 3 * RESULT_MS }, async (t) => {
  const page = await open(t, { errors: /ERR_INTERNET_DISCONNECTED|ERR_FAILED/ });
  await page.getByTestId("drop").waitFor();
  await page.context().setOffline(true);
  await drop(page, [{ name: "a.jpg", body: await readFile(photos[0]) }]);
  await page.getByTestId("offline").waitFor({ timeout: RESULT_MS });
  await page.context().setOffline(false);
  await done(page, 1);
  await page.getByTestId("offline").waitFor({ state: "hidden", timeout: RESULT_MS });
});

test("two tabs have their own queues", { skip, timeout: 2 * RESULT_MS }, async (t) => {
  const first = await open(t);
  const second = await first.context().newPage();
  await second.goto(`${server.url}/console/`);
  await drop(first, [{ name: "one.jpg", body: await readFile(photos[0]) }]);
  await done(first, 1);
  assert.equal(await second.getByTestId("item").count(), 0);
  await second.getByTestId("drop").waitFor();
});

test("an error message names a revoked key", { skip, timeout: 4 * RESULT_MS }, async (t) => {
  const port = await freePort();
  const locked = await Server.start({ keys: true, port });
  const [key] = /maskdrop_\S+/.exec(await locked.key("create", "web")) ?? assert.fail("no key");
  t.after(() => locked.close()); // first: a failed check of the page would leave the server running
  const page = await open(t, { url: locked.url, errors: /status of 403|ERR_CONNECTION/ });
  await page.goto(`${locked.url}/console/#settings`);
  await page.getByTestId("key").fill(key);
  await page.getByTestId("save-key").click();
  await page.goto(`${locked.url}/console/#studio`);
  await drop(page, [{ name: "a.jpg", body: await readFile(photos[0]) }]);
  await done(page, 1);
  assert.equal(await page.evaluate(() => localStorage.length), 0, "the key is kept for the session alone");
  assert.ok(!page.url().includes(key));

  const id = /\b[0-9a-f]{10}\b/.exec(await locked.key("list"))?.[0] ?? assert.fail("no id");
  await locked.key("revoke", id);
  await drop(page, [{ name: "b.jpg", body: await readFile(photos[1]) }]);
  await page.getByTestId("key-notice").waitFor({ timeout: RESULT_MS });
});

test("a German browser shows German texts and numbers", { skip, timeout: RESULT_MS }, async (t) => {
  const page = await open(t, { context: { locale: "de-DE" } });
  await page.getByTestId("drop").waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.lang), "de");
  await page.goto(`${server.url}/console/#settings`);
  await page.getByRole("heading", { level: 1, name: "Einstellungen" }).waitFor();
});

test("the brush follows the pointer on a photo of 12 megapixels", { skip, timeout: 4 * RESULT_MS }, async (t) => {
  const page = await open(t);
  const large = await page.evaluate(async () => {
    const canvas = new OffscreenCanvas(4000, 3000);
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.fillStyle = "#9ab";
    context.fillRect(0, 0, 4000, 3000);
    context.fillStyle = "#a52";
    context.beginPath();
    context.arc(2000, 1500, 1000, 0, 7);
    context.fill();
    const bytes = new Uint8Array(await (await canvas.convertToBlob({ type: "image/jpeg" })).arrayBuffer());
    return [...bytes];
  });
  await drop(page, [{ name: "large.jpg", body: Buffer.from(large) }]);
  await done(page, 1);
  await page.getByTestId("edit").click();
  const stage = page.getByTestId("editor-stage");
  await stage.waitFor();
  await page.getByTestId("editor-tool-erase").click();
  const area = (await stage.boundingBox()) ?? assert.fail("no stage");
  await page.evaluate(() => {
    const frames = /** @type {number[]} */ ([]);
    const frame = (/** @type {number} */ now) => {
      frames.push(now);
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    Object.assign(globalThis, { frames });
  });
  await page.mouse.move(area.x + 0.3 * area.width, area.y + 0.4 * area.height);
  await page.mouse.down();
  for (let i = 0; i < 120; i++) await page.mouse.move(area.x + (0.3 + 0.003 * i) * area.width, area.y + (0.4 + 0.1 * Math.sin(i / 6)) * area.height);
  await page.mouse.up();
  const gaps = await page.evaluate(() => /** @type {any} */ (globalThis).frames.map((now, i, all) => now - all[i - 1]).slice(1));
  const sorted = gaps.sort((a, b) => a - b);
  const at = (/** @type {number} */ share) => sorted[Math.floor(share * (sorted.length - 1))].toFixed(1);
  t.diagnostic(`${sorted.length} frames while brushing; ms between two: median ${at(0.5)}, 95 % ${at(0.95)}, most ${at(1)}`);
  assert.ok(await page.getByTestId("editor-undo").isEnabled());
});

for (const scheme of /** @type {const} */ (["light", "dark"])) {
  test(`no serious finding of axe, ${scheme}`, { skip, timeout: 3 * RESULT_MS }, async (t) => {
    const source = await readFile(join(import.meta.dirname, "node_modules/axe-core/axe.min.js"), "utf8");
    const page = await open(t, { context: { colorScheme: scheme, reducedMotion: "reduce" } });
    const found = /** @type {string[]} */ ([]);
    const check = async (/** @type {string} */ place) => {
      await page.evaluate(source); // by the debugger: the page's policy allows no other script
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      for (const { id, impact, nodes } of violations) {
        if (impact === "serious" || impact === "critical") found.push(`${place}: ${id}: ${nodes.map((node) => node.target).join(", ")}`);
      }
      for (const width of [390, 768, 1440]) {
        await page.setViewportSize({ width, height: 900 });
        await page.screenshot({ path: join(REPORTS, `${place}-${width}-${scheme}.png`) });
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        if (overflow > 0) found.push(`${place}: ${overflow} px too wide at ${width} px`);
      }
    };
    await check("welcome");
    await drop(page, [{ name: "a.jpg", body: await readFile(photos[0]) }]);
    await done(page, 1);
    await check("studio");
    for (const view of ["detect", "review", "history", "usage", "settings"]) {
      await page.goto(`${server.url}/console/#${view}`);
      await page.waitForLoadState("networkidle");
      await check(view);
    }
    assert.deepEqual(found, []);
  });
}

test("the first page is small and fast", { skip, timeout: RESULT_MS }, async (t) => {
  const page = await open(t);
  await page.getByTestId("drop").waitFor();
  const { script, paint } = await page.evaluate(() => ({
    script: performance.getEntriesByType("resource").filter((one) => one.name.endsWith(".js")).reduce((sum, one) => sum + one.decodedBodySize, 0),
    paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime,
  }));
  t.diagnostic(`own script ${script} bytes, first contentful paint ${Math.round(paint)} ms`);
  await writeFile(join(REPORTS, "budgets.json"), JSON.stringify({ script, paint }));
  assert.ok(script > 0 && script <= SCRIPT_BYTES, `${script} bytes`);
  assert.ok(paint <= FIRST_PAINT_MS, `${paint} ms`);
});
