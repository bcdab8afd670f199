/** Builds elements. Texts become text nodes: no string is ever parsed as HTML. */

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * Returns a new element.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [props] `on…`: a listener; `class`, `aria-…`, `data-…`, `role`, `for`: attributes; others: properties.
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class" || name === "role" || name === "for" || name === "list" || name.includes("-")) {
      element.setAttribute(name, String(value));
    } else Reflect.set(element, name, value);
  }
  append(element, children);
  return element;
}

/** @param {Node} parent @param {Child[]} children */
function append(parent, children) {
  for (const child of children) {
    if (child) parent.appendChild(typeof child === "string" ? document.createTextNode(child) : child);
  }
}

/** Replaces the children of an element. @param {Element} parent @param {...Child} children */
export function fill(parent, ...children) {
  parent.replaceChildren();
  append(parent, children);
}

/** Paths of the icons, on a grid of 24 x 24, drawn as lines. @type {Record<string, string>} */
const ICONS = {
  cut: "M4 8V5a1 1 0 0 1 1-1h3 M16 4h3a1 1 0 0 1 1 1v3 M20 16v3a1 1 0 0 1-1 1h-3 M8 20H5a1 1 0 0 1-1-1v-3 M12 12m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
  detect: "M4 5h9v9H4z M11 11h9v9h-9z",
  review: "M5 12.5l4.5 4.5L19 7.5",
  history: "M4 12a8 8 0 1 0 2.5-5.8 M4 4v4h4 M12 8v4.5l3 1.5",
  usage: "M5 20v-7 M12 20V5 M19 20v-10",
  settings:
    "M4 7h9 M17 7h3 M4 17h3 M11 17h9 M15 7m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0 M9 17m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0",
  upload: "M12 16V5 M7.5 9.5L12 5l4.5 4.5 M5 19h14",
  download: "M12 5v11 M7.5 11.5L12 16l4.5-4.5 M5 20h14",
  close: "M6 6l12 12 M18 6L6 18",
  retry: "M20 12a8 8 0 1 1-2.5-5.8 M20 4v4h-4",
  plus: "M12 5v14 M5 12h14",
  edit: "M5 19l1-4L16 5l3 3L9 18z M14 7l3 3",
  warning: "M12 4l9 16H3z M12 10v4 M12 17v.4",
  key: "M8 15m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0 M11 12l8-8 M15 8l3 3",
  arrows: "M9 7l-5 5 5 5 M15 7l5 5-5 5",
};

/** @param {keyof typeof ICONS} name @returns {SVGSVGElement} */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name] ?? "");
  svg.append(path);
  return svg;
}

/** URLs of blobs, one for each blob; revoked with the blob. @type {WeakMap<Blob, string>} */
const urls = new WeakMap();
const revoked = new FinalizationRegistry((/** @type {string} */ url) => URL.revokeObjectURL(url));

/** @param {Blob} blob @returns {string} */
export function urlOf(blob) {
  let url = urls.get(blob);
  if (!url) {
    url = URL.createObjectURL(blob);
    urls.set(blob, url);
    revoked.register(blob, url);
  }
  return url;
}

/** Pixels of a thumbnail's longer side: twice that of the largest one on the page. */
const THUMBNAIL = 168;

/**
 * A small copy of an image, so that a long list of photos needs little memory. It stays empty for a file that is no image.
 * @param {Blob} blob @returns {HTMLCanvasElement}
 */
export function thumbnail(blob) {
  const canvas = h("canvas", { width: 1, height: 1 });
  void createImageBitmap(blob)
    .then((image) => {
      const scale = Math.min(1, THUMBNAIL / Math.max(image.width, image.height));
      Object.assign(canvas, { width: Math.max(1, image.width * scale), height: Math.max(1, image.height * scale) });
      const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
      context.imageSmoothingQuality = "high";
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      image.close();
    })
    .catch(() => {});
  return canvas;
}

/** Saves a file. @param {Blob} blob @param {string} name */
export function save(blob, name) {
  h("a", { href: urlOf(blob), download: name }).click();
}
