/** Reviews of results: jobs are opened as images of the queue, and corrections are sent. It uses no DOM. */

import { subjectOf } from "./design.js";
import { readable } from "./names.js";

/** @import { App } from "./app.js" */
/** @import { Item, Job, Verdict } from "./types.js" */

/** What the viewer asks about a result: "result": is it right? "correction": shall it be sent? @param {App} app @param {Item} item */
export function questionOf(app, item) {
  if (item.state !== "done" || item.accepted) return "";
  if (item.corrected) return item.job || app.correctionsDays ? "correction" : "";
  return item.facts?.subject?.needs_review && !item.job?.review ? "result" : "";
}

/** The name of a job's source: the last part of its key. @param {Job} job */
export function nameOf(job) {
  return readable(job.source.key.split("/").pop() || job.source.key);
}

/** Whether the result of a job is the cut-out of its whole source. @param {Job} job */
export function isCutout({ state, task, output }) {
  const { format, channels, ...others } = output;
  const plain = format === "png" && channels === "rgba" && !Object.keys(others).length;
  return state === "done" && task === "cutout" && plain;
}

/**
 * Opens a job as an image of the queue, with its prompts and strokes. A result that is not the cut-out of the whole source,
 * such as one on a canvas, is replaced by such a cut-out.
 * @param {App} app @param {Job} job @returns {Promise<Item>}
 */
export async function openJob(app, job) {
  const known = app.queue.items.find((item) => item.job?.id === job.id);
  if (known) return known;
  const [full, file] = await Promise.all([app.api.oneJob(job.id), app.api.source(job.id)]);
  const { blob: result = null, facts = null } = isCutout(full) ? await app.api.fileOf(full) : {};
  const prompts = [full.prompt].flat().filter((prompt) => Object.keys(prompt).length > 0);
  return app.queue.open({ name: nameOf(job), file, job: full, prompts, strokes: full.strokes ?? [], result, facts });
}

/**
 * Sends the review of an image. Where the operator keeps corrections, a corrected image that is no job becomes one, since
 * a training record belongs to a job.
 * @param {App} app @param {Item} item @param {Verdict} verdict @param {boolean} [keep] Whether the correction is sent, too.
 */
export async function sendReview(app, item, verdict, keep = false) {
  if (keep && item.file && item.result) {
    const { api } = app;
    const { prompt, strokes, ...options } = subjectOf(app.design, item);
    item.job ??= await api.finished(await api.job(item.file, options));
    item.job = await api.review(item.job.id, verdict, await api.upload(item.result));
  } else if (item.job) item.job = await app.api.review(item.job.id, verdict);
  item.accepted = true;
  app.queue.changed();
}
