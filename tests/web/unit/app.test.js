import assert from "node:assert/strict";
import { test } from "node:test";

import { ApiError } from "../../../web/js/api.js";
import { App } from "../../../web/js/app.js";

const FACTS = { engine: "auto", width: 1, height: 1, subject: null, warnings: [], timings: {} };
const key = () => new ApiError(403, { code: "auth_failed", message: "revoked", retryable: false });

/** An app whose API returns a cut-out for each call and has the lists of a server. */
function appOf(overrides = {}) {
  const calls = [];
  const api = {
    cutout: async (source, options, { path = "/v1/cutouts" } = {}) => {
      calls.push({ path, options });
      return { blob: new Blob([JSON.stringify(options)]), facts: FACTS };
    },
    engines: async () => [],
    presets: async () => [],
    openapi: async () => ({}),
    health: async () => ({}),
    ...overrides,
  };
  const settings = { key: "k", setKey() {}, get: () => "" };
  return { app: new App(settings, { api }), calls };
}

async function added(app) {
  const [item] = app.queue.add([{ name: "a.jpg", file: new Blob(["x"]) }]);
  while (app.queue.busy) await new Promise(setImmediate);
  return item;
}

test("the finished image of a plain design is the cut-out", async () => {
  const { app, calls } = appOf();
  const item = await added(app);
  assert.equal((await app.finish(item)).blob, item.result);
  assert.equal(calls.length, 1);
});

test("a design is rendered once, and again for another result of the item", async () => {
  const { app, calls } = appOf();
  const item = await added(app);
  app.change({ background: "colour" });
  const first = await app.finish(item);
  assert.equal(await app.finish(item), first);
  item.revision += 1;
  assert.notEqual(await app.finish(item), first);
  assert.equal(calls.length, 3);
});

test("only the last finished images of an item are kept", async () => {
  const { app, calls } = appOf();
  const item = await added(app);
  for (const opacity of [10, 20, 30, 40, 50]) {
    app.change({ shadow: "drop", opacity });
    await app.finish(item);
  }
  assert.equal(app.finished.get(item).size, 3);
  app.change({ opacity: 50 });
  await app.finish(item);
  assert.equal(calls.length, 6);
});

test("a render that failed is tried again", async () => {
  let fail = true;
  const { app } = appOf();
  const item = await added(app);
  const { cutout } = app.api;
  app.api.cutout = async (...call) => {
    if (fail) throw new ApiError(503, { code: "queue_full", message: "full", retryable: true });
    return cutout(...call);
  };
  app.change({ format: "webp" });
  await assert.rejects(app.finish(item));
  fail = false;
  assert.ok((await app.finish(item)).blob);
});

test("a revoked key shows in the status, and another key continues the queue", async () => {
  let revoked = true;
  const { app } = appOf({
    engines: async () => {
      if (revoked) throw key();
      return [];
    },
    cutout: async () => {
      if (revoked) throw key();
      return { blob: new Blob(["png"]), facts: FACTS };
    },
  });
  await app.load();
  assert.equal(app.status, "key");
  const [item] = app.queue.add([{ name: "a.jpg", file: new Blob(["x"]) }]);
  while (!app.queue.hold) await new Promise(setImmediate);
  await app.useKey("other", false);
  assert.equal(item.state, "waiting", "the other key is revoked, too");
  revoked = false;
  await app.useKey("valid", false);
  while (app.queue.busy) await new Promise(setImmediate);
  assert.deepEqual([app.status, item.state], ["", "done"]);
});

test("a change ends the preset, and keeps its values", () => {
  const { app } = appOf();
  app.change({ preset: "product", canvas: "1:1" });
  app.change({ shadow: "drop" });
  assert.deepEqual([app.design.preset, app.design.canvas, app.design.shadow], ["", "1:1", "drop"]);
});

test("a server that cannot be reached is tried until its lists are there, without an image in the queue", async () => {
  let tries = 0;
  const lost = () => new ApiError(0, { code: "network", message: "lost", retryable: true });
  const { app } = appOf({
    engines: async () => {
      if (tries < 1) throw lost();
      return [{ name: "auto" }];
    },
    health: async () => {
      tries += 1;
    },
  });
  app.queue.wait = async () => {};
  await app.load();
  assert.equal(app.status, "offline");
  while (app.queue.hold) await new Promise(setImmediate);
  assert.deepEqual([app.status, app.engines.length], ["", 1]);
});

test("lists that the server could not read are requested again", async () => {
  let tries = 0;
  const { app } = appOf({
    presets: async () => {
      tries += 1;
      if (tries < 3) throw new ApiError(500, { code: "http_500", message: "broken", retryable: true });
      return [];
    },
  });
  app.queue.wait = async () => {};
  await app.load();
  while (app.status) await new Promise(setImmediate);
  assert.deepEqual([tries, app.later], [3, false]);
});
