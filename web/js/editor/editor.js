/**
 * The editor of one image: prompts whose mask is shown at once, and a brush whose strokes are kept as data. The server
 * makes the result from prompts and strokes when they are applied.
 */

import { fill, h } from "../dom.js";
import { addTexts, number, percent, t } from "../i18n.js";
import { LatestCache } from "./cache.js";
import { boxOf, fitView, inside, panView, pinchView, reveal, toImage, toScreen, zoomView } from "./geometry.js";
import { History } from "./history.js";
import { boxAt, hit, indexOf, toggled, withBox, without, withPoint } from "./prompts.js";
import { Sources } from "./sources.js";
import { masked, Stage } from "./stage.js";
import { fromApi, StrokeInput, WIDTH_MAX, WIDTH_MIN, withinLimits } from "./strokes.js";
import { texts } from "./texts.js";

/** @import { App } from "../app.js" */
/** @import { Item } from "../types.js" */
/** @import { Box, Point } from "./geometry.js" */
/** @import { Choice, Prompt } from "./prompts.js" */
/** @import { Mask } from "./sources.js" */
/** @import { Level } from "./stage.js" */
/** @import { BrushStroke } from "./strokes.js" */

/** @typedef {"point" | "box" | "erase" | "restore" | "pan"} Tool */
/** @typedef {{prompts: Prompt[], strokes: BrushStroke[]}} Edits */
/** @typedef {{history: History<Edits>, selected: number}} Draft */

/** @type {[Tool, string, string][]} Key and icon of each tool. */
const TOOLS = [
  ["point", "p", "M6 4l12 8-5 1.5L10.5 19z"],
  ["box", "b", "M5 8V5h3 M16 5h3v3 M19 16v3h-3 M8 19H5v-3"],
  ["erase", "e", "M9 19l-5-5 9-9 6 6-8 8z M8 10l6 6 M9 19h10"],
  ["restore", "r", "M5 19c2-1 2-4 4-5l8-9 3 3-9 8c-1 2-4 3-6 3z"],
  ["pan", "h", "M12 4v16 M4 12h16 M9.5 6.5L12 4l2.5 2.5 M9.5 17.5L12 20l2.5-2.5 M6.5 9.5L4 12l2.5 2.5 M17.5 9.5L20 12l-2.5 2.5"],
];

const BIN = "M5 7h14 M10 7V4h4v3 M7 7l1 13h8l1-13";

const ZOOM_STEP = 1.25;
const SIZE_STEP = 1.2;
/** Distance of a key's step and of a hit, in CSS pixels. */
const KEY_STEP = 10;
const REACH = 12;
/** Movement of the pointer from which a click is no click, in CSS pixels. */
const CLICK_SLOP = 5;
/** Tolerance of a stroke's points, in CSS pixels. */
const TOLERANCE = 0.4;
const MASK_COLOUR = "rgb(45 211 111 / 50%)";

/** Edits that were not applied when the editor was closed. @type {WeakMap<Item, Draft>} */
const drafts = new WeakMap();

/**
 * Opens the editor in an element. onChange gets prompts and strokes in the form of the API when they are applied.
 * @param {HTMLElement} root
 * @param {{item: Item, app: App, onChange: (changes: {prompts: any[], strokes: any[]}) => void, onClose: () => void}} options
 * @returns {{destroy: () => void}}
 */
export function openEditor(root, { item, app, onChange, onClose }) {
  addTexts(texts);
  const editor = new Editor(root, item, app, onChange, onClose);
  void editor.load();
  return editor;
}

