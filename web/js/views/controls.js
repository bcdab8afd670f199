/** Controls of forms. */

import { h } from "../dom.js";

let lastId = 0;

/** A new ID of an element. */
export function id() {
  lastId += 1;
  return `field-${lastId}`;
}

/**
 * A choice of one of a few: radio buttons that look like one control.
 * @param {{label: string, value: string, options: string[][], change: (value: string) => void, testid?: string}} options Pairs of value and text.
 */
export function segmented({ label, value, options, change, testid }) {
  const name = id();
  return h(
    "fieldset",
    { class: "segmented", "data-testid": testid },
    h("legend", { class: "hidden-text" }, label),
    ...options.map(([option = "", text = ""]) =>
      h(
        "label",
        {},
        h("input", {
          type: "radio",
          name,
          value: option,
          checked: option === value,
          onchange: () => change(option),
          "data-testid": testid && `${testid}-${option}`,
        }),
        h("span", {}, text),
      ),
    ),
  );
}

/**
 * @param {{label: string, value: string, options: (string[] | {group: string, options: string[][]})[], change: (value: string) => void, testid?: string}} options
 */
export function select({ label, value, options, change, testid }) {
  const key = id();
  /** @param {string[]} pair */
  const option = ([code = "", text = ""]) => h("option", { value: code, selected: code === value }, text);
  const input = h(
    "select",
    { id: key, onchange: () => change(input.value), "data-testid": testid },
    ...options.map((entry) =>
      Array.isArray(entry) ? option(entry) : h("optgroup", { label: entry.group }, ...entry.options.map(option)),
    ),
  );
  return h("div", { class: "field" }, h("label", { for: key }, label), input);
}

/**
 * @param {{label: string, value: number, min: number, max: number, step?: number, text: (value: number) => string, change: (value: number) => void, testid?: string}} options
 */
export function slider({ label, value, min, max, step = 1, text, change, testid }) {
  const key = id();
  const output = h("output", { for: key }, text(value));
  const input = h("input", {
    type: "range",
    id: key,
    min: String(min),
    max: String(max),
    step: String(step),
    value: String(value),
    "aria-valuetext": text(value),
    "data-testid": testid,
    oninput: () => {
      output.textContent = text(Number(input.value));
      input.setAttribute("aria-valuetext", output.textContent);
      change(Number(input.value));
    },
  });
  return h("div", { class: "field" }, h("div", { class: "field-row" }, h("label", { for: key }, label), output), input);
}

/** @param {{label: string, value: string, change: (value: string) => void, testid?: string}} options */
export function colour({ label, value, change, testid }) {
  const key = id();
  const input = h("input", {
    type: "color",
    id: key,
    value,
    oninput: () => change(input.value),
    "data-testid": testid,
  });
  return h("div", { class: "field field-row" }, h("label", { for: key }, label), input);
}

/**
 * @param {{label: string, value: number, min: number, max: number, change: (value: number) => void, testid?: string}}
 * options
 */
export function numberField({ label, value, min, max, change, testid }) {
  const key = id();
  const input = h("input", {
    type: "number",
    id: key,
    value: String(value),
    min: String(min),
    max: String(max),
    required: true,
    "data-testid": testid,
    oninput: () => input.checkValidity() && accept(input.valueAsNumber),
    // What stays in the field is what applies.
    onchange: () => !input.checkValidity() && accept(nearest(input.valueAsNumber)),
  });
  let last = value;
  /** @param {number} entered NaN for a text that is no number. */
  const nearest = (entered) => Math.min(max, Math.max(min, Math.round(Number.isNaN(entered) ? last : entered)));
  /** @param {number} accepted */
  const accept = (accepted) => {
    last = accepted;
    if (input.valueAsNumber !== accepted) input.value = String(accepted);
    change(accepted);
  };
  return h("div", { class: "field" }, h("label", { for: key }, label), input);
}
