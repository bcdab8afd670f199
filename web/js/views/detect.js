/** The view of detections: boxes coloured by label, a threshold of the score, the count. */

import { ApiError } from "../api.js";
import { colourOf, countsOf } from "../detections.js";
import { fill, h, icon, urlOf } from "../dom.js";
import { percent, t } from "../i18n.js";
import { fitted } from "./compare.js";
import { select, slider } from "./controls.js";
import { chooser, dropAndPaste } from "./intake.js";

/** @import { App } from "../app.js" */
/** @import { Detections } from "../types.js" */

/** Threshold at the start, as in the predecessor's app. */
const THRESHOLD = 0.3;

/**
 * @type {{file: Blob | null, name: string, found: Detections | null}} The last image, kept while other views are
 * shown.
 */
const last = { file: null, name: "", found: null };

/** @param {HTMLElement} root @param {App} app @returns {() => void} */
export function detect(root, app) {
  let threshold = THRESHOLD;
  let engine = "";
  /** @type {AbortController | null} */
  let running = null;
  const area = h("div", { class: "detect-area" });
  const side = h("aside", { class: "side" });
  const count = h("p", { class: "count-line", role: "status", "data-testid": "count" });
  const list = h("ul", { class: "detections" });
  const message = h("p", { class: "bad", role: "alert" });
  const engineField = h("div", {});
  root.append(
    h("div", { class: "page-head" }, h("h1", {}, t("detect.title")), h("p", { class: "lead" }, t("detect.lead"))),
    h("div", { class: "detect" }, h("section", { class: "stage" }, area, message), side),
  );

  /** @param {import("./intake.js").Source[]} sources */
  function take([source]) {
    if (!source?.file) return;
    Object.assign(last, { file: source.file, name: source.name, found: null });
    void run();
  }

  async function run() {
    if (!last.file) return;
    running?.abort();
    const controller = (running = new AbortController());
    last.found = null;
    message.textContent = "";
    draw();
    try {
      last.found = await app.api.detections(last.file, engine ? { engine } : {}, controller.signal);
    } catch (error) {
      if (controller.signal.aborted) return;
      message.textContent =
        error instanceof ApiError && error.offline
          ? t("error.offline")
          : error instanceof Error
            ? error.message
            : String(error);
      if (error instanceof ApiError && error.key) await app.load();
    }
    running = null;
    draw();
  }

  function draw() {
    const { file, found } = last;
    if (!file) {
      fill(
        area,
        h(
          "div",
          { class: "drop" },
          h("div", { class: "drop-art", "aria-hidden": "true" }, icon("detect")),
          h("p", { class: "drop-title" }, t("detect.drop")),
          chooser(take, { label: t("detect.choose"), multiple: false, testid: "detect-input" }),
        ),
      );
    } else {
      const boxes = h("div", { class: "boxes" });
      fill(
        area,
        h(
          "div",
          { class: "canvas-box" },
          h("div", { class: "canvas" }, h("figure", { class: "figure" }, fitted(urlOf(file)), boxes)),
          !found && running && h("span", { class: "badge" }, t("detect.working")),
        ),
      );
    }
    side.hidden = !file;
    marks();
  }

  /** Draws the boxes of the threshold, without loading the image again. */
  function marks() {
    const { found } = last;
    const labels = [...new Set(found?.detections.map(({ label }) => label))].sort();
    const shown = found?.detections.filter(({ score }) => score >= threshold) ?? [];
    const boxes = area.querySelector(".boxes");
    if (boxes && found) fill(boxes, ...shown.map((detection) => mark(detection, found, labels)));
    const hidden = (found?.detections.length ?? 0) - shown.length;
    const kinds = countsOf(shown).map(([label, number]) => `${number} ${label}`);
    count.textContent = found
      ? [
          shown.length ? `${t("detect.count", { count: shown.length })}: ${kinds.join(", ")}` : t("detect.empty"),
          hidden ? t("detect.below", { hidden }) : "",
        ]
          .filter(Boolean)
          .join(" · ")
      : "";
    fill(
      list,
      ...shown.map(({ label, score }) =>
        h(
          "li",
          {},
          h("span", { class: `dot ${colourOf(label, labels)}` }),
          label,
          h("span", { class: "score" }, percent(score)),
        ),
      ),
    );
  }

  /** @param {import("../types.js").Detection} detection @param {Detections} found @param {string[]} labels */
  function mark({ label, score, box: [x0 = 0, y0 = 0, x1 = 0, y1 = 0] }, { width, height }, labels) {
    const element = h("div", { class: `mark ${colourOf(label, labels)}` }, h("span", {}, `${label} ${percent(score)}`));
    Object.assign(element.style, {
      left: `${(100 * x0) / width}%`,
      top: `${(100 * y0) / height}%`,
      width: `${(100 * (x1 - x0)) / width}%`,
      height: `${(100 * (y1 - y0)) / height}%`,
    });
    if (y0 < height * 0.06) element.classList.add("inside");
    return element;
  }

  function engines() {
    const usable = app.engines.filter(
      (candidate) => candidate.tasks.includes("detect") && candidate.available !== false && candidate.interactive,
    );
    fill(
      engineField,
      usable.length > 1 &&
        select({
          label: t("detect.engine"),
          value: engine,
          options: [["", t("engine.default")], ...usable.map(({ name }) => [name, name])],
          change: (value) => {
            engine = value;
            void run();
          },
        }),
    );
  }

  fill(
    side,
    count,
    slider({
      label: t("detect.threshold"),
      value: 100 * threshold,
      min: 0,
      max: 100,
      text: (value) => percent(value / 100),
      testid: "threshold",
      change: (value) => {
        threshold = value / 100;
        marks();
      },
    }),
    engineField,
    list,
    chooser(take, { label: t("detect.another"), style: "button small", multiple: false, testid: "detect-another" }),
  );
  const endDrop = dropAndPaste(root, take);
  app.addEventListener("status", engines);
  engines();
  draw();
  return () => {
    running?.abort();
    endDrop();
    app.removeEventListener("status", engines);
  };
}
