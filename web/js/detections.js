/** Colours and counts of detections. */

/** @import { Detection } from "./types.js" */

/** Classes of CSS, one for each label in turn. */
export const COLOURS = ["hue-0", "hue-1", "hue-2", "hue-3", "hue-4", "hue-5", "hue-6", "hue-7"];

/** The same label always has the same colour within one image. @param {string} label @param {string[]} labels */
export function colourOf(label, labels) {
  return COLOURS[Math.max(0, labels.indexOf(label)) % COLOURS.length] ?? "";
}

/** Numbers by label, most frequent first. @param {Detection[]} detections @returns {[string, number][]} */
export function countsOf(detections) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const { label } of detections) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].sort(([a, m], [b, n]) => n - m || a.localeCompare(b));
}
