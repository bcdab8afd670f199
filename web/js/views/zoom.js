/** Zoom of the viewer: keys, the wheel with Ctrl or the focus, two fingers; a drag or the arrow keys move a zoomed image. */

import { fill, h } from "../dom.js";
import { percent, t } from "../i18n.js";

const SCALE_MAX = 8;
const STEP = 1.25;
/** Movement by an arrow key, in CSS pixels. */
const KEY_STEP = 40;

/**
 * Makes the content of an element zoomable; it can be replaced.
 * @param {HTMLElement} box
 * @returns {{controls: HTMLElement, reset: () => void}}
 */
export function zoomable(box) {
  let [scale, x, y] = [1, 0, 0];
  /** Positions of the pointers that are down. @type {Map<number, [number, number]>} */
  const pointers = new Map();
  /** @param {string} name @param {string | null} text null: the level of the zoom, which is its name. @param {() => void} onclick */
  const button = (name, text, onclick) =>
    h(
      "button",
      {
        type: "button",
        onclick,
        title: t(`zoom.${name}`),
        "aria-label": text && t(`zoom.${name}`),
        "data-testid": `zoom-${name}`,
      },
      text,
    );
  const level = button("fit", null, () => reset());
  const controls = h("div", { class: "zoom", role: "group", "aria-label": t("zoom.label") });
  fill(controls, button("out", "−", () => zoom(1 / STEP)), level, button("in", "+", () => zoom(STEP)));
  Object.assign(box, { tabIndex: 0 });
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", t("zoom.image"));

  /** Keeps the content over the box. */
  function apply() {
    const { clientWidth: width, clientHeight: height } = box;
    x = Math.min(0, Math.max(width * (1 - scale), x));
    y = Math.min(0, Math.max(height * (1 - scale), y));
    box.classList.toggle("zoomed", scale > 1);
    box.style.setProperty("--zoom", String(scale));
    box.style.setProperty("--x", `${x}px`);
    box.style.setProperty("--y", `${y}px`);
    level.textContent = percent(scale);
  }

  /** @param {number} factor @param {[number, number]} [at] In the box; it stays where it is. */
  function zoom(factor, at = [box.clientWidth / 2, box.clientHeight / 2]) {
    const next = Math.min(SCALE_MAX, Math.max(1, scale * factor));
    x = at[0] - ((at[0] - x) * next) / scale;
    y = at[1] - ((at[1] - y) * next) / scale;
    scale = next;
    apply();
  }

  /** @param {number} dx @param {number} dy */
  function pan(dx, dy) {
    [x, y] = [x + dx, y + dy];
    apply();
  }

  function reset() {
    [scale, x, y] = [1, 0, 0];
    apply();
  }

  /** @param {MouseEvent} event @returns {[number, number]} */
  function place({ clientX, clientY }) {
    const { left, top } = box.getBoundingClientRect();
    return [clientX - left, clientY - top];
  }

  /** @param {WheelEvent} event */
  function wheel(event) {
    if (!event.ctrlKey && !box.contains(document.activeElement)) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 400)), place(event));
  }

  /** @param {KeyboardEvent} event */
  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (event.key === "+" || event.key === "=") zoom(STEP);
    else if (event.key === "-") zoom(1 / STEP);
    else if (event.key === "0") reset();
    else if (by && event.target === box && scale > 1) pan(KEY_STEP * (by[0] ?? 0), KEY_STEP * (by[1] ?? 0));
    else return;
    event.preventDefault();
  }

  /** @param {PointerEvent} event */
  function move(event) {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const at = place(event);
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    pointers.set(event.pointerId, at);
    const slides = event.target instanceof HTMLInputElement;
    if (other) zoom(distance(at, other) / Math.max(1, distance(before, other)), middle(at, other));
    if (other) pan((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
    else if (!slides) pan(at[0] - before[0], at[1] - before[1]);
  }

  /** @param {PointerEvent} event */
  const up = (event) => pointers.delete(event.pointerId);

  box.addEventListener("wheel", wheel, { passive: false });
  box.addEventListener("keydown", key);
  box.addEventListener("pointerdown", (event) => pointers.set(event.pointerId, place(event)));
  box.addEventListener("pointermove", move);
  for (const name of /** @type {const} */ (["pointerup", "pointercancel", "pointerleave"])) box.addEventListener(name, up);
  box.addEventListener("dragstart", (event) => event.preventDefault());
  apply();
  return { controls, reset };
}

/** @param {[number, number]} a @param {[number, number]} b */
function distance(a, b) {
  return Math.hypot(a[0] - b[0], a[1] - b[1]);
}

/** @param {[number, number]} a @param {[number, number]} b @returns {[number, number]} */
function middle(a, b) {
  return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
}
