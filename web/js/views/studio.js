/** The view that cuts out images: intake, queue, viewer, panel. */

import { fill, h, icon, save, thumbnail } from "../dom.js";
import { t } from "../i18n.js";
import { resultName } from "../names.js";
import { questionOf } from "../reviews.js";
import { zip } from "../zip.js";
import { chooser, dropAndPaste, urlForm } from "./intake.js";
import { panel } from "./panel.js";
import { viewer } from "./viewer.js";

/** @import { App } from "../app.js" */
/** @import { Item } from "../types.js" */

/** @param {HTMLElement} root @param {App} app */
export function studio(root, app) {
  /** @param {import("./intake.js").Source[]} sources */
  const take = (sources) => {
    const [first] = app.queue.add(sources);
    if (first && (!app.selected || !app.queue.items.includes(app.selected))) app.select(first);
  };
  /** @type {(() => void)[]} */
  let ends = [];
  let empty = /** @type {boolean | null} */ (null);

  function layout() {
    const now = app.queue.items.length === 0;
    if (now === empty) return;
    const first = empty === null;
    empty = now;
    for (const end of ends) end();
    ends = [];
    root.replaceChildren();
    if (empty) {
      app.select(null);
      root.append(welcome(take));
      if (!first) root.focus({ preventScroll: true });
      return;
    }
    const stage = h("section", { class: "stage", "aria-label": t("viewer.label") });
    const side = h("aside", { class: "side", "aria-label": t("panel.label") });
    const strip = h("section", { class: "strip", "aria-label": t("queue.label") });
    root.append(h("div", { class: "studio" }, strip, stage, side));
    ends = [viewer(stage, app), panel(side, app), queueList(strip, app, take)];
  }

  const endDrop = dropAndPaste(root, take);
  app.queue.addEventListener("change", layout);
  layout();
  return () => {
    endDrop();
    app.queue.removeEventListener("change", layout);
    for (const end of ends) end();
  };
}

/** The empty state. @param {import("./intake.js").Take} take */
function welcome(take) {
  return h(
    "section",
    { class: "welcome" },
    h("h1", {}, t("welcome.title")),
    h("p", { class: "lead" }, t("welcome.lead")),
    h(
      "div",
      { class: "drop", "data-testid": "drop" },
      h("div", { class: "drop-art", "aria-hidden": "true" }, icon("upload")),
      h("p", { class: "drop-title" }, t("welcome.drop")),
      chooser(take, { label: t("intake.choose") }),
      h("p", { class: "hint" }, t("welcome.paste")),
    ),
    urlForm(take),
    h(
      "ul",
      { class: "points" },
      ...["formats", "private", "size"].map((name) =>
        h("li", {}, h("strong", {}, t(`welcome.${name}`)), t(`welcome.${name}.text`)),
      ),
    ),
  );
}

