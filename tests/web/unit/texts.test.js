import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { dateTime, dollars, LANGUAGES, languageOf, number, setLanguage, size, t } from "../../../web/js/i18n.js";
import { countsOf, colourOf } from "../../../web/js/detections.js";
import { Settings } from "../../../web/js/settings.js";
import { STUDIOS } from "../../../web/js/design.js";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../../..");
const SOURCES = readdirSync(join(ROOT, "web/js"), { recursive: true })
  .filter((name) => name.endsWith(".js") && !/texts|editor/.test(name))
  .map((name) => readFileSync(join(ROOT, "web/js", name), "utf8"))
  .join("\n");
const { en, de } = LANGUAGES;
const placeholders = (text) => (text.match(/\{\w+\}/g) ?? []).sort();

test("both languages have the same texts with the same placeholders", () => {
  assert.deepEqual(Object.keys(de), Object.keys(en));
  for (const [key, text] of Object.entries(en)) assert.deepEqual(placeholders(de[key]), placeholders(text), key);
});

test("every text that the code names exists", () => {
  const named = [...SOURCES.matchAll(/\bt\(\s*(?:[\w.\s=!"|&?+-]*\?\s*)?"([\w.]+)"/g)].map(([, key]) => key);
  assert.ok(named.length > 80);
  for (const key of named) assert.ok(key in en || `${key}.other` in en, key);
});

test("every text is used", () => {
  const families = [...SOURCES.matchAll(/`([\w]+(?:\.[\w]+)*\.)\$\{/g)].map(([, prefix]) => prefix);
  for (const key of Object.keys(en)) {
    const base = key.replace(/\.(one|other)$/, "");
    assert.ok(SOURCES.includes(`"${base}"`) || families.some((prefix) => key.startsWith(prefix)), key);
  }
});

test("numbers, money, sizes and dates follow the language", () => {
  setLanguage("de");
  assert.equal(number(1234.5), "1.234,5");
  assert.equal(dollars(1.5).replace(/\s/, " "), "1,50 $");
  assert.equal(size(1_500_000).replace(/\s/, " "), "1,5 MB");
  assert.match(dateTime("2026-11-29T12:00:00Z"), /29\.11\.2026/);
  assert.equal(t("queue.working", { done: 1000, total: 2000 }), "1.000 von 2.000 fertig");
  setLanguage("en");
  assert.equal(number(1234.5), "1,234.5");
  assert.equal(t("detect.count", { count: 1 }), "1 detection");
  assert.equal(t("detect.count", { count: 2 }), "2 detections");
});

test("a value with markup stays text", () => {
  assert.equal(t("item.remove", { name: "<b>{total}</b>" }), "Remove <b>{total}</b>");
});

test("the language is the first one of the browser that has texts", () => {
  assert.equal(languageOf(["fr-FR", "de-AT", "en"]), "de");
  assert.equal(languageOf(["fr"]), "en");
});

test("the key is kept for the session, in the browser by choice, and never in both", () => {
  const storage = () => {
    const items = new Map();
    return {
      getItem: (key) => items.get(key) ?? null,
      setItem: (key, value) => items.set(key, value),
      removeItem: (key) => items.delete(key),
      items,
    };
  };
  const [session, browser] = [storage(), storage()];
  const settings = new Settings(session, browser);
  settings.setKey("one", false);
  assert.deepEqual([settings.key, settings.remembered, browser.items.size], ["one", false, 0]);
  settings.setKey("two", true);
  assert.deepEqual([settings.key, settings.remembered, session.items.size], ["two", true, 0]);
  settings.setKey("", false);
  assert.deepEqual([settings.key, session.items.size, browser.items.size], ["", 0, 0]);
});

test("detections are counted by label, and a label keeps its colour", () => {
  const found = ["face", "person", "person"].map((label) => ({ label, score: 1, box: [0, 0, 1, 1] }));
  assert.deepEqual(countsOf(found), [
    ["person", 2],
    ["face", 1],
  ]);
  assert.notEqual(colourOf("face", ["face", "person"]), colourOf("person", ["face", "person"]));
});

test("the backdrops are those of the API", () => {
  const table = readFileSync(join(ROOT, "maskdrop/studio.py"), "utf8");
  for (const name of STUDIOS) assert.ok(table.includes(`"${name}"`), name);
});
