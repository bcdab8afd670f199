/** The panel of the design: preset, background, shadow, canvas, outline, export. */

import { exact, designOf, plain, STUDIOS } from "../design.js";
import { fill, h, urlOf } from "../dom.js";
import { number, percent, t } from "../i18n.js";
import { colour, id, numberField, segmented, select, slider } from "./controls.js";
import { chooser } from "./intake.js";

/** @import { App } from "../app.js" */
/** @import { BackgroundKind, Design } from "../types.js" */

const KINDS = ["none", "colour", "gradient", "studio", "blur", "image", "text"];
const ANGLES = ["180deg", "90deg", "135deg", "radial"];
const RATIOS = ["1:1", "4:5", "3:4", "16:9"];
const SWATCHES = ["#ffffff", "#f4f4f5", "#d4d4d8", "#18181b", "#fde68a", "#bfdbfe", "#bbf7d0", "#fecdd3"];
/** @type {[string, string][]} */
const FORMATS = [
  ["png", "PNG"],
  ["webp", "WebP"],
  ["jpg", "JPEG"],
  ["avif", "AVIF"],
];
const SIZES = ["original", "hd", "medium", "preview"];
const SIDE_MAX = 10_000;

/** @param {HTMLElement} root @param {App} app @returns {() => void} */
export function panel(root, app) {
  /** Groups whose controls depend on each other are drawn again; a control that is being used is not. */
  function draw() {
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.testid : "";
    const closed = new Set(
      [...root.querySelectorAll("details:not([open])")].map((group) => group.getAttribute("data-group")),
    );
    const first = root.childElementCount === 0;
    const top = root.scrollTop;
    fill(
      root,
      head(),
      presets(),
      ...[
        ["background", background()],
        ["shadow", shadow()],
        ["canvas", canvas()],
        ["outline", outline()],
        ["export", output()],
        ["subject", subject()],
      ].map(([name, children]) =>
        group(
          /** @type {string} */ (name),
          /** @type {HTMLElement[]} */ (children),
          first
            ? !["outline", "subject"].includes(/** @type {string} */ (name))
            : !closed.has(/** @type {string} */ (name)),
        ),
      ),
    );
    root.scrollTop = top;
    if (focused) /** @type {HTMLElement | null} */ (root.querySelector(`[data-testid="${focused}"]`))?.focus();
  }

  /** A change that shows or hides controls. @param {Partial<Design>} changes */
  const change = (changes) => {
    app.change(changes);
    draw();
  };

  /** A change of a value. @param {Partial<Design>} changes */
  const set = (changes) => {
    const preset = app.design.preset;
    app.change(changes);
    if (preset)
      for (const chip of root.querySelectorAll(".chip"))
        chip.setAttribute("aria-pressed", String(chip.getAttribute("data-preset") === ""));
  };

  function head() {
    const reset = h(
      "button",
      { type: "button", class: "button small quiet", onclick: () => change(plain()), "data-testid": "design-reset" },
      t("panel.reset"),
    );
    return h("div", { class: "panel-head" }, h("h2", {}, t("panel.label")), reset);
  }

  function presets() {
    const usable = app.presets.filter(
      (preset) => !preset.error && (preset.task ?? "cutout") === "cutout" && preset.name !== "default",
    );
    const chips = [
      { name: "", text: t("panel.preset.none"), use: () => change({ preset: "" }) },
      ...usable.map((preset) => ({
        name: preset.name,
        text: preset.name,
        use: () => change(designOf(preset)),
      })),
    ];
    return h(
      "div",
      { class: "chips", role: "group", "aria-label": t("panel.preset") },
      ...chips.map(({ name, text, use }) =>
        h(
          "button",
          {
            type: "button",
            class: "chip",
            "aria-pressed": String(app.design.preset === name),
            "data-preset": name,
            "data-testid": `preset-${name || "none"}`,
            onclick: use,
          },
          text,
        ),
      ),
    );
  }

  /** @returns {(HTMLElement | null)[]} */
  function background() {
    const { design } = app;
    const kinds = segmented({
      label: t("panel.kind"),
      value: design.background,
      options: KINDS.map((kind) => [kind, t(`bg.${kind}`)]),
      testid: "design-background",
      change: (kind) => change({ background: /** @type {BackgroundKind} */ (kind) }),
    });
    kinds.classList.add("grid");
    return [kinds, ...backgroundControls(design.background)];
  }

  /** @param {BackgroundKind} kind @returns {HTMLElement[]} */
  function backgroundControls(kind) {
    const { design } = app;
    switch (kind) {
      case "colour":
        return [
          h(
            "div",
            { class: "swatches" },
            ...SWATCHES.map((value) => swatch(value, design.colour === value, () => change({ colour: value }))),
          ),
          colour({
            label: t("panel.colour"),
            value: design.colour,
            testid: "design-colour",
            change: (value) => set({ colour: value }),
          }),
        ];
      case "gradient":
        return [
          colour({ label: t("panel.from"), value: design.from, change: (from) => set({ from }) }),
          colour({ label: t("panel.to"), value: design.to, change: (to) => set({ to }) }),
          select({
            label: t("panel.direction"),
            value: design.angle,
            options: ANGLES.map((angle) => [angle, t(`angle.${angle}`)]),
            change: (angle) => set({ angle }),
          }),
        ];
      case "studio":
        return [
          select({
            label: t("panel.studio"),
            value: design.studio,
            options: STUDIOS.map((name) => [name, t(`studio.${name}`)]),
            testid: "design-studio",
            change: (studio) => set({ studio }),
          }),
        ];
      case "blur":
        return [
          slider({
            label: t("panel.blur"),
            value: design.blur,
            min: 0.5,
            max: 10,
            step: 0.5,
            text: (value) => percent1(value),
            change: (blur) => set({ blur }),
          }),
        ];
      case "image":
        return [
          h(
            "div",
            { class: "field-row" },
            design.image
              ? h("img", { class: "background-thumb", src: urlOf(design.image), alt: "" })
              : h("p", { class: "hint" }, t("panel.image.none")),
            chooser(([source]) => source?.file && change({ image: source.file }), {
              label: t("panel.image"),
              style: "button small",
              multiple: false,
              testid: "design-image",
            }),
          ),
        ];
      case "text":
        return [textForm()];
      default:
        return [];
    }
  }

  function textForm() {
    const key = id();
    const input = h("textarea", {
      id: key,
      rows: 2,
      maxLength: 1000,
      value: app.design.text,
      placeholder: t("panel.text.placeholder"),
      "data-testid": "design-text",
    });
    /** @param {Event} event */
    const send = (event) => {
      event.preventDefault();
      set({ text: input.value });
    };
    return h(
      "form",
      { class: "field", onsubmit: send },
      h("label", { for: key }, t("panel.text")),
      input,
      h("p", { class: "hint" }, t("panel.text.cost")),
      h("button", { class: "button small" }, t("panel.apply")),
    );
  }

  function shadow() {
    const { design } = app;
    return [
      segmented({
        label: t("panel.shadow"),
        value: design.shadow,
        options: ["none", "drop", "contact"].map((kind) => [kind, t(`shadow.${kind}`)]),
        testid: "design-shadow",
        change: (kind) =>
          change({ shadow: /** @type {Design["shadow"]} */ (kind), opacity: kind === "contact" ? 60 : 35 }),
      }),
      design.shadow !== "none" &&
        slider({
          label: t("panel.opacity"),
          value: design.opacity,
          min: 5,
          max: 100,
          step: 5,
          text: (value) => percent(value / 100),
          change: (opacity) => set({ opacity }),
        }),
    ];
  }

  function canvas() {
    const { design } = app;
    const options = [
      ["", t("canvas.image")],
      ["custom", t("canvas.custom")],
      { group: t("canvas.ratios"), options: RATIOS.map((ratio) => [ratio, ratio]) },
      {
        group: t("canvas.markets"),
        options: app.marketplaces.map(({ name, canvas: side }) => [
          name,
          `${title(name)}${side ? ` · ${side.replace("x", " × ")}` : ""}`,
        ]),
      },
    ];
    const market = app.marketplaces.find(({ name }) => name === design.canvas);
    const custom = design.canvas === "custom";
    return [
      select({
        label: t("panel.size"),
        value: design.canvas,
        options,
        testid: "design-canvas",
        change: (value) => change({ canvas: value, padding: 0 }),
      }),
      custom &&
        h(
          "div",
          { class: "pair" },
          numberField({
            label: t("panel.width"),
            value: design.width,
            min: 1,
            max: SIDE_MAX,
            testid: "design-width",
            change: (width) => set({ width }),
          }),
          numberField({
            label: t("panel.height"),
            value: design.height,
            min: 1,
            max: SIDE_MAX,
            testid: "design-height",
            change: (height) => set({ height }),
          }),
        ),
      slider({
        label: t("panel.padding"),
        value: design.padding || Number.parseFloat(market?.padding ?? "0"),
        min: 0,
        max: 40,
        text: (value) => percent(value / 100),
        testid: "design-padding",
        change: (padding) => set({ padding }),
      }),
    ];
  }

  function outline() {
    const { design } = app;
    return [
      slider({
        label: t("panel.outline"),
        value: design.outline,
        min: 0,
        max: 10,
        step: 0.5,
        text: percent1,
        testid: "design-outline",
        change: (value) => set({ outline: value }),
      }),
      colour({
        label: t("panel.outlineColour"),
        value: design.outlineColour,
        change: (outlineColour) => set({ outlineColour }),
      }),
    ];
  }

  function output() {
    const { design } = app;
    const conflict = design.format === "avif" && design.background === "image";
    return [
      segmented({
        label: t("panel.format"),
        value: design.format,
        options: FORMATS,
        testid: "design-format",
        change: (format) => change({ format: /** @type {Design["format"]} */ (format) }),
      }),
      (conflict || (design.format === "jpg" && design.background === "none" && !design.preset)) &&
        h("p", { class: "hint" }, t(conflict ? "panel.avif" : "panel.jpg")),
      !exact(design) &&
        select({
          label: t("panel.resolution"),
          value: design.size,
          options: SIZES.map((size) => [size, t(`size.${size}`)]),
          testid: "design-size",
          change: (size) => set({ size }),
        }),
    ];
  }

  function subject() {
    const engines = app.engines.filter(
      (engine) =>
        engine.tasks.includes("cutout") &&
        engine.available !== false &&
        engine.interactive &&
        engine.name !== "auto" &&
        !engine.prompts.includes("points") &&
        engine.name !== "grabcut",
    );
    return [
      select({
        label: t("panel.engine"),
        value: app.design.engine,
        options: [["", t("engine.default")], ...engines.map((engine) => [engine.name, engine.name])],
        testid: "design-engine",
        change: (engine) => set({ engine }),
      }),
      h(
        "button",
        {
          type: "button",
          class: "button small",
          onclick: () => app.queue.items.forEach((item) => app.queue.retry(item)),
        },
        t("panel.engine.again"),
      ),
    ];
  }

  draw();
  app.addEventListener("status", draw);
  return () => app.removeEventListener("status", draw);
}

/** @param {string} name @param {(HTMLElement | null | false)[]} children @param {boolean} open */
function group(name, children, open) {
  return h(
    "details",
    { class: "group", open, "data-group": name },
    h("summary", {}, t(`panel.${name}`)),
    h("div", { class: "group-body" }, ...children),
  );
}

/** @param {string} value @param {boolean} chosen @param {() => void} use */
function swatch(value, chosen, use) {
  const button = h("button", {
    type: "button",
    class: "swatch",
    "aria-label": value,
    "aria-pressed": String(chosen),
    "data-testid": `swatch-${value}`,
    onclick: use,
  });
  button.style.background = value;
  return button;
}

/** @param {number} value In percent. */
function percent1(value) {
  return number(value / 100, { style: "percent", maximumFractionDigits: 1 });
}

/** @param {string} name */
function title(name) {
  return name === "ebay" ? "eBay" : name.charAt(0).toUpperCase() + name.slice(1);
}
