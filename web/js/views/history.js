/** The view of jobs: states, reasons, retries, results. */

import { ApiError } from "../api.js";
import { fill, h, icon, save } from "../dom.js";
import { dateTime, dollars, size, t } from "../i18n.js";
import { resultName } from "../names.js";
import { nameOf, openJob } from "../reviews.js";
import { segmented } from "./controls.js";

/** @import { App } from "../app.js" */
/** @import { Job } from "../types.js" */

const STATES = ["", "queued", "submitted", "done", "failed"];

/** @param {HTMLElement} root @param {App} app @returns {() => void} */
export function history(root, app) {
  let state = "";
  let cursor = "";
  let ended = false;
  const list = h("ul", { class: "jobs", "data-testid": "jobs" });
  const message = h("p", { class: "bad", role: "alert" });
  const empty = h(
    "div",
    { class: "empty", hidden: true },
    h("div", { class: "drop-art", "aria-hidden": "true" }, icon("history")),
    h("h2", {}, t("history.empty")),
    h("p", { class: "hint" }, t("history.empty.text")),
  );
  const more = h("button", { class: "button", hidden: true, onclick: () => void load(false) }, t("history.more"));
  const refresh = h(
    "button",
    { class: "button small", onclick: () => void load(true) },
    icon("retry"),
    t("history.refresh"),
  );
  const filter = segmented({
    label: t("history.filter"),
    value: state,
    options: STATES.map((value) => [value, t(`history.${value || "all"}`)]),
    testid: "history-state",
    change: (value) => {
      state = value;
      void load(true);
    },
  });
  root.append(
    h(
      "div",
      { class: "page" },
      h("div", { class: "page-head" }, h("h1", {}, t("history.title")), h("p", { class: "lead" }, t("history.lead"))),
      h("div", { class: "row wrap between" }, filter, refresh),
      message,
      list,
      empty,
      more,
    ),
  );

  /** @param {boolean} first */
  async function load(first) {
    const asked = state;
    list.setAttribute("aria-busy", "true");
    message.textContent = "";
    try {
      const page = await app.api.jobs({ state, cursor: first ? "" : cursor });
      if (ended || asked !== state) return;
      if (first) list.replaceChildren();
      cursor = page.cursor ?? "";
      more.hidden = !cursor;
      list.append(...page.jobs.map((job) => row(app, job)));
      empty.hidden = list.childElementCount > 0;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      message.textContent = error.offline ? t("error.offline") : error.message;
    }
    list.removeAttribute("aria-busy");
  }

  const again = () => void load(true);
  app.addEventListener("status", again);
  again();
  return () => {
    ended = true;
    app.removeEventListener("status", again);
  };
}

/** @param {App} app @param {Job} job @returns {HTMLElement} */
function row(app, job) {
  const parts = [
    job.task,
    job.engine,
    job.preset,
    dateTime(job.changed_at),
    job.attempts > 1 && t("history.attempts", { count: job.attempts }),
    job.result && size(job.result.bytes),
    job.cost_usd !== null && dollars(job.cost_usd),
    job.review && t(`history.${job.review.verdict}`),
  ];
  const reason = h("p", { class: "bad" }, job.error?.message);
  const retry = h("button", { class: "button small", onclick: () => void again() }, icon("retry"), t("history.retry"));
  const open = h("button", { class: "button small", onclick: () => void edit() }, icon("edit"), t("history.open"));
  const download = h(
    "button",
    { class: "button small", onclick: () => void saveResult(app, job, reason) },
    icon("download"),
    t("history.download"),
  );
  const element = h(
    "li",
    { class: "job", "data-testid": "job", "data-state": job.state },
    h("span", { class: `chip-state ${job.state}` }, t(`history.${job.state}`)),
    h(
      "div",
      { class: "job-text" },
      h("p", { class: "job-name" }, nameOf(job)),
      h("p", { class: "hint" }, parts.filter(Boolean).join(" · ")),
      reason,
    ),
    h(
      "div",
      { class: "row wrap" },
      (job.state === "done" || job.state === "failed") && open,
      job.state === "failed" && retry,
      job.state === "done" && download,
    ),
  );

  async function edit() {
    open.disabled = true;
    await showJob(app, job, reason);
    open.disabled = false;
  }

  async function again() {
    retry.disabled = true;
    try {
      element.replaceWith(row(app, await app.api.retry(job.id)));
    } catch (error) {
      reason.textContent = error instanceof Error ? error.message : String(error);
      retry.disabled = false;
    }
  }

  return element;
}

/**
 * Shows a job as an image of the queue, or why it cannot be opened.
 * @param {App} app @param {Job} job @param {HTMLElement} message @param {boolean} [edit] Whether the editor opens, too.
 */
export async function showJob(app, job, message, edit = false) {
  try {
    const item = await openJob(app, job);
    app.select(item);
    app.toEdit = edit ? item : null;
    location.hash = "studio";
  } catch (error) {
    message.textContent = error instanceof Error ? error.message : String(error);
  }
}

/** Saves the result of a job. @param {App} app @param {Job} job @param {HTMLElement} message */
export async function saveResult(app, job, message) {
  try {
    const full = await app.api.oneJob(job.id);
    const { blob } = await app.api.fileOf(full);
    save(blob, resultName(nameOf(job), full.result?.format ?? "png"));
  } catch (error) {
    message.textContent = error instanceof Error ? error.message : String(error);
  }
}