class Editor {
  /** @param {HTMLElement} root @param {Item} item @param {App} app @param {(changes: {prompts: any[], strokes: any[]}) => void} onChange @param {() => void} onClose */
  constructor(root, item, app, onChange, onClose) {
    this.root = root;
    this.item = item;
    this.app = app;
    this.onChange = onChange;
    this.onClose = onClose;
    this.ended = false;
    this.ready = false;
    this.pointerOver = false;
    this.sources = new Sources(app, item);
    /** @type {LatestCache<Mask>} */
    this.masks = new LatestCache((key, signal) => this.sources.mask(JSON.parse(key), signal));
    /** @type {Draft} */
    this.draft = { history: new History({ prompts: [], strokes: [] }), selected: -1 };
    /** @type {Tool} */
    this.tool = item.result && !item.prompts.length ? "erase" : "point";
    /** @type {0 | 1} */
    this.label = 1;
    this.width = 40;
    this.hardness = 0.8;
    /** @type {Level[]} */
    this.cutout = [];
    /** @type {Mask | null} */
    this.mask = null;
    /** @type {Level[]} */
    this.ownTint = [];
    /** @type {Level[]} */
    this.tint = [];
    /** @type {Level[]} */
    this.behind = [];
    /** @type {{label: string, score: number, box: Box}[]} */
    this.found = [];
    /** @type {Point} */
    this.cursor = [0, 0];
    /** @type {Map<number, Point>} */
    this.pointers = new Map();
    /** @type {{kind: "click" | "box" | "stroke" | "pan", from: Point, at: Point, label: 0 | 1, input: StrokeInput | null, keys: boolean} | null} */
    this.gesture = null;
    this.build();
  }

  get edits() {
    return this.draft.history.state;
  }

  get brush() {
    return this.tool === "erase" || this.tool === "restore";
  }

  /** @returns {Choice} */
  get choice() {
    return { prompts: this.edits.prompts, selected: this.draft.selected };
  }

  /** Whether prompts or strokes differ from those of the item. */
  get changed() {
    const { prompts, strokes } = this.edits;
    const own = this.item.strokes.map((stroke) => fromApi(stroke, this.longer));
    return JSON.stringify([prompts, strokes]) !== JSON.stringify([this.item.prompts, own]);
  }

  /** Whether the prompts are those of the item, whose cut-out is there. */
  get own() {
    return JSON.stringify(this.edits.prompts) === JSON.stringify(this.item.prompts) && this.cutout.length > 0;
  }

  get longer() {
    return Math.max(this.sources.size.width, this.sources.size.height);
  }

  build() {
    this.stageBox = h("div", {
      class: "editor-stage",
      tabIndex: 0,
      role: "application",
      "aria-label": t("editor.stage"),
      "data-testid": "editor-stage",
    });
    this.status = h("p", { class: "editor-status", role: "status", "data-testid": "editor-status" });
    this.bar = h("div", { class: "editor-bar", role: "toolbar", "aria-label": t("editor.tools") });
    this.options = h("div", { class: "editor-options" });
    this.list = h("div", { class: "editor-list", "data-testid": "editor-prompts" });
    this.applyButton = h("button", { class: "button primary", type: "button", "data-testid": "editor-apply", onclick: () => this.apply() }, t("editor.apply"));
    const cancel = h("button", { class: "button", type: "button", "data-testid": "editor-cancel", onclick: () => this.cancel() }, t("editor.cancel"));
    fill(
      this.root,
      h(
        "section",
        { class: "editor-box", "aria-label": t("editor.label"), "data-testid": "editor" },
        this.bar,
        this.options,
        this.stageBox,
        h("div", { class: "editor-foot" }, this.status, cancel, this.applyButton),
        this.list,
        h("details", { class: "editor-keys" }, h("summary", {}, t("editor.keys")), h("p", {}, t("editor.keys.text"))),
      ),
    );
    this.stage = new Stage(this.stageBox);
    this.listen();
    this.drawControls();
    this.say(t("editor.loading"));
  }

