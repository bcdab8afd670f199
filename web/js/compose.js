/** Draws a cut-out over an image of the user, in the browser: a caller of the API cannot name a background image. */

/** @type {Record<string, string>} */
const TYPES = { png: "image/png", webp: "image/webp", jpg: "image/jpeg" };
const QUALITY = 0.92;

/**
 * Part of an image that covers a canvas.
 * @param {number} width
 * @param {number} height
 * @param {number} toWidth
 * @param {number} toHeight
 */
export function cover(width, height, toWidth, toHeight) {
  const scale = Math.max(toWidth / width, toHeight / height);
  const [w, h] = [toWidth / scale, toHeight / scale];
  return { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h };
}

/**
 * @param {Blob} cutout PNG with alpha. @param {Blob} background @param {string} format png, webp or jpg.
 * @returns {Promise<Blob>}
 */
export async function withImage(cutout, background, format) {
  const [front, back] = await Promise.all([createImageBitmap(cutout), createImageBitmap(background)]);
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: front.width, height: front.height });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const part = cover(back.width, back.height, front.width, front.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(back, part.x, part.y, part.width, part.height, 0, 0, front.width, front.height);
  context.drawImage(front, 0, 0);
  front.close();
  back.close();
  return new Promise((resolve, reject) => {
    canvas.toBlob(
      (blob) => (blob ? resolve(blob) : reject(new Error("The browser cannot encode this image."))),
      TYPES[format] ?? TYPES.png,
      QUALITY,
    );
  });
}
