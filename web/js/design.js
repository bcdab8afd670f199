/** From the choices of the panel to the options of the API, and back from a preset. It uses no DOM. */

/** @import { Design, Item, Preset } from "./types.js" */

/** @returns {Design} */
export function plain() {
  return {
    preset: "",
    engine: "",
    background: "none",
    colour: "#ffffff",
    from: "#f5f7fa",
    to: "#c9d2de",
    angle: "180deg",
    studio: "white",
    blur: 2,
    image: null,
    text: "",
    shadow: "none",
    opacity: 35,
    canvas: "",
    width: 1000,
    height: 1000,
    padding: 0,
    outline: 0,
    outlineColour: "#ffffff",
    format: "png",
    size: "original",
    rest: {},
  };
}

/** Backdrops of `studio`; a test compares them with the API. */
export const STUDIOS = ["white", "lightgrey", "grey", "charcoal", "black", "cream", "beige", "blush", "blue", "green"];

/** Default opacity of each shadow, in percent. @type {Record<string, number>} */
const OPACITIES = { drop: 35, contact: 60 };

/** Fields of `output` that the panel has. */
const FIELDS = ["format", "channels", "background", "shadow", "canvas", "padding", "outline", "size"];

/**
 * `output` of the API. A background of a file is not in it: `withImage` draws it. A background of a file or a text replaces
 * that of a marketplace, so only the other rules of the marketplace are sent with it.
 * @param {Design} design @param {Marketplace[]} [marketplaces] @returns {Record<string, unknown>}
 */
export function outputOf(design, marketplaces = []) {
  /** @type {Record<string, unknown>} */
  const output = { ...design.rest };
  const background = backgroundOf(design);
  if (background) output.background = background;
  if (design.shadow !== "none") output.shadow = `${design.shadow} ${design.opacity}%`;
  if (design.canvas) output.canvas = design.canvas === "custom" ? `${design.width}x${design.height}` : design.canvas;
  const own = design.background === "image" || design.background === "text";
  const market = own && marketplaces.find(({ name }) => name === design.canvas);
  if (market) Object.assign(output, { canvas: market.canvas, padding: market.padding });
  if (design.padding) output.padding = `${design.padding}%`;
  if (design.outline) output.outline = `${design.outline}% ${design.outlineColour}`;
  if (design.size !== "original" && !exact(design)) output.size = design.size;
  output.format = design.background === "image" ? "png" : design.format;
  return output;
}

/** Whether the canvas has a size in pixels, which excludes `size`. @param {Design} design */
export function exact(design) {
  return Boolean(design.canvas) && !design.canvas.includes(":");
}

/** @param {Design} design @returns {string} "" for none. */
function backgroundOf(design) {
  switch (design.background) {
    case "colour":
      return design.colour;
    case "gradient":
      return `gradient ${design.angle} ${design.from} ${design.to}`;
    case "studio":
      return `studio ${design.studio}`;
    case "blur":
      return `blur ${design.blur}%`;
    default:
      return "";
  }
}

/**
 * The request for the finished image of an item.
 * @param {Design} design @param {Item} item @param {Marketplace[]} marketplaces
 * @returns {{path: string, options: Record<string, unknown>}}
 */
export function requestOf(design, item, marketplaces) {
  const options = subjectOf(design, item);
  if (design.preset) return { path: "/v1/cutouts", options: { ...options, preset: design.preset } };
  options.output = outputOf(design, marketplaces);
  if (design.background !== "text") return { path: "/v1/cutouts", options };
  return { path: "/v1/edits", options: { ...options, edit: { prompts: design.text.trim(), change: "background" } } };
}

/**
 * The options that choose the subject. An engine of the panel gives way to prompts: the server chooses one for them. The
 * image of a job keeps its engine.
 * @param {Design} design @param {Item} item @returns {Record<string, unknown>}
 */
export function subjectOf(design, item) {
  /** @type {Record<string, unknown>} */
  const options = {};
  if (item.prompts.length) options.prompt = item.prompts;
  else {
    const engine = design.engine || (item.job?.engine !== "prompted" && item.job?.engine);
    if (engine) options.engine = engine;
  }
  if (item.strokes.length) options.strokes = item.strokes;
  return options;
}

/** Whether the finished image is the cut-out itself. @param {Design} design */
export function isPlain(design) {
  const output = outputOf(design);
  return (
    !design.preset &&
    design.background !== "image" &&
    design.background !== "text" &&
    Object.keys(output).length === 1 &&
    design.format === "png"
  );
}