  async load() {
    try {
      await this.sources.load();
    } catch (error) {
      return this.say(t("editor.nosource", { message: messageOf(error) }), true);
    }
    if (this.ended) return;
    this.stage?.setSource(this.sources.levels);
    this.width = Math.max(8, Math.min(WIDTH_MAX, Math.round(this.longer / 30)));
    this.cursor = [this.sources.size.width / 2, this.sources.size.height / 2];
    this.draft = drafts.get(this.item) ?? this.fresh();
    this.ready = true;
    this.say(this.hasSam() ? "" : t("editor.nosam"));
    try {
      this.cutout = await this.sources.cutout();
      const small = this.cutout.at(-1);
      if (small) this.ownTint = [masked(/** @type {ImageBitmap} */ (small.image), MASK_COLOUR)];
    } catch (error) {
      this.say(t("editor.error", { message: messageOf(error) }), true);
    }
    if (!this.ended) this.update();
  }

  /** @returns {Draft} */
  fresh() {
    const strokes = this.item.strokes.map((stroke) => fromApi(stroke, this.longer));
    return { history: new History({ prompts: /** @type {Prompt[]} */ (this.item.prompts), strokes }), selected: -1 };
  }

  destroy() {
    if (this.ended) return;
    this.ended = true;
    if (this.ready && this.changed) drafts.set(this.item, this.draft);
    this.masks.abort();
    this.sources.destroy();
    this.stage?.destroy();
  }

  apply() {
    if (!this.ready) return;
    if (!this.changed) return this.say(t("editor.unchanged"));
    const { prompts, strokes } = this.edits;
    this.onChange({ prompts: [...prompts], strokes: [...strokes] });
    drafts.set(this.item, this.draft);
    this.onClose();
  }

  cancel() {
    this.draft = this.fresh();
    drafts.delete(this.item);
    this.onClose();
  }

  hasSam() {
    return this.app.engines.some((engine) => /^sam/.test(engine.name) && engine.available !== false);
  }

  /** @param {string} text @param {boolean} [bad] */
  say(text, bad = false) {
    if (!this.status) return;
    this.status.textContent = text;
    this.status.classList.toggle("bad", bad);
  }

  // Edits

  /** @param {Partial<Edits>} changes */
  push(changes) {
    this.draft.history.push({ ...this.edits, ...changes });
    this.update();
  }

  /** @param {Choice} choice */
  choose(choice) {
    if (choice.prompts === this.edits.prompts) {
      if (choice.selected === this.draft.selected) return this.say(t("editor.nosubject"), true);
      this.draft.selected = choice.selected;
      return this.update();
    }
    this.draft.selected = choice.selected;
    this.push({ prompts: choice.prompts });
  }

  /** @param {"undo" | "redo"} way */
  step(way) {
    this.endGesture(false);
    if (!this.draft.history[way]()) return;
    this.say("");
    this.draft.selected = Math.min(this.draft.selected, this.edits.prompts.length - 1);
    this.update();
  }

  /** Shows the current edits. */
  update() {
    if (!this.ready) return;
    this.drawControls();
    this.drawList();
    void this.updateMask();
    this.show();
  }

  show() {
    const { prompts, strokes } = this.edits;
    const own = this.own;
    this.stageBox?.classList.toggle("brushing", this.brush || this.tool === "pan");
    if (this.brush || this.tool === "pan") this.stage?.setShown(own ? this.cutout : this.behind, strokes);
    else this.stage?.setShown(own ? this.ownTint : this.tint, []);
    this.stage?.setMarks({
      prompts: this.brush ? [] : prompts,
      selected: this.draft.selected,
      found: this.brush ? [] : this.found.map(({ box }) => box),
    });
    this.showCursor(false);
  }

