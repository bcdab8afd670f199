/** The viewer of the selected image: compare slider, result, alpha, original; download; the editor. */

import { ApiError } from "../api.js";
import { cssOf, incomplete, isPlain, keepsPlace } from "../design.js";
import { fill, h, icon, save, urlOf } from "../dom.js";
import { size, t } from "../i18n.js";
import { resultName } from "../names.js";
import { questionOf, sendReview } from "../reviews.js";
import { compare, fitted } from "./compare.js";
import { segmented } from "./controls.js";
import { extensionOf } from "./studio.js";
import { zoomable } from "./zoom.js";

/** @import { App } from "../app.js" */
/** @import { Cutout, Item, Verdict } from "../types.js" */

const MODES = ["compare", "result", "alpha", "original"];

/** Milliseconds without a change of the design before the server renders it. */
const RENDER_AFTER_MS = 350;

/** @param {HTMLElement} root @param {App} app @returns {() => void} */
export function viewer(root, app) {
  let mode = "compare";
  /** @type {Cutout | null} */
  let final = null;
  let finalFor = "";
  /** The design that the server refused: it is not sent again before it changes. */
  let refusedFor = "";
  let error = "";
  let rendering = false;
  let drawn = "";
  /** @type {{destroy: () => void} | null} */
  let editor = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  const name = h("h1", { class: "viewer-name" });
  const facts = h("p", { class: "viewer-facts" });
  const modes = h("div", { class: "viewer-modes" });
  const canvas = h("div", { class: "canvas", "data-testid": "viewer" });
  const message = h("div", { class: "viewer-message", "aria-live": "polite" });
  const badge = h("span", { class: "badge", hidden: true });
  const download = h(
    "button",
    { class: "button primary", "data-testid": "download", onclick: () => void saveFinal() },
    icon("download"),
    t("viewer.download"),
  );
  const edit = h(
    "button",
    { class: "button", "data-testid": "edit", onclick: () => void openEditor() },
    icon("edit"),
    t("viewer.edit"),
  );
  const reviewBar = h("div", { class: "notice warn review-bar", hidden: true, "data-testid": "review-bar" });
  let asked = "";
  const zoom = zoomable(canvas);
  const editorRoot = h("div", { class: "editor", hidden: true });
  fill(
    root,
    h("div", { class: "viewer-head" }, h("div", { class: "viewer-title" }, name, facts), modes),
    reviewBar,
    h("div", { class: "canvas-box" }, canvas, badge),
    editorRoot,
    h("div", { class: "viewer-foot" }, zoom.controls, message, h("div", { class: "row" }, edit, download)),
  );

  /** Identifies the finished image that the current state needs. */
  function wanted() {
    const item = app.selected;
    return item?.result ? `${item.id} ${item.revision} ${designId(app)}` : "";
  }

  /** Renders the design of the selected item on the server, after a pause in the changes. */
  function plan() {
    clearTimeout(timer);
    const key = wanted();
    rendering = false;
    if (key && key === refusedFor) return;
    error = "";
    if (!key || key === finalFor) return;
    final = null;
    if (incomplete(app.design)) return;
    rendering = true;
    timer = setTimeout(() => void render(key), isPlain(app.design) ? 0 : RENDER_AFTER_MS);
  }

  /** @param {string} key */
  async function render(key) {
    const item = app.selected;
    if (!item) return;
    try {
      const cutout = await app.finish(item);
      if (wanted() !== key) return;
      [final, finalFor] = [cutout, key];
    } catch (failure) {
      if (wanted() !== key) return;
      const lost = failure instanceof ApiError && (failure.offline || failure.key);
      if (!lost) refusedFor = key;
      error = failure instanceof ApiError && failure.offline ? t("error.offline") : reasonOf(failure);
    }
    rendering = false;
    draw();
  }

  async function saveFinal() {
    const item = app.selected;
    if (!item) return;
    download.disabled = true;
    try {
      const { blob } = await app.finish(item);
      save(blob, resultName(item.name, extensionOf(blob, app.design.format)));
    } catch (failure) {
      error = reasonOf(failure);
      draw();
    }
    download.disabled = false;
  }

  async function openEditor() {
    const item = app.selected;
    if (editor || !item?.file) return closeEditor();
    const { openEditor: open } = await import("../editor/editor.js").catch(() => ({ openEditor: null }));
    if (app.selected !== item) return;
    if (!open) {
      error = t("error.offline");
      return draw();
    }
    editorRoot.hidden = false;
    canvas.parentElement?.setAttribute("hidden", "");
    editor = open(editorRoot, {
      item,
      app,
      onChange: (changes) => {
        const corrected = item.corrected || Boolean(item.job || item.facts?.subject?.needs_review);
        Object.assign(item, changes, { corrected });
        app.queue.retry(item);
      },
      onClose: closeEditor,
    });
    draw();
  }

  /** Sends a review; shows why it failed. @param {Verdict} verdict @param {boolean} [keep] */
  async function sendAnswer(verdict, keep) {
    if (!app.selected) return;
    for (const button of reviewBar.querySelectorAll("button")) button.disabled = true;
    try {
      await sendReview(app, app.selected, verdict, keep);
    } catch (failure) {
      [error, asked] = [reasonOf(failure), ""];
      draw();
    }
  }

  /** Asks whether a result is right, or whether a correction may be sent. @param {Item} item */
  function drawReview(item) {
    const question = editor ? "" : questionOf(app, item);
    const days = question === "correction" ? app.correctionsDays : 0;
    const key = `${item.id} ${item.revision} ${question}`;
    if (key === asked) return;
    asked = key;
    reviewBar.hidden = !question;
    /** @param {string} name @param {() => void} onclick */
    const button = (name, onclick) =>
      h("button", { class: "button small", onclick, "data-testid": name }, t(`viewer.${name}`));
    fill(
      reviewBar,
      icon("warning"),
      h("p", {}, question === "result" ? t("viewer.review") : t(days ? "viewer.correction" : "viewer.corrected", { count: days })),
      h(
        "div",
        { class: "row wrap" },
        question === "result" && button("accept", () => void sendAnswer("accepted")),
        question === "result" && Boolean(item.file) && button("correct", () => void openEditor()),
        days > 0 && button("keep", () => void sendAnswer("corrected", true)),
        question === "correction" && Boolean(item.job) && button("mark", () => void sendAnswer("corrected")),
      ),
    );
  }

  function closeEditor() {
    editor?.destroy();
    editor = null;
    editorRoot.replaceChildren();
    editorRoot.hidden = true;
    canvas.parentElement?.removeAttribute("hidden");
    draw();
    if (document.activeElement === document.body) edit.focus({ preventScroll: true });
  }

  function draw() {
    const item = app.selected;
    if (!item) return;
    const original = item.file;
    const result = item.result ?? item.preview;
    name.textContent = item.name;
    name.title = item.name;
    const shown = final ?? (item.result && item.facts ? { blob: item.result, facts: item.facts } : null);
    facts.textContent = shown
      ? `${shown.facts.width} × ${shown.facts.height} · ${size(shown.blob.size)} · ${shown.facts.engine}`
      : original
        ? size(original.size)
        : "";
    download.disabled = !item.result || rendering || incomplete(app.design);
    edit.disabled = !item.file || item.state === "waiting";
    download.hidden = modes.hidden = zoom.controls.hidden = Boolean(editor);
    fill(edit, icon(editor ? "close" : "edit"), t(editor ? "viewer.close" : "viewer.edit"));
    drawReview(item);
    const warnings = (shown?.facts.warnings ?? []).map((warning) => warningText(warning));
    if (item.accepted && item.job) warnings.unshift(t("viewer.saved"));
    const text = item.error?.message || error || (result ? warnings.join(" ") : stateText(item));
    const bad = Boolean(item.error || error);
    fill(message, text && h("p", { class: bad ? "bad" : "", "data-testid": bad ? "error" : "message" }, text));
    const busy = isBusy(item);
    badge.hidden = !(rendering && !isPlain(app.design)) && !busy;
    badge.textContent = t(busy ? (item.preview ? "viewer.preview" : "viewer.working") : "viewer.rendering");
    drawCanvas(item, original, result);
  }

  /** @param {Item} item @param {Blob | null} original @param {Blob | null} result */
  function drawCanvas(item, original, result) {
    const finished = final?.blob ?? null;
    const css = finished && !isPlain(app.design) ? "" : cssOf(app.design);
    const picture = finished ?? result;
    const comparable = keepsPlace(app.design) ? picture : result;
    const shown = mode === "compare" && (!original || !result) ? (result ? "result" : "original") : mode;
    const key = [
      item.id,
      shown,
      picture && urlOf(picture),
      comparable && urlOf(comparable),
      css,
      original && urlOf(original),
      picture ? "" : item.state,
    ].join(" ");
    if (key === drawn) return;
    drawn = key;
    canvas.dataset.mode = shown;
    if (shown === "compare" && original && comparable)
      compare(canvas, {
        before: urlOf(original),
        after: urlOf(comparable),
        css: keepsPlace(app.design) || !finished ? css : "",
      });
    else if (shown === "original") fill(canvas, original ? image(urlOf(original)) : noOriginal());
    else if (shown === "alpha") fill(canvas, result ? alpha(urlOf(result)) : placeholder(item));
    else fill(canvas, picture ? backed(urlOf(picture), css) : placeholder(item));
  }

  function drawModes() {
    fill(
      modes,
      segmented({
        label: t("viewer.views"),
        value: mode,
        options: MODES.map((value) => [value, t(`viewer.${value}`)]),
        testid: "view",
        change: (value) => {
          mode = value;
          draw();
        },
      }),
    );
  }

  /** The subject or the design changed. */
  function update() {
    const before = final;
    plan();
    if (!before && !keepsPlace(app.design) && mode === "compare") {
      mode = "result";
      drawModes();
    }
    draw();
  }

  function selected() {
    if (editor) closeEditor();
    zoom.reset();
    [final, finalFor] = [null, ""];
    update();
  }

  function designed() {
    refusedFor = "";
    if (!keepsPlace(app.design) && mode === "compare") {
      mode = "result";
      drawModes();
    }
    update();
  }

  drawModes();
  app.addEventListener("select", selected);
  app.addEventListener("design", designed);
  app.queue.addEventListener("change", update);
  update();
  if (app.toEdit && app.toEdit === app.selected) void openEditor();
  app.toEdit = null;
  return () => {
    clearTimeout(timer);
    editor?.destroy();
    app.removeEventListener("select", selected);
    app.removeEventListener("design", designed);
    app.queue.removeEventListener("change", update);
  };
}