/** Whether the finished image covers the same part of the source as the cut-out. @param {Design} design */
export function keepsPlace(design) {
  const { canvas, padding, rest, preset } = design;
  return !preset && !canvas && !padding && !rest.crop && !rest.scale && !rest.position;
}

/** Whether a background lacks what it needs. @param {Design} design */
export function incomplete(design) {
  return (design.background === "image" && !design.image) || (design.background === "text" && !design.text.trim());
}

/** The value of CSS that looks like the background; "" for none. @param {Design} design */
export function cssOf(design) {
  if (design.background === "colour") return design.colour;
  if (design.background !== "gradient") return "";
  const shape = design.angle === "radial" ? "radial-gradient(farthest-corner" : `linear-gradient(${design.angle}`;
  return `${shape}, ${design.from}, ${design.to})`;
}

/**
 * The choices that show a preset in the panel. A change of them starts from the preset's values.
 * @param {Preset} preset @returns {Design}
 */
export function designOf(preset) {
  const design = plain();
  /** @type {Record<string, string>} */
  const output = {};
  for (const [name, value] of Object.entries(preset.output ?? {})) {
    if (!FIELDS.includes(name)) design.rest[name] = value;
    else output[name] = typeof value === "string" ? value : "";
  }
  design.preset = preset.name;
  design.engine = preset.engine === "auto" ? "" : (preset.engine ?? "");
  if (output.channels === "alpha") design.rest.channels = "alpha";
  design.format = /** @type {Design["format"]} */ (output.format ?? "png");
  design.size = output.size ?? "original";
  design.padding = percent(output.padding);
  const [outline = "", outlineColour] = (output.outline ?? "").split(" ");
  if (outline.endsWith("px") || (output.padding ?? "").includes("px")) {
    for (const name of ["outline", "padding"]) if (output[name]?.includes("px")) design.rest[name] = output[name];
  }
  design.outline = percent(outline);
  design.outlineColour = hex(outlineColour) || "#ffffff";
  const canvas = output.canvas ?? "";
  const size = /^(\d+)x(\d+)$/.exec(canvas);
  if (size) Object.assign(design, { canvas: "custom", width: Number(size[1]), height: Number(size[2]) });
  else design.canvas = canvas;
  const [shadow = "none", ...rest] = (output.shadow ?? "none").split(" ");
  design.shadow = /** @type {Design["shadow"]} */ (shadow);
  design.opacity = percent(rest.length === 1 ? rest[0] : "") || OPACITIES[shadow] || 35;
  readBackground(design, output.background ?? "");
  return design;
}

/** @param {Design} design @param {string} value */
function readBackground(design, value) {
  const [kind = "", ...words] = value.split(" ");
  if (kind === "blur") Object.assign(design, { background: "blur", blur: percent(words[0]) || 2 });
  else if (kind === "studio") Object.assign(design, { background: "studio", studio: words[0] });
  else if (kind === "gradient") {
    const colours = words.map(hex).filter(Boolean);
    const angle = words.find((word) => word.endsWith("deg") || word === "radial") ?? "180deg";
    Object.assign(design, {
      background: "gradient",
      from: colours[0] ?? design.from,
      to: colours.at(-1) ?? design.to,
      angle,
    });
  } else if (hex(kind)) Object.assign(design, { background: "colour", colour: hex(kind) });
}

/** @param {string | undefined} value @returns {number} 0 for another unit. */
function percent(value) {
  return /^[\d.]+%$/.test(value ?? "") ? Number.parseFloat(value ?? "") : 0;
}

/** @param {string | undefined} value @returns {string} `#rrggbb`; "" for no such colour. */
function hex(value) {
  return /^#[0-9a-f]{6}/i.test(value ?? "") ? (value ?? "").slice(0, 7).toLowerCase() : "";
}

/** @typedef {{name: string, canvas?: string, padding?: string, background?: string}} Marketplace */

/**
 * The marketplaces in the OpenAPI document: the extension `x-marketplaces` of the field `canvas`.
 * @param {any} openapi @returns {Marketplace[]}
 */
export function marketplacesOf(openapi) {
  const table = openapi?.components?.schemas?.Output?.properties?.canvas?.["x-marketplaces"] ?? {};
  return Object.entries(table).map(([name, rules]) => ({ name, .../** @type {Omit<Marketplace, "name">} */ (rules) }));
}
