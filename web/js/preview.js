/** A small cut-out of a photo, made in the browser until the server's result is there. */

import { configOf } from "./config.js";

/** @type {Worker | undefined} */
let worker;

let last = 0;

/**
 * Returns a cut-out whose longer side is at most 256 px, as PNG; null where the preview is not installed, or failed.
 * The first call loads ONNX Runtime Web (14 MB) and the network (0.5 MB), in a worker.
 * @param {Blob} file
 * @param {{signal?: AbortSignal}} [call]
 * @returns {Promise<Blob | null>}
 */
export async function preview(file, { signal } = {}) {
  if (!(await configOf()).preview || signal?.aborted) return null;
  worker ??= new Worker(new URL("preview-worker.js", import.meta.url), { type: "module" });
  const running = worker;
  const id = ++last;
  return new Promise((resolve) => {
    /** @param {Blob | null} result */
    const end = (result) => {
      running.removeEventListener("message", receive);
      running.removeEventListener("error", fail);
      signal?.removeEventListener("abort", fail);
      resolve(result);
    };
    /** @param {MessageEvent<{id: number, result: Blob | null}>} event */
    const receive = ({ data }) => data.id === id && end(data.result);
    const fail = () => end(null);
    running.addEventListener("message", receive);
    running.addEventListener("error", fail);
    signal?.addEventListener("abort", fail);
    running.postMessage({ id, file });
  });
}