  async updateMask() {
    const { prompts } = this.edits;
    if (!prompts.length || this.own) {
      this.masks.abort();
      [this.mask, this.tint, this.behind] = [null, [], []];
      return;
    }
    const known = this.masks.results.has(JSON.stringify(prompts));
    if (!known) this.say(t("editor.segmenting"));
    try {
      const mask = await this.masks.get(JSON.stringify(prompts));
      if (!mask || this.ended || mask === this.mask) return;
      this.mask = mask;
      this.tint = [masked(mask.alpha, MASK_COLOUR)];
      this.behind = this.sources.behind(mask);
      const engine = mask.facts.subject?.engine ?? mask.facts.engine;
      this.say(mask.share > 0 ? t("editor.masked", { percent: percent(mask.share), engine }) : t("editor.nomask"), mask.share === 0);
      this.show();
    } catch (error) {
      if (!this.ended) this.say(t("editor.error", { message: messageOf(error) }), true);
    }
  }

  async find() {
    this.say(t("editor.segmenting"));
    try {
      this.found = await this.sources.instances();
      if (this.ended) return;
      this.say(this.found.length ? t("editor.found", { count: this.found.length }) : t("editor.found.none"));
      this.update();
    } catch (error) {
      if (!this.ended) this.say(t("editor.error", { message: messageOf(error) }), true);
    }
  }

  // Controls

  /** @param {Tool} tool */
  use(tool) {
    this.endGesture(false);
    this.tool = tool;
    this.update();
  }

  /** @param {number} width */
  setWidth(width) {
    this.width = Math.min(WIDTH_MAX, Math.max(1, Math.round(width)));
    this.showCursor(true);
    return t("editor.pixels", { count: this.width });
  }

  /** @param {number} hardness */
  setHardness(hardness) {
    this.hardness = Math.min(1, Math.max(0, Math.round(hardness * 20) / 20));
    return percent(this.hardness);
  }

  drawControls() {
    const { bar, options } = this;
    if (!bar || !options || !this.stage) return;
    const { activeElement: active } = document;
    const focused = active instanceof HTMLElement && (bar.contains(active) || options.contains(active)) ? active.dataset.testid : "";
    const { history } = this.draft;
    const plain = (/** @type {string} */ name, /** @type {() => void} */ onclick, /** @type {string} */ shape, disabled = false) =>
      h("button", { class: "icon-button", type: "button", onclick, disabled, title: t(`editor.${name}`), "aria-label": t(`editor.${name}`), "data-testid": `editor-${name}` }, drawn(shape));
    fill(
      bar,
      h(
        "div",
        { class: "editor-tools" },
        ...TOOLS.map(([name, key, shape]) =>
          h(
            "button",
            { class: "editor-tool", type: "button", "aria-pressed": this.tool === name, "data-testid": `editor-tool-${name}`, "aria-keyshortcuts": key, title: `${t(`editor.tool.${name}`)} (${key.toUpperCase()})`, onclick: () => this.use(name) },
            drawn(shape),
            h("span", {}, t(`editor.tool.${name}`)),
          ),
        ),
      ),
      h(
        "div",
        { class: "editor-tools" },
        plain("undo", () => this.step("undo"), "M9 6L4 10l5 4 M4 10h10a5 5 0 0 1 0 10h-3", !history.canUndo),
        plain("redo", () => this.step("redo"), "M15 6l5 4-5 4 M20 10H10a5 5 0 0 0 0 10h3", !history.canRedo),
        this.brush
          ? plain("clearstrokes", () => this.push({ strokes: [] }), BIN, !this.edits.strokes.length)
          : plain("clear", () => this.choose({ prompts: [], selected: -1 }), BIN, !this.edits.prompts.length),
        plain("zoomout", () => this.zoom(1 / ZOOM_STEP), "M5 12h14"),
        plain("zoomin", () => this.zoom(ZOOM_STEP), "M12 5v14 M5 12h14"),
        plain("fit", () => this.fit(), "M5 9V5h4 M15 5h4v4 M19 15v4h-4 M9 19H5v-4"),
      ),
    );
    fill(options, ...(this.brush ? this.brushOptions() : this.tool === "pan" ? [] : this.promptOptions()));
    if (this.applyButton) this.applyButton.disabled = !this.ready || !this.changed;
    if (focused) this.refocus(focused);
  }

