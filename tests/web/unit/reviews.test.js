import assert from "node:assert/strict";
import { test } from "node:test";

import { Queue } from "../../../web/js/queue.js";
import { isCutout, openJob, questionOf, sendReview } from "../../../web/js/reviews.js";

const SUBJECT = { box: null, coverage: 0.5, score: 0.2, kind: "thing", engine: "u2netp", needs_review: true };
const JOB = {
  id: "j1",
  state: "done",
  task: "cutout",
  engine: "u2netp",
  prompt: {},
  output: { format: "png", channels: "rgba" },
  source: { bucket: "inbox", key: "uploads/1/photo.jpg", bytes: 1 },
  result: { url: "https://files/1" },
  subject: SUBJECT,
  review: null,
};

/** An app with a queue, and an API that records the calls which change something. @param {Record<string, unknown>} job */
function appOf(job = JOB, correctionsDays = 30) {
  const calls = [];
  const facts = { engine: "auto", width: 1, height: 1, subject: SUBJECT, warnings: [], timings: {} };
  const cutout = async (text) => ({ blob: new Blob([text]), facts });
  const api = {
    oneJob: async () => job,
    source: async () => new Blob(["photo"]),
    fileOf: () => cutout("cut"),
    upload: async (blob) => {
      calls.push(["upload", await blob.text()]);
      return "u1";
    },
    job: async (file, options) => {
      calls.push(["job", await file.text(), options]);
      return { ...job, id: "new" };
    },
    finished: async (made) => made,
    review: async (...call) => {
      calls.push(["review", ...call]);
      return { ...job, review: { verdict: call[1] } };
    },
  };
  const queue = new Queue({ process: () => cutout("cut again"), reach: async () => {} });
  return { app: { api, queue, correctionsDays, design: { engine: "" } }, calls };
}

const idle = async (queue) => {
  while (queue.busy) await new Promise(setImmediate);
};

test("a job is opened once, with its result, prompts and strokes", async () => {
  const box = { box: [0, 0, 1, 1] };
  const { app } = appOf({ ...JOB, prompt: [box], strokes: [{ mode: "erase" }] });
  const item = await openJob(app, JOB);
  assert.deepEqual([item.name, item.state, item.prompts, item.strokes.length], ["photo.jpg", "done", [box], 1]);
  assert.equal(await item.result.text(), "cut");
  assert.equal(await openJob(app, JOB), item);
  assert.equal(app.queue.items.length, 1);
});

test("the result of a job that is no cut-out of the whole source is cut out again", async () => {
  for (const output of [{ ...JOB.output, format: "webp" }, { ...JOB.output, canvas: "1:1" }, { ...JOB.output, channels: "alpha" }]) {
    assert.equal(isCutout({ ...JOB, output }), false);
  }
  assert.equal(isCutout(JOB), true);
  const { app } = appOf({ ...JOB, state: "failed" });
  const item = await openJob(app, JOB);
  await idle(app.queue);
  assert.equal(await item.result.text(), "cut again");
});

test("a result is questioned until a person has accepted it or sent its correction", async () => {
  const { app } = appOf();
  const item = await openJob(app, JOB);
  assert.equal(questionOf(app, item), "result");
  item.corrected = true;
  assert.equal(questionOf(app, item), "correction");
  item.accepted = true;
  assert.equal(questionOf(app, item), "");
  const known = { ...item, accepted: false, corrected: false, job: { ...JOB, review: { verdict: "accepted" } } };
  assert.equal(questionOf(app, known), "");
  const own = { ...known, corrected: true, job: null };
  assert.equal(questionOf(app, own), "correction");
  assert.equal(questionOf({ ...app, correctionsDays: 0 }, own), "", "nobody keeps it");
});

test("a correction of a job is uploaded and sent; an acceptance sends the verdict alone", async () => {
  const { app, calls } = appOf();
  const item = await openJob(app, JOB);
  await sendReview(app, item, "accepted");
  assert.deepEqual(calls, [["review", "j1", "accepted"]]);
  await sendReview(app, item, "corrected", true);
  assert.deepEqual(calls.slice(1), [["upload", "cut"], ["review", "j1", "corrected", "u1"]]);
  assert.equal(item.job.review.verdict, "corrected");
});

test("a corrected image of the queue becomes a job with the options of its first result", async () => {
  const { app, calls } = appOf();
  const [item] = app.queue.add([{ name: "a.jpg", file: new Blob(["photo"]) }]);
  await idle(app.queue);
  await sendReview(app, item, "accepted");
  assert.deepEqual([calls, item.accepted], [[], true]);
  Object.assign(item, { corrected: true, prompts: [{ box: [0, 0, 1, 1] }], strokes: [{ mode: "erase" }] });
  await sendReview(app, item, "corrected", true);
  assert.deepEqual(calls, [["job", "photo", {}], ["upload", "cut again"], ["review", "new", "corrected", "u1"]]);
});
