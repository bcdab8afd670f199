/** Prompts in the form of the API: each is one subject. The functions return new lists. It uses no DOM. */

import { distance, distanceToOutline, inside, round } from "./geometry.js";

/** @import { Box, Point, Size } from "./geometry.js" */
/**
 * @typedef {object} Prompt
 * @property {Box} [box]
 * @property {Point[]} [points]
 * @property {number[]} [labels] 1: on the subject, 0: on the background.
 * @property {string} [label]
 * @property {string} [mode] `ignore`: removes what the prompt marks.
 */
/** @typedef {{prompts: Prompt[], selected: number}} Choice selected: the prompt that the next point refines; -1 for none. */

/**
 * Adds a point to the selected prompt, or starts a subject. A point on the background needs a subject.
 * @param {Choice} choice @param {Point} point @param {0 | 1} label @returns {Choice}
 */
export function withPoint({ prompts, selected }, point, label) {
  /** @type {Point} */
  const at = [round(point[0]), round(point[1])];
  const target = selected < 0 && label === 0 ? prompts.length - 1 : selected;
  const prompt = prompts[target];
  if (!prompt) {
    if (label === 0) return { prompts, selected };
    return { prompts: [...prompts, { points: [at], labels: [1] }], selected: prompts.length };
  }
  const points = [...(prompt.points ?? []), at];
  const labels = [...(prompt.labels ?? (prompt.points ?? []).map(() => 1)), label];
  return { prompts: prompts.with(target, { ...prompt, points, labels }), selected: target };
}

/** Adds a subject, or a part to remove from the others. @param {Choice} choice @param {Box} box @param {0 | 1} label @returns {Choice} */
export function withBox({ prompts, selected }, box, label) {
  if (label === 0 && !prompts.some((prompt) => prompt.mode !== "ignore")) return { prompts, selected };
  const prompt = label === 0 ? { box, mode: "ignore" } : { box };
  return { prompts: [...prompts, prompt], selected: prompts.length };
}

/** Removes a prompt; without one to keep, the others go too. @param {Choice} choice @param {number} index @returns {Choice} */
export function without({ prompts, selected }, index) {
  const rest = prompts.filter((_, other) => other !== index);
  if (rest.every((prompt) => prompt.mode === "ignore")) return { prompts: [], selected: -1 };
  const next = selected > index ? selected - 1 : Math.min(selected, rest.length - 1);
  return { prompts: rest, selected: next };
}

/** Adds the box of a detected instance, or removes it. @param {Choice} choice @param {Box} box @returns {Choice} */
export function toggled(choice, box) {
  const index = indexOf(choice.prompts, box);
  return index < 0 ? withBox(choice, box, 1) : without(choice, index);
}

/** The prompt with exactly this box; -1 for none. @param {Prompt[]} prompts @param {Box} box */
export function indexOf(prompts, box) {
  return prompts.findIndex((prompt) => prompt.mode !== "ignore" && prompt.box?.join() === box.join());
}

/**
 * The prompt whose point or outline is nearest; -1 for none within `reach`.
 * @param {Prompt[]} prompts @param {Point} point @param {number} reach In image pixels.
 */
export function hit(prompts, point, reach) {
  let [near, found] = [reach, -1];
  prompts.forEach((prompt, index) => {
    const distances = (prompt.points ?? []).map((other) => distance(point, other));
    if (prompt.box) distances.push(distanceToOutline(point, prompt.box));
    const least = Math.min(Infinity, ...distances);
    if (least <= near) [near, found] = [least, index];
  });
  return found;
}

/** The smallest box that contains a point; -1 for none. @param {Box[]} boxes @param {Point} point */
export function boxAt(boxes, [x, y]) {
  let [least, found] = [Infinity, -1];
  boxes.forEach(([x0, y0, x1, y1], index) => {
    const area = (x1 - x0) * (y1 - y0);
    if (x >= x0 && x <= x1 && y >= y0 && y <= y1 && area < least) [least, found] = [area, index];
  });
  return found;
}

/**
 * The prompts for a copy of the image in another size.
 * @param {Prompt[]} prompts @param {Size} from @param {Size} to @returns {Prompt[]}
 */
export function scaled(prompts, from, to) {
  const [across, down] = [to.width / from.width, to.height / from.height];
  /** @param {Point} point @returns {Point} */
  const place = ([x, y]) => {
    const [u, v] = inside([x * across, y * down], to);
    return [round(u), round(v)];
  };
  return prompts.map((prompt) => {
    const copy = { ...prompt };
    if (prompt.points) copy.points = prompt.points.map(place);
    if (prompt.box) {
      const [[x0, y0], [x1, y1]] = [place([prompt.box[0], prompt.box[1]]), place([prompt.box[2], prompt.box[3]])];
      copy.box = [Math.min(x0, to.width - 1), Math.min(y0, to.height - 1), Math.max(x1, x0 + 1), Math.max(y1, y0 + 1)];
    }
    return copy;
  });
}
