/**
 * Images that fill their box, and a slider between the original and the result. A native range carries the keyboard,
 * the pointer and screen readers.
 */

import { fill, h, icon } from "../dom.js";
import { percent, t } from "../i18n.js";

/** An image that is as large as its box allows. @param {string} src @returns {HTMLImageElement} */
export function fitted(src) {
  const image = h("img", { class: "fit", src, alt: "", decoding: "async" });
  image.addEventListener("load", () =>
    image.style.setProperty("--ratio", String(image.naturalWidth / image.naturalHeight)),
  );
  return image;
}

/**
 * @param {HTMLElement} root
 * @param {{before: string, after: string, css: string}} images URLs; css: background of the result.
 */
export function compare(root, { before, after, css }) {
  const old = root.querySelector("input");
  const start = old?.value ?? "50";
  const result = fitted(after);
  result.classList.add("checker");
  if (css) result.style.background = css;
  const original = h("img", { class: "compare-before", src: before, alt: "", decoding: "async" });
  const line = h("span", { class: "compare-line" }, h("span", { class: "compare-handle" }, icon("arrows")));
  const range = h("input", {
    type: "range",
    class: "compare-range",
    min: "0",
    max: "100",
    step: "1",
    value: start,
    "aria-label": t("viewer.slider"),
    "data-testid": "compare-slider",
    oninput: move,
  });
  const box = h("div", { class: "compare" }, result, original, line, range, tag("before"), tag("after"));

  function move() {
    box.style.setProperty("--at", `${range.value}%`);
    range.setAttribute("aria-valuetext", t("viewer.slider.value", { value: percent(Number(range.value) / 100) }));
  }

  original.addEventListener("error", () => box.classList.add("no-before"));
  move();
  fill(root, box);
  if (old && document.activeElement === document.body) range.focus({ preventScroll: true });
}

/** @param {"before" | "after"} side */
function tag(side) {
  return h("span", { class: `compare-tag ${side}`, "aria-hidden": "true" }, t(`viewer.${side}`));
}