  /** Focuses the new control in place of the one that had the focus, else the stage. @param {string} testid */
  refocus(testid) {
    const control = /** @type {HTMLButtonElement | null} */ (this.root.querySelector(`[data-testid="${testid}"]:not(:disabled)`));
    (control ?? this.stageBox)?.focus({ preventScroll: true });
  }

  brushOptions() {
    // The slider is logarithmic: its steps are those that the eye sees.
    const most = Math.log(Math.min(WIDTH_MAX, this.longer / 2));
    return [
      this.range("size", Math.log(this.width), 0, most, most / 200, t("editor.pixels", { count: this.width }), (value) => this.setWidth(Math.exp(value))),
      this.range("hardness", this.hardness, 0, 1, 0.05, percent(this.hardness), (value) => this.setHardness(value)),
    ];
  }

  promptOptions() {
    const { prompts } = this.edits;
    const background = h("input", { type: "checkbox", checked: this.label === 0, "data-testid": "editor-background", onchange: () => this.setLabel(background.checked ? 0 : 1) });
    return [
      h("label", { class: "editor-check", title: t("editor.background.hint") }, background, t("editor.background")),
      h("button", { class: "button small", type: "button", disabled: !prompts.length, "data-testid": "editor-new", onclick: () => this.startSubject() }, t("editor.new")),
      h("button", { class: "button small", type: "button", disabled: !this.ready, "data-testid": "editor-find", onclick: () => void this.find() }, t("editor.find")),
    ];
  }

  /** @param {string} name @param {number} value @param {number} min @param {number} max @param {number} step @param {string} text @param {(value: number) => string} change Returns the text of a value. */
  range(name, value, min, max, step, text, change) {
    const input = h("input", { type: "range", min: String(min), max: String(max), step: String(step), "aria-valuetext": text, "data-testid": `editor-${name}` });
    input.value = String(value);
    const output = h("output", {}, text);
    // The controls are not drawn again here: that would end the drag of the slider.
    input.addEventListener("input", () => {
      output.textContent = change(Number(input.value));
      input.setAttribute("aria-valuetext", output.textContent);
    });
    return h("label", { class: "editor-range" }, t(`editor.${name}`), input, output);
  }

  /** @param {0 | 1} label */
  setLabel(label) {
    this.label = label;
    this.drawControls();
  }

  startSubject() {
    this.draft.selected = -1;
    this.update();
  }

  drawList() {
    const { list } = this;
    if (!list) return;
    const { prompts } = this.edits;
    const focused = [...list.querySelectorAll("button")].findIndex((button) => button === document.activeElement);
    list.hidden = this.brush || (!prompts.length && !this.found.length);
    fill(
      list,
      ...this.found.map(({ label, score, box }) =>
        h("button", { class: "chip", type: "button", "aria-pressed": indexOf(prompts, box) >= 0, "data-testid": "editor-instance", onclick: () => this.choose(toggled(this.choice, box)) }, t("editor.instance", { label, score: percent(score) })),
      ),
      ...prompts.map((prompt, index) => {
        const name = nameOf(prompt, index);
        return h(
          "span",
          { class: "chip-pair" },
          h("button", { class: "chip", type: "button", "aria-pressed": index === this.draft.selected, "data-testid": "editor-prompt", onclick: () => { this.draft.selected = index; this.update(); } }, name),
          h("button", { class: "chip", type: "button", "aria-label": t("editor.remove", { name }), "data-testid": "editor-remove", onclick: () => this.choose(without(this.choice, index)) }, "×"),
        );
      }),
    );
    if (focused >= 0) ((!list.hidden && list.querySelectorAll("button")[focused]) || this.stageBox)?.focus({ preventScroll: true });
  }

  // View