/** @param {HTMLElement} root @param {App} app @param {import("./intake.js").Take} take */
function queueList(root, app, take) {
  const { queue } = app;
  const status = h("p", { class: "queue-status", "data-testid": "queue-status" });
  const bar = h("progress", { class: "bar", "aria-label": t("queue.progress") });
  const list = h("ul", { class: "items", "data-testid": "items" });
  const message = h("p", { class: "field-error", role: "alert" });
  const cancel = h("button", { class: "button small", onclick: () => queue.cancelAll() }, t("queue.cancel"));
  const retry = h(
    "button",
    { class: "button small", onclick: () => queue.retryFailed() },
    icon("retry"),
    t("queue.retry"),
  );
  const archive = h(
    "button",
    { class: "button small", onclick: () => void downloadAll(), "data-testid": "download-zip" },
    icon("download"),
    t("queue.zip"),
  );
  const clear = h(
    "button",
    { class: "button small quiet end", onclick: () => queue.clear(), "data-testid": "clear" },
    t("queue.clear"),
  );
  const more = h("details", { class: "more" }, h("summary", {}, t("intake.byurl")), urlForm(take));
  fill(
    root,
    h(
      "div",
      { class: "queue-head" },
      h("div", { class: "row between" }, status, clear),
      bar,
      h(
        "div",
        { class: "queue-actions" },
        chooser(take, { label: t("intake.more"), style: "button small" }),
        cancel,
        retry,
        archive,
      ),
      message,
    ),
    list,
    more,
  );
  /** @type {Map<Item, {element: HTMLElement, update: () => void}>} */
  const rows = new Map();

  async function downloadAll() {
    const done = queue.items.filter((item) => item.result);
    archive.disabled = true;
    message.textContent = "";
    try {
      const used = new Set();
      const files = [];
      for (const item of done) {
        const { blob } = await app.finish(item);
        files.push({ name: resultName(item.name, extensionOf(blob, app.design.format), used), blob });
      }
      save(await zip(files), "maskdrop.zip");
    } catch (error) {
      message.textContent = error instanceof Error ? error.message : String(error);
    } finally {
      archive.disabled = false;
    }
  }

  function update() {
    const { items } = queue;
    const { done, failed, cancelled, waiting, running } = queue.counts;
    status.textContent = t(waiting + running ? "queue.working" : failed ? "queue.failed" : "queue.done", {
      done,
      failed,
      total: items.length,
      count: failed,
    });
    bar.max = items.length;
    bar.value = done + failed + cancelled;
    bar.hidden = waiting + running === 0;
    cancel.hidden = waiting + running === 0;
    retry.hidden = failed + cancelled === 0;
    archive.hidden = done < 2;
    for (const [item, { element }] of rows) {
      if (!items.includes(item)) {
        element.remove();
        rows.delete(item);
      }
    }
    if (app.selected && !items.includes(app.selected)) app.select(items[0] ?? null);
    for (const item of items) {
      let row = rows.get(item);
      if (!row) {
        row = itemRow(item, app);
        rows.set(item, row);
        list.append(row.element);
      }
      row.update();
    }
  }

  queue.addEventListener("change", update);
  app.addEventListener("select", update);
  update();
  return () => {
    queue.removeEventListener("change", update);
    app.removeEventListener("select", update);
  };
}

/**
 * The extension of a finished image: of its type where the browser knows it.
 * @param {Blob} blob
 * @param {string} format
 */
export function extensionOf(blob, format) {
  const extension = {
    "image/png": "png",
    "image/webp": "webp",
    "image/jpeg": "jpg",
    "image/avif": "avif",
    "application/zip": "zip",
  }[blob.type];
  return extension ?? format;
}

/** @param {Item} item @param {App} app */
function itemRow(item, app) {
  const { queue } = app;
  const thumb = h("span", { class: "thumb" });
  const state = h("span", { class: "item-state", "data-testid": "item-state" });
  const open = h(
    "button",
    { class: "item-open", type: "button", onclick: () => app.select(item) },
    thumb,
    h("span", { class: "item-text" }, h("span", { class: "item-name", title: item.name }, item.name), state),
  );
  const retry = h(
    "button",
    {
      class: "icon-button",
      type: "button",
      onclick: () => queue.retry(item),
      "aria-label": t("item.retry", { name: item.name }),
      title: t("queue.again"),
    },
    icon("retry"),
  );
  const remove = h(
    "button",
    {
      class: "icon-button",
      type: "button",
      onclick: drop,
      "aria-label": t("item.remove", { name: item.name }),
      title: t("queue.remove"),
    },
    icon("close"),
  );
  const element = h("li", { class: "item", "data-testid": "item" }, open, retry, remove);
  /** @type {Blob | null} */
  let drawn = null;

  /** Removes the item; the focus goes to its neighbour. */
  function drop() {
    const next = element.nextElementSibling ?? element.previousElementSibling;
    queue.remove(item);
    next?.querySelector("button")?.focus();
  }

  function update() {
    element.dataset.state = item.state;
    element.dataset.selected = String(app.selected === item);
    open.setAttribute("aria-pressed", String(app.selected === item));
    retry.hidden = item.state !== "failed" && item.state !== "cancelled";
    const review = questionOf(app, item) === "result";
    state.title = item.error?.message ?? "";
    state.textContent = item.error?.message ?? t(review ? "state.review" : `state.${item.state}`);
    const blob = item.result ?? item.preview ?? item.file;
    if (blob && blob !== drawn) {
      drawn = blob;
      fill(thumb, thumbnail(blob));
    }
  }

  return { element, update };
}
