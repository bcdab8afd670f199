/** Texts, numbers and dates in the language of the user. */

import { de } from "./texts/de.js";
import { en } from "./texts/en.js";

/** Languages by their code, each with its texts. A key with plural forms has the suffixes of Intl.PluralRules. */
export const LANGUAGES = { en, de };

/** @typedef {keyof typeof LANGUAGES} Language */

/** @type {Language} */
let language = "en";
/** The language with the region of the browser, which numbers and dates follow: `en-GB`. */
let region = "en";
/** @type {Record<string, Record<string, string>>} */
const more = { en: {}, de: {} };

/** Adds the texts of a part. @param {Record<string, Record<string, string>>} texts By language. */
export function addTexts(texts) {
  for (const [code, table] of Object.entries(texts)) Object.assign(more[code] ?? {}, table);
}

/**
 * The language of a list such as that of `navigator.languages`.
 * @param {readonly string[]} wanted
 * @returns {Language}
 */
export function languageOf(wanted) {
  for (const tag of wanted) {
    const code = tag.slice(0, 2).toLowerCase();
    if (code in LANGUAGES) return /** @type {Language} */ (code);
  }
  return "en";
}

/** @param {Language} code */
export function setLanguage(code) {
  language = code;
  region = navigator.languages?.find((tag) => tag.slice(0, 2).toLowerCase() === code) ?? code;
}

/** @returns {Language} */
export function currentLanguage() {
  return language;
}

/**
 * A text. `count` chooses the plural form; numbers are formatted.
 * @param {string} key @param {Record<string, string | number>} [values] For the `{names}` in the text.
 */
export function t(key, values = {}) {
  /** @param {string} name @returns {string | undefined} */
  const find = (name) => LANGUAGES[language][name] ?? more[language]?.[name];
  const plural =
    typeof values.count === "number" ? `${key}.${new Intl.PluralRules(language).select(values.count)}` : key;
  const text = find(plural) ?? find(key) ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? number(value) : String(value ?? "");
  });
}

/** @param {number} value @param {Intl.NumberFormatOptions} [options] */
export function number(value, options) {
  return new Intl.NumberFormat(region, options).format(value);
}

/** @param {number} value Of 0 to 1. */
export function percent(value) {
  return number(value, { style: "percent", maximumFractionDigits: 0 });
}

/** @param {number} usd */
export function dollars(usd) {
  return number(usd, { style: "currency", currency: "USD", maximumFractionDigits: usd && usd < 0.1 ? 5 : 2 });
}

/** @param {string | Date} value */
export function dateTime(value) {
  return new Intl.DateTimeFormat(region, { dateStyle: "medium", timeStyle: "short" }).format(new Date(value));
}

/** @param {Date} value */
export function monthName(value) {
  return new Intl.DateTimeFormat(region, { month: "long", year: "numeric", timeZone: "UTC" }).format(value);
}

/** @param {number} bytes */
export function size(bytes) {
  const [value, unit] = bytes < 1e6 ? [bytes / 1e3, "kilobyte"] : [bytes / 1e6, "megabyte"];
  return number(value, { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: bytes < 1e6 ? 0 : 1 });
}