  /** @param {number} factor @param {Point} [at] On the screen. */
  zoom(factor, at) {
    if (!this.stage) return;
    const { view, area, size } = this.stage;
    this.stage.setView(zoomView(view, at ?? [area.width / 2, area.height / 2], factor, size, area));
    this.showCursor(false);
  }

  fit() {
    if (this.stage) this.stage.setView(fitView(this.stage.size, this.stage.area), true);
  }

  /** @param {boolean} always Whether the cursor is shown without a pointer over the image. */
  showCursor(always) {
    const over = always || this.pointerOver || document.activeElement === this.stageBox;
    const shown = over && this.tool !== "pan" && this.ready;
    const keys = document.activeElement === this.stageBox && !this.pointerOver;
    if (!this.brush && !keys) return this.stage?.setMarks({ cursor: null });
    this.stage?.setMarks({ cursor: shown ? { at: this.cursor, width: this.brush ? this.width : 0, cross: keys } : null });
  }

  // Gestures of pointer and keys

  /** @param {Point} at In the image. @param {0 | 1} label @param {boolean} keys @param {number} pressure */
  begin(at, label, keys, pressure) {
    const tool = this.tool;
    if (this.brush) {
      const mode = /** @type {"erase" | "restore"} */ (label === 0 ? (tool === "erase" ? "restore" : "erase") : tool);
      const input = new StrokeInput({ mode, width: Math.max(WIDTH_MIN, this.width), hardness: this.hardness }, 1 / (this.stage?.view.scale ?? 1));
      this.gesture = { kind: "stroke", from: at, at, label, input, keys };
      this.stage?.setLive(input.strokes, input.add(at, pressure));
      return;
    }
    this.gesture = { kind: tool === "box" ? "box" : tool === "pan" ? "pan" : "click", from: at, at, label, input: null, keys };
  }

  /** @param {Point} at In the image. @param {number} pressure */
  move(at, pressure) {
    const { gesture, stage } = this;
    if (!gesture || !stage) return;
    gesture.at = at;
    if (gesture.input) stage.setLive(gesture.input.strokes, gesture.input.add(at, pressure));
    else if (gesture.kind === "box") stage.setMarks({ band: boxOf(gesture.from, at, this.sources.size, 0) });
  }

  /** @param {boolean} keep Whether the gesture takes effect. */
  endGesture(keep) {
    const { gesture, stage } = this;
    if (!gesture || !stage) return;
    this.gesture = null;
    stage.setMarks({ band: null });
    const { scale } = stage.view;
    if (gesture.input) {
      const strokes = [...this.edits.strokes, ...gesture.input.finished(TOLERANCE / scale)];
      const fits = withinLimits(strokes);
      if (keep && fits) this.push({ strokes });
      else {
        stage.live = [];
        stage.redraw("top");
      }
      if (keep) this.say(fits ? t("editor.strokes", { count: strokes.length }) : t("editor.full"), !fits);
      return;
    }
    if (!keep || gesture.kind === "pan") return;
    const { from, at, label } = gesture;
    const box = gesture.kind === "box" ? boxOf(from, at, this.sources.size, Math.max(2, CLICK_SLOP / scale)) : null;
    if (box) return this.choose(withBox(this.choice, box, label));
    const moved = Math.hypot(at[0] - from[0], at[1] - from[1]) * scale > CLICK_SLOP;
    if (!moved || gesture.keys) this.click(at, label);
  }

  /** @param {Point} at In the image. @param {0 | 1} label */
  click(at, label) {
    const point = inside(at, this.sources.size);
    const reach = REACH / (this.stage?.view.scale ?? 1);
    const near = hit(this.edits.prompts, point, reach);
    if (this.tool === "box") {
      if (near >= 0) this.draft.selected = near;
      return this.update();
    }
    const boxes = this.found.map(({ box }) => box);
    const box = boxes[label === 1 ? boxAt(boxes, point) : -1];
    if (box) return this.choose(toggled(this.choice, box));
    this.choose(withPoint(this.choice, point, label));
  }

