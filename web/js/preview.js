/** A small cut-out of a photo, made in the browser until the server's result is there. */

import { configOf } from "./config.js";

/** @type {Worker | undefined} */
let worker;

/** @type {Promise<boolean> | undefined} */
let ready;

let last = 0;

/** The worker; the first call starts it. */
function started() {
  return (worker ??= new Worker(new URL("preview-worker.js", import.meta.url), { type: "module" }));
}

/**
 * Loads the preview before it is needed, such as when files are dragged over the page: the first load takes a second.
 * @returns {Promise<boolean>} Whether the preview is installed and loaded.
 */
export function warm() {
  ready ??= configOf().then(({ preview: installed }) => (installed ? reply(null, undefined).then((done) => done !== null) : false));
  return ready;
}

/**
 * Returns a cut-out whose longer side is at most 256 px, as PNG; null where the preview is not installed, or failed.
 * Without `warm`, the first call loads ONNX Runtime Web (14 MB) and the network (0.5 MB), in a worker.
 * @param {Blob} file
 * @param {{signal?: AbortSignal}} [call]
 * @returns {Promise<Blob | null>}
 */
export async function preview(file, { signal } = {}) {
  if (!(await configOf()).preview || signal?.aborted) return null;
  return /** @type {Promise<Blob | null>} */ (reply(file, signal));
}

/**
 * Sends a file to the worker and returns its result; null after a failure. Without a file, the worker loads its network.
 * @param {Blob | null} file
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<Blob | true | null>}
 */
function reply(file, signal) {
  const running = started();
  const id = ++last;
  return new Promise((resolve) => {
    /** @param {Blob | true | null} result */
    const end = (result) => {
      running.removeEventListener("message", receive);
      running.removeEventListener("error", fail);
      signal?.removeEventListener("abort", fail);
      resolve(result);
    };
    /** @param {MessageEvent<{id: number, result: Blob | true | null}>} event */
    const receive = ({ data }) => data.id === id && end(data.result);
    const fail = () => end(null);
    running.addEventListener("message", receive);
    running.addEventListener("error", fail);
    signal?.addEventListener("abort", fail);
    running.postMessage({ id, file });
  });
}
