/** The view of results that need a review: accept them, or correct them in the editor. */

import { ApiError } from "../api.js";
import { fill, h, icon, thumbnail } from "../dom.js";
import { dateTime, percent, t } from "../i18n.js";
import { nameOf, questionOf, sendReview } from "../reviews.js";
import { saveResult, showJob } from "./history.js";

/** @import { App } from "../app.js" */
/** @import { Item, Job } from "../types.js" */

/** Jobs at a time: each fetches its result. */
const SHOWN = 20;
/** Pages of jobs that are searched for them, and jobs of a page. */
const PAGES_MAX = 5;
const PAGE = 100;

/** @param {HTMLElement} root @param {App} app @returns {() => void} */
export function review(root, app) {
  /** @type {Job[]} */
  let jobs = [];
  /** @type {Map<string, Promise<import("../types.js").Cutout | null>>} */
  const results = new Map();
  const list = h("ul", { class: "reviews", "data-testid": "reviews" });
  const message = h("p", { class: "bad", role: "alert" });
  const empty = h(
    "div",
    { class: "empty" },
    h("div", { class: "drop-art", "aria-hidden": "true" }, icon("review")),
    h("h2", {}, t("review.empty")),
    h("p", { class: "hint" }, t("review.empty.text")),
  );
  root.append(
    h(
      "div",
      { class: "page" },
      h("div", { class: "page-head" }, h("h1", {}, t("review.title")), h("p", { class: "lead" }, t("review.lead"))),
      message,
      list,
      empty,
    ),
  );

  function draw() {
    const items = app.queue.items.filter((item) => questionOf(app, item));
    const opened = new Set(app.queue.items.map((item) => item.job?.id));
    const others = jobs.filter((job) => !opened.has(job.id)).slice(0, SHOWN);
    fill(list, ...items.map((item) => itemCard(item)), ...others.map((job) => jobCard(job)));
    empty.hidden = list.childElementCount > 0;
  }

  /** @param {HTMLElement} thumb @param {string} name @param {string} hint @param {...HTMLElement} buttons */
  const card = (thumb, name, hint, ...buttons) =>
    h(
      "li",
      { class: "review", "data-testid": "review" },
      thumb,
      h("div", { class: "job-text" }, h("p", { class: "job-name" }, name), h("p", { class: "hint" }, hint)),
      h("div", { class: "row wrap" }, ...buttons),
    );

  /** @param {string} text @param {() => void} onclick @param {string} [style] */
  const button = (text, onclick, style = "") => h("button", { class: `button small ${style}`, onclick }, t(text));

  /** @param {Item} item */
  function itemCard(item) {
    /** @param {boolean} edit */
    const open = (edit) => {
      app.select(item);
      app.toEdit = edit ? item : null;
      location.hash = "studio";
    };
    const buttons = item.corrected
      ? [button("review.open", () => open(false), "primary")]
      : [
          button("review.accept", () => void attempt(() => sendReview(app, item, "accepted"))),
          ...(item.file ? [button("review.correct", () => open(true), "primary")] : []),
        ];
    const thumb = h("span", { class: "thumb large" }, item.result && thumbnail(item.result));
    return card(thumb, item.name, scoreOf(item.facts?.subject?.score), ...buttons);
  }

  /** Draws the result of a job: fetched once. @param {Job} job @param {HTMLElement} thumb */
  async function drawResult(job, thumb) {
    const load =
      results.get(job.id) ??
      app.api
        .oneJob(job.id)
        .then((full) => app.api.fileOf(full))
        .catch(() => null);
    results.set(job.id, load);
    const blob = (await load)?.blob;
    if (!blob) return;
    fill(thumb, thumbnail(blob));
  }

  /** @param {Job} job */
  function jobCard(job) {
    const thumb = h("span", { class: "thumb large" });
    void drawResult(job, thumb);
    const accept = async () => {
      await app.api.review(job.id, "accepted");
      jobs = jobs.filter((other) => other !== job);
      draw();
    };
    return card(
      thumb,
      nameOf(job),
      `${scoreOf(job.subject?.score)} · ${dateTime(job.changed_at)}`,
      button("review.accept", () => void attempt(accept)),
      button("review.correct", () => void showJob(app, job, message, true), "primary"),
      button("history.download", () => void saveResult(app, job, message)),
    );
  }

  /** Shows the error of a request. @param {() => Promise<unknown>} call */
  async function attempt(call) {
    try {
      await call();
      message.textContent = "";
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      message.textContent = error.offline ? t("error.offline") : error.message;
    }
  }

  async function load() {
    /** @type {Job[]} */
    const found = [];
    let cursor = "";
    for (let pages = 0; pages < PAGES_MAX && found.length < SHOWN; pages += 1) {
      const page = await app.api.jobs({ state: "done", limit: PAGE, cursor });
      found.push(...page.jobs.filter((job) => job.subject?.needs_review && !job.review));
      cursor = page.cursor ?? "";
      if (!cursor) break;
    }
    jobs = found;
    draw();
  }

  const again = () => void attempt(load);
  app.queue.addEventListener("change", draw);
  app.addEventListener("status", again);
  draw();
  again();
  return () => {
    app.queue.removeEventListener("change", draw);
    app.removeEventListener("status", again);
  };
}

/** @param {number} [score] */
function scoreOf(score = 0) {
  return t("review.score", { score: percent(score) });
}