  listen() {
    const box = this.stageBox;
    if (!box) return;
    box.addEventListener("contextmenu", (event) => event.preventDefault());
    box.addEventListener("pointerdown", (event) => this.pointerDown(event));
    box.addEventListener("pointermove", (event) => this.pointerMove(event));
    box.addEventListener("pointerup", (event) => this.pointerEnd(event, true));
    box.addEventListener("pointercancel", (event) => this.pointerEnd(event, false));
    box.addEventListener("pointerleave", () => this.hover(false));
    box.addEventListener("pointerenter", () => this.hover(true));
    box.addEventListener("focus", () => this.showCursor(false));
    box.addEventListener("blur", () => this.showCursor(false));
    box.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 400)), this.screenPoint(event));
    }, { passive: false });
    this.root.addEventListener("keydown", (event) => this.keyDown(event));
  }

  /** @param {boolean} over */
  hover(over) {
    this.pointerOver = over;
    this.showCursor(false);
  }

  /** @param {MouseEvent} event @returns {Point} */
  screenPoint(event) {
    const { left, top } = /** @type {HTMLElement} */ (this.stageBox).getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  /** @param {PointerEvent} event */
  pointerDown(event) {
    if (!this.ready || !this.stage) return;
    const at = this.screenPoint(event);
    this.pointers.set(event.pointerId, at);
    this.stageBox?.setPointerCapture(event.pointerId);
    if (this.pointers.size > 1) return this.endGesture(false);
    if (this.gesture?.keys) this.endGesture(true);
    const point = toImage(this.stage.view, at);
    this.cursor = point;
    const label = event.button === 2 || event.altKey ? (this.brush ? 0 : /** @type {0 | 1} */ (1 - this.label)) : this.brush ? 1 : this.label;
    if (event.button === 1) this.gesture = { kind: "pan", from: point, at: point, label, input: null, keys: false };
    else this.begin(point, label, false, pressureOf(event));
  }

  /** @param {PointerEvent} event */
  pointerMove(event) {
    const { stage, gesture } = this;
    if (!this.ready || !stage) return;
    const at = this.screenPoint(event);
    const before = this.pointers.get(event.pointerId);
    if (this.pointers.size === 2 && before) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1] ?? at;
      stage.setView(pinchView(stage.view, [before, other], [at, other], stage.size, stage.area));
    } else if (gesture?.kind === "pan" && before) {
      stage.setView(panView(stage.view, [at[0] - before[0], at[1] - before[1]], stage.size, stage.area));
    } else if (gesture && before && !gesture.keys) {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) this.move(toImage(stage.view, this.screenPoint(one)), pressureOf(one));
    }
    if (before) this.pointers.set(event.pointerId, at);
    if (!gesture?.keys) this.cursor = toImage(stage.view, at);
    if (this.brush) this.showCursor(false);
  }

  /** @param {PointerEvent} event @param {boolean} keep */
  pointerEnd(event, keep) {
    const only = this.pointers.size === 1;
    this.pointers.delete(event.pointerId);
    if (only && !this.gesture?.keys) this.endGesture(keep);
  }

  /** @param {KeyboardEvent} event */
  keyDown(event) {
    if (!this.ready) return;
    const field = event.target instanceof HTMLInputElement;
    const command = event.ctrlKey || event.metaKey;
    if (command && this.command(event)) return event.preventDefault();
    if (command || event.altKey || field) return;
    const onStage = event.target === this.stageBox;
    const done = this.shortcut(event.key) || (onStage && this.stageKey(event.key, event.shiftKey));
    if (done) event.preventDefault();
  }

  /** @param {KeyboardEvent} event */
  command(event) {
    const key = event.key.toLowerCase();
    if (key === "z") this.step(event.shiftKey ? "redo" : "undo");
    else if (key === "y") this.step("redo");
    else if (key === "enter") this.apply();
    else return false;
    return true;
  }

  /** @param {string} key */
  shortcut(key) {
    const tool = TOOLS.find(([, letter]) => letter === key.toLowerCase())?.[0];
    if (tool) this.use(tool);
    else if (key === "[") this.announce(this.setWidth(Math.min(this.width - 1, this.width / SIZE_STEP)));
    else if (key === "]") this.announce(this.setWidth(Math.max(this.width + 1, this.width * SIZE_STEP)));
    else if (key === "{") this.announce(this.setHardness(this.hardness - 0.1));
    else if (key === "}") this.announce(this.setHardness(this.hardness + 0.1));
    else if (key === "+" || key === "=") this.zoom(ZOOM_STEP);
    else if (key === "-") this.zoom(1 / ZOOM_STEP);
    else if (key === "0") this.fit();
    else if (key === "x" || key === "X") this.swap();
    else if (key === "n" || key === "N") this.startSubject();
    else if (key === "Escape") this.endGesture(false);
    else return false;
    return true;
  }

  /** Shows a value that a key changed. @param {string} text */
  announce(text) {
    this.drawControls();
    this.say(text);
  }

  swap() {
    if (this.brush) this.use(this.tool === "erase" ? "restore" : "erase");
    else this.setLabel(this.label === 1 ? 0 : 1);
  }

  /** @param {string} key @param {boolean} fine */
  stageKey(key, fine) {
    const { stage } = this;
    if (!stage) return false;
    if (key === " " || key === "Enter") this.press();
    else if (key === "Delete" || key === "Backspace") this.deleteSelected();
    else {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
      if (!by) return false;
      this.pointerOver = false;
      const step = fine ? 1 : KEY_STEP / stage.view.scale;
      const [dx = 0, dy = 0] = by;
      if (this.tool === "pan") stage.setView(panView(stage.view, [-dx * 4 * KEY_STEP, -dy * 4 * KEY_STEP], stage.size, stage.area));
      else {
        this.cursor = inside([this.cursor[0] + dx * step, this.cursor[1] + dy * step], this.sources.size);
        const [x, y] = toScreen(stage.view, this.cursor);
        if (x < 0 || y < 0 || x > stage.area.width || y > stage.area.height) stage.setView(reveal(stage.view, this.cursor, stage.size, stage.area));
        this.move(this.cursor, 1);
        this.showCursor(true);
      }
    }
    return true;
  }

  /** The space key: a point, or the start and the end of a box or a stroke. */
  press() {
    this.pointerOver = false;
    if (this.gesture?.keys) {
      this.move(this.cursor, 1);
      return this.endGesture(true);
    }
    if (this.gesture || this.tool === "pan") return;
    this.begin(this.cursor, this.brush ? 1 : this.label, true, 1);
    if (this.tool === "point") return this.endGesture(true);
    if (this.gesture) this.say(t(this.brush ? "editor.stroke.start" : "editor.box.start"));
  }

  deleteSelected() {
    const { selected } = this.draft;
    if (!this.brush && selected >= 0) this.choose(without(this.choice, selected));
  }
}

/** @param {PointerEvent} event @returns {number} 0 to 1; 1 without a pen. */
function pressureOf(event) {
  return event.pointerType === "pen" && event.pressure > 0 ? event.pressure : 1;
}

/** @param {Prompt} prompt @param {number} index */
function nameOf(prompt, index) {
  if (prompt.mode === "ignore") return t("editor.prompt.ignore", { number: number(index + 1) });
  if (prompt.label) return t("editor.prompt.label", { label: prompt.label });
  if (prompt.box && !prompt.points?.length) return t("editor.prompt.box", { number: number(index + 1) });
  return t("editor.prompt.points", { number: number(index + 1), count: prompt.points?.length ?? 0 });
}

/** @param {unknown} error */
function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/** @param {string} path On a grid of 24 x 24. */
function drawn(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}