/** Texts that identify a design. @param {App} app */
function designId(app) {
  const { image: background, ...values } = app.design;
  return `${JSON.stringify(values)} ${background ? urlOf(background) : ""}`;
}

/** @param {string} warning The code of a warning, with values after it. */
function warningText(warning) {
  const code = warning.split(/[ :]/)[0] ?? "";
  const text = t(`warning.${code}`);
  return text.startsWith("warning.") ? warning : text;
}

/** @param {string} src */
function image(src) {
  const shown = fitted(src);
  shown.addEventListener("error", () => shown.replaceWith(noOriginal()));
  return shown;
}

/** @param {string} src @param {string} css */
function backed(src, css) {
  const shown = fitted(src);
  shown.classList.add("checker");
  if (css) shown.style.background = css;
  return shown;
}

/** The alpha of a cut-out: white, masked by it, on black. @param {string} src */
function alpha(src) {
  const white = h("span", { class: "alpha-mask" });
  white.style.maskImage = `url("${src}")`;
  return h("div", { class: "alpha" }, fitted(src), white);
}

/** In place of a result. @param {Item} item */
function placeholder(item) {
  return h("div", { class: "placeholder" }, isBusy(item) && h("span", { class: "spinner" }));
}

function noOriginal() {
  return h("p", { class: "placeholder" }, t("viewer.nothing"));
}

/** @param {Item} item */
function isBusy(item) {
  return item.state === "running" || item.state === "waiting";
}

/** What an item without a result does. @param {Item} item */
function stateText(item) {
  if (item.state === "cancelled") return t("viewer.cancelled");
  return t(item.state === "waiting" ? "viewer.waiting" : "viewer.working");
}

/** @param {unknown} failure */
function reasonOf(failure) {
  return failure instanceof Error ? failure.message : String(failure);
}
