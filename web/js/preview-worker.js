/**
 * Runs the network `portrait` with ONNX Runtime Web. A message {id, file} has the reply {id, result}: a cut-out, or null.
 * Without a file the worker loads the network only, and the result is true.
 */

const SIDE = 256;

const runtime = new URL("../vendor/ort/", import.meta.url).href;
const network = new URL("../vendor/portrait.onnx", import.meta.url).href;

/** @type {Promise<{ort: any, session: any}> | undefined} */
let loaded;

/** Loads the runtime and the network. They have no types: `web/vendor/` is not installed everywhere. */
async function load() {
  const ort = await import(`${runtime}ort.wasm.min.mjs`);
  ort.env.wasm.wasmPaths = runtime;
  ort.env.wasm.numThreads = 1; // threads need a page that is isolated from other origins
  return { ort, session: await ort.InferenceSession.create(network, { executionProviders: ["wasm"] }) };
}

/** @param {Blob} file @returns {Promise<Blob | null>} */
async function cutOut(file) {
  const photo = await createImageBitmap(file);
  const scale = Math.min(1, SIDE / Math.max(photo.width, photo.height));
  const width = Math.max(1, Math.round(photo.width * scale));
  const height = Math.max(1, Math.round(photo.height * scale));
  const input = pixels(photo, SIDE, SIDE);
  const planes = new Float32Array(3 * SIDE * SIDE);
  for (let i = 0; i < SIDE * SIDE; i++) {
    for (let channel = 0; channel < 3; channel++) planes[channel * SIDE * SIDE + i] = (input.data[4 * i + channel] ?? 0) / 255;
  }
  const { ort, session } = await (loaded ??= load());
  const { matte } = await session.run({ picture: new ort.Tensor("float32", planes, [1, 3, SIDE, SIDE]) });
  const alpha = new ImageData(SIDE, SIDE);
  for (let i = 0; i < SIDE * SIDE; i++) alpha.data[4 * i + 3] = Math.round(255 * Math.min(1, Math.max(0, matte.data[i])));
  const mask = new OffscreenCanvas(SIDE, SIDE);
  contextOf(mask).putImageData(alpha, 0, 0);
  const result = new OffscreenCanvas(width, height);
  const context = contextOf(result);
  context.drawImage(photo, 0, 0, width, height);
  context.globalCompositeOperation = "destination-in";
  context.drawImage(mask, 0, 0, width, height);
  return result.convertToBlob();
}

/** @param {ImageBitmap} photo @param {number} width @param {number} height */
function pixels(photo, width, height) {
  const context = contextOf(new OffscreenCanvas(width, height));
  context.drawImage(photo, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

/** @param {OffscreenCanvas} canvas @returns {OffscreenCanvasRenderingContext2D} */
function contextOf(canvas) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("The browser has no 2D canvas in workers.");
  return context;
}

self.addEventListener("message", async ({ data: { id, file } }) => {
  let result = null;
  try {
    result = file ? await cutOut(file) : Boolean(await (loaded ??= load()));
  } catch (error) {
    console.warn("no preview:", error); // the server's result replaces it anyway
  }
  self.postMessage({ id, result });
});
