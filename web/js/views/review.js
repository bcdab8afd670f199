/** The view of results that need a review: accept them, or correct them in the editor. */

import { ApiError } from "../api.js";
import { fill, h, icon, thumbnail } from "../dom.js";
import { dateTime, percent, t } from "../i18n.js";
import { nameOf, openResult } from "./history.js";

/** @import { App } from "../app.js" */
/** @import { Item, Job } from "../types.js" */

const ACCEPTED = "accepted";
const ACCEPTED_MAX = 500;
/** Jobs at a time: each fetches its result. */
const SHOWN = 20;

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

  const accepted = () => new Set(app.settings.get(ACCEPTED).split(" "));

  /** @param {Job} job */
  function acceptJob(job) {
    app.settings.set(ACCEPTED, [...accepted(), job.id].slice(-ACCEPTED_MAX).join(" "));
    draw();
  }

  function draw() {
    const items = app.queue.items.filter(
      (item) => item.state === "done" && item.facts?.subject?.needs_review && !item.accepted,
    );
    const known = accepted();
    const open = jobs.filter((job) => !known.has(job.id)).slice(0, SHOWN);
    fill(list, ...items.map((item) => itemCard(item)), ...open.map((job) => jobCard(job)));
    empty.hidden = list.childElementCount > 0;
  }

  /** @param {Item} item */
  function itemCard(item) {
    const accept = () => {
      item.accepted = true;
      app.queue.changed();
    };
    const correct = () => {
      app.select(item);
      app.toEdit = item;
      location.hash = "studio";
    };
    return h(
      "li",
      { class: "review" },
      h("span", { class: "thumb large" }, item.result && thumbnail(item.result)),
      h(
        "div",
        { class: "job-text" },
        h("p", { class: "job-name" }, item.name),
        h("p", { class: "hint" }, t("review.score", { score: percent(item.facts?.subject?.score ?? 0) })),
      ),
      h(
        "div",
        { class: "row" },
        h("button", { class: "button small", onclick: accept }, t("review.accept")),
        h("button", { class: "button small primary", onclick: correct }, t("review.correct")),
      ),
    );
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
    return h(
      "li",
      { class: "review" },
      thumb,
      h(
        "div",
        { class: "job-text" },
        h("p", { class: "job-name" }, nameOf(job)),
        h(
          "p",
          { class: "hint" },
          `${t("review.score", { score: percent(job.subject?.score ?? 0) })} · ${dateTime(job.changed_at)}`,
        ),
      ),
      h(
        "div",
        { class: "row" },
        h("button", { class: "button small", onclick: () => acceptJob(job) }, t("review.accept")),
        h("button", { class: "button small", onclick: () => void openResult(app, job, message) }, t("review.open")),
      ),
    );
  }

  async function load() {
    try {
      const page = await app.api.jobs({ state: "done", limit: 100 });
      message.textContent = "";
      jobs = page.jobs.filter((job) => job.subject?.needs_review);
      draw();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      message.textContent = error.offline ? t("error.offline") : error.message;
    }
  }

  const again = () => void load();
  app.queue.addEventListener("change", draw);
  app.addEventListener("status", again);
  draw();
  again();
  return () => {
    app.queue.removeEventListener("change", draw);
    app.removeEventListener("status", again);
  };
}
