import assert from "node:assert/strict";
import { test } from "node:test";

import { ApiError } from "../../../web/js/api.js";
import { backoff, CONCURRENCY, Queue } from "../../../web/js/queue.js";

const CUTOUT = {
  blob: new Blob(["x"]),
  facts: { engine: "auto", width: 1, height: 1, subject: null, warnings: [], timings: {} },
};
const error = (status, code, retryable) => new ApiError(status, { code, message: code, retryable });
const offline = () => error(0, "network", true);
const sources = (count) =>
  Array.from({ length: count }, (_, index) => ({ name: `${index}.jpg`, file: new Blob([""]) }));

/** A queue whose `process` takes its results from a list of functions; `idle` resolves when nothing is in progress. */
function queueOf(process, reach = async () => {}) {
  const waits = [];
  const queue = new Queue({ process, reach, wait: async (ms) => void waits.push(ms) });
  const until = (condition) =>
    new Promise((resolve) => {
      const check = () => condition() && resolve();
      queue.addEventListener("change", check);
      check();
    });
  return { queue, waits, until, idle: () => until(() => !queue.busy) };
}

test("every image ends, at most CONCURRENCY at a time", async () => {
  let now = 0;
  let most = 0;
  const { queue, idle } = queueOf(async () => {
    most = Math.max(most, (now += 1));
    await new Promise(setImmediate);
    now -= 1;
    return CUTOUT;
  });
  queue.add(sources(7));
  await idle();
  assert.equal(queue.counts.done, 7);
  assert.equal(most, CONCURRENCY);
});

test("a bad file keeps its reason and does not stop the others", async () => {
  const { queue, idle } = queueOf(async (item) => {
    if (item.name === "1.jpg") throw error(415, "unsupported_format", false);
    return CUTOUT;
  });
  queue.add(sources(3));
  await idle();
  assert.deepEqual(
    queue.items.map(({ state }) => state),
    ["done", "failed", "done"],
  );
  assert.equal(queue.items[1].error.code, "unsupported_format");
});

test("a retryable error is retried after Retry-After, at most 4 attempts", async () => {
  const { queue, idle, waits } = queueOf(async () => {
    throw new ApiError(503, { code: "queue_full", message: "full", retryable: true }, 3);
  });
  queue.add(sources(1));
  await idle();
  assert.deepEqual(waits, [3000, 3000, 3000]);
  assert.equal(queue.items[0].state, "failed");
});

test("a lost connection holds the queue until the server can be reached", async () => {
  let connected = false;
  let tries = 0;
  const holds = new Set();
  const { queue, idle } = queueOf(
    async () => {
      if (!connected) throw offline();
      return CUTOUT;
    },
    async () => {
      tries += 1;
      if (tries < 3) throw offline();
      connected = true;
    },
  );
  queue.addEventListener("change", () => holds.add(queue.hold));
  queue.add(sources(3));
  await idle();
  assert.equal(queue.counts.done, 3);
  assert.equal(tries, 3);
  assert.ok(holds.has("offline"));
  assert.equal(queue.hold, "");
});

test("a revoked key holds the queue until another key is used", async () => {
  let key = "revoked";
  const { queue, idle, until } = queueOf(async () => {
    if (key === "revoked") throw error(403, "auth_failed", false);
    return CUTOUT;
  });
  queue.add(sources(2));
  await until(() => queue.hold === "key" && queue.counts.waiting === 2);
  key = "valid";
  queue.resume();
  await idle();
  assert.equal(queue.counts.done, 2);
});

test("a cancelled image aborts its request and can be retried", async () => {
  let signals = 0;
  const { queue, idle } = queueOf(
    (_, signal) =>
      new Promise((resolve, reject) => {
        if ((signals += 1) > 1) return resolve(CUTOUT);
        signal.addEventListener("abort", () => reject(signal.reason));
      }),
  );
  const [item] = queue.add(sources(1));
  queue.cancel(item);
  await idle();
  assert.equal(item.state, "cancelled");
  queue.retry(item);
  await idle();
  assert.equal(item.state, "done");
});

test("an image that is retried during a pause is processed once", async () => {
  let release;
  let calls = 0;
  const queue = new Queue({
    process: async () => {
      if ((calls += 1) === 1) throw error(503, "queue_full", true);
      return CUTOUT;
    },
    reach: async () => {},
    wait: () => new Promise((resolve) => (release = resolve)),
  });
  const [item] = queue.add(sources(1));
  while (!release) await new Promise(setImmediate);
  queue.retry(item);
  release();
  while (queue.busy) await new Promise(setImmediate);
  await new Promise(setImmediate);
  assert.deepEqual([item.state, calls], ["done", 2]);
});

test("an image that is cancelled during a pause frees its place", async () => {
  const { queue, idle } = queueOf(async (item) => {
    if (item.name === "0.jpg") throw error(503, "queue_full", true);
    return CUTOUT;
  });
  queue.wait = () => new Promise(() => {});
  const [first, second] = queue.add([...sources(1), ...sources(1)]);
  while (first.attempts + second.attempts < 2) await new Promise(setImmediate);
  await new Promise(setImmediate);
  queue.cancelAll();
  queue.add([{ name: "next.jpg", file: new Blob([""]) }]);
  await idle();
  assert.deepEqual(
    queue.items.map(({ state }) => state),
    ["cancelled", "cancelled", "done"],
  );
});

test("a removed image leaves the queue while the next one starts", async () => {
  const { queue, idle } = queueOf(async () => CUTOUT);
  const [first] = queue.add(sources(4));
  queue.remove(first);
  await idle();
  assert.equal(queue.items.length, 3);
  assert.equal(queue.counts.done, 3);
});

test("the pauses between tries grow and are limited", () => {
  assert.deepEqual([1, 2, 3, 4, 5, 6].map(backoff), [1, 2, 4, 8, 15, 15]);
});
