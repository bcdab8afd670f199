/** Takes images: dropped, pasted, chosen, or named by their URL. */

import { h, icon } from "../dom.js";
import { t } from "../i18n.js";
import { nameOfUrl } from "../names.js";

/** @typedef {{name: string, file?: Blob, url?: string}} Source */
/** @typedef {(sources: Source[]) => void} Take */

/** @param {Iterable<File>} files @returns {Source[]} */
export function sourcesOf(files) {
  return [...files].map((file) => ({ name: file.name || t("intake.pasted"), file }));
}

/** Loads the preview while the user still chooses. It is optional: a failure changes nothing. */
function warmUp() {
  import("../preview.js").then(({ warm }) => warm()).catch(() => {});
}

/**
 * A hidden input and the button that opens it.
 * @param {Take} take
 * @param {{label: string, style?: string, multiple?: boolean, testid?: string}} options
 */
export function chooser(take, { label, style = "button primary", multiple = true, testid = "file-input" }) {
  const input = h("input", {
    type: "file",
    accept: "image/*,.heic,.heif,.avif,.tif,.tiff",
    multiple,
    class: "hidden-text",
    tabIndex: -1,
    "aria-label": label,
    "data-testid": testid,
    onchange: () => {
      take(sourcesOf(input.files ?? []));
      input.value = "";
    },
  });
  return h(
    "span",
    {},
    input,
    h(
      "button",
      { type: "button", class: style, onfocus: warmUp, onpointerenter: warmUp, onclick: () => input.click() },
      icon("upload"),
      label,
    ),
  );
}

/** A form for the URLs of images. @param {Take} take */
export function urlForm(take) {
  const input = h("input", {
    type: "text",
    inputMode: "url",
    id: "url",
    placeholder: "https://",
    autocomplete: "off",
    spellcheck: false,
    "data-testid": "url-input",
    "aria-describedby": "url-error",
  });
  const error = h("p", { class: "field-error", id: "url-error", role: "alert" });
  /** @param {Event} event */
  const send = (event) => {
    event.preventDefault();
    const urls = input.value.split(/\s+/).filter(Boolean);
    const bad = urls.find((url) => !isHttps(url));
    error.textContent = bad ? t("intake.badurl", { url: bad }) : "";
    input.setAttribute("aria-invalid", String(Boolean(bad)));
    if (bad || !urls.length) return;
    take(urls.map((url) => ({ name: nameOfUrl(url), url })));
    input.value = "";
  };
  return h(
    "form",
    { class: "url", onsubmit: send, noValidate: true },
    h("label", { for: "url" }, t("intake.url")),
    h("div", { class: "row" }, input, h("button", { class: "button" }, t("intake.add"))),
    error,
  );
}

/** @param {string} text */
function isHttps(text) {
  try {
    return new URL(text).protocol === "https:";
  } catch {
    return false;
  }
}

/**
 * Takes files that are dropped on the page or pasted, while a view is shown. Returns what ends it.
 * @param {HTMLElement} root Has the class `dragging` while files are above the page.
 * @param {Take} take
 */
export function dropAndPaste(root, take) {
  const controller = new AbortController();
  const { signal } = controller;
  let depth = 0;
  /** @param {number} change */
  const dragging = (change) => {
    depth = change ? Math.max(0, depth + change) : 0;
    root.classList.toggle("dragging", depth > 0);
  };
  /** @param {DragEvent} event */
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener(
    "dragenter",
    (event) => {
      if (!hasFiles(event)) return;
      dragging(1);
      warmUp();
    },
    { signal },
  );
  addEventListener("dragleave", (event) => hasFiles(event) && dragging(-1), { signal });
  addEventListener("dragover", (event) => event.preventDefault(), { signal });
  addEventListener(
    "drop",
    (event) => {
      event.preventDefault();
      dragging(0);
      const files = event.dataTransfer?.files;
      if (files?.length) take(sourcesOf(files));
    },
    { signal },
  );
  addEventListener(
    "paste",
    (event) => {
      const files = event.clipboardData?.files;
      if (files?.length) take(sourcesOf(files));
    },
    { signal },
  );
  return () => controller.abort();
}
