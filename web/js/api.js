/** The client of the HTTP API. It uses no DOM, so that Node can test it. */

import { uploadName } from "./names.js";

/** @import { Cutout, Detections, Engine, ErrorInfo, Facts, Job, Preset, Usage, Verdict } from "./types.js" */

/** Status of the errors of `ApiError` that no response caused. */
export const NO_RESPONSE = 0;

const POLL_MS = 1500;

/** An error of the API, or of the connection to it (status 0, code `network`). */
export class ApiError extends Error {
  /** @param {number} status @param {ErrorInfo} info @param {number | null} retryAfter Seconds. */
  constructor(status, info, retryAfter = null) {
    super(info.message);
    this.status = status;
    this.code = info.code;
    this.retryable = info.retryable;
    this.retryAfter = retryAfter;
  }

  /** Whether the server cannot be reached. */
  get offline() {
    return this.status === NO_RESPONSE;
  }

  /** Whether the API key is missing, unknown or revoked. */
  get key() {
    return this.status === 401 || this.code === "auth_failed";
  }

  /** @returns {ErrorInfo} */
  get info() {
    return { code: this.code, message: this.message, retryable: this.retryable };
  }
}

/** Calls the API of one server with one key. */
export class Api {
  /**
   * @param {object} options
   * @param {string} [options.base] URL of the API without `/v1`; "" for the origin of the page.
   * @param {() => string} options.key Returns the API key; "" for none.
   * @param {typeof fetch} [options.fetch]
   */
  constructor({ base = "", key, fetch: send = (...request) => fetch(...request) }) {
    this.base = base.replace(/\/+$/, "");
    this.key = key;
    this.fetch = send;
    /**
     * Prefixes of the URLs of stored files, with the paths of this origin by which they are fetched (`config.json`).
     * @type {[string, string][]}
     */
    this.files = [];
  }

  /**
   * Returns the path of this origin for the URL of a stored file; the URL where no prefix matches.
   * @param {string} url
   */
  sameOrigin(url) {
    const [prefix, path] = this.files.find(([one]) => url.startsWith(one)) ?? ["", ""];
    return path + url.slice(prefix.length);
  }

  /**
   * Sends a request and returns a response that succeeded. Raises ApiError; an aborted request raises its AbortError.
   * @param {string} path
   * @param {RequestInit} [init]
   * @returns {Promise<Response>}
   */
  async request(path, init = {}) {
    const headers = new Headers(init.headers);
    const key = this.key();
    if (/[^\x20-\x7e]/.test(key)) {
      const message = "The API key has characters that no key has.";
      throw new ApiError(401, { code: "auth_failed", message, retryable: false });
    }
    if (key) headers.set("X-Api-Key", key);
    return this.send(`${this.base}${path}`, { ...init, headers });
  }

  /**
   * Sends a request as it is, without the key. Raises as `request`.
   * @param {string} url @param {RequestInit} init @returns {Promise<Response>}
   */
  async send(url, init) {
    const response = await received(this.fetch(url, init), init.signal);
    if (!response.ok) throw await errorOf(response);
    return response;
  }

  /**
   * @template T
   * @param {string} path
   * @param {RequestInit} [init]
   * @returns {Promise<T>}
   */
  async json(path, init) {
    return received((await this.request(path, init)).json(), init?.signal);
  }

  /**
   * Cuts out the subject of an image. A file that is too large for the request is uploaded and processed as a job.
   * @param {Blob | string} source The file, or the URL of an image.
   * @param {Record<string, unknown>} options In the form of the API.
   * @param {{signal?: AbortSignal, path?: string}} [call]
   * @returns {Promise<Cutout>}
   */
  async cutout(source, options, { signal, path = "/v1/cutouts" } = {}) {
    let response;
    try {
      response = await this.request(path, { method: "POST", ...bodyOf(source, options), signal });
    } catch (error) {
      const tooLarge = error instanceof ApiError && error.status === 413 && error.code !== "resolution_too_high";
      if (!tooLarge || typeof source === "string") throw error;
      return this.fileOf(await this.finished(await this.job(source, options, signal), signal), signal);
    }
    if (response.status === 202) return this.fileOf(await this.finished(await received(response.json(), signal), signal), signal);
    if (response.headers.get("content-type")?.startsWith("application/json")) {
      const { result } = await received(response.json(), signal);
      return { blob: await this.file(result.url, signal), facts: { ...factsOf(response.headers), ...sizeOf(result) } };
    }
    return { blob: await received(response.blob(), signal), facts: factsOf(response.headers) };
  }

  /**
   * Detects the instances of labels in an image.
   * @param {Blob} file
   * @param {Record<string, unknown>} options
   * @param {AbortSignal} [signal]
   * @returns {Promise<Detections>}
   */
  detections(file, options, signal) {
    return this.json("/v1/detections", { method: "POST", ...bodyOf(file, options), signal });
  }

  /**
   * Uploads a file and creates a job for it.
   * @param {Blob} file
   * @param {Record<string, unknown>} options
   * @param {AbortSignal} [signal]
   * @returns {Promise<Job>}
   */
  async job(file, options, signal) {
    const upload = await this.upload(file, signal);
    return this.json("/v1/jobs", json({ ...options, source: { upload } }, signal));
  }

  /** Uploads a file and returns its id. @param {Blob} file @param {AbortSignal} [signal] */
  async upload(file, signal) {
    const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
    /** @type {{url: string, fields: Record<string, string>, upload: string}} */
    const form = await this.json("/v1/uploads", json({ name: uploadName(file), content_type: type }, signal));
    const body = new FormData();
    for (const [name, value] of Object.entries(form.fields)) body.set(name, value);
    body.set("file", file);
    await this.send(this.sameOrigin(form.url), { method: "POST", body, signal });
    return form.upload;
  }

  /**
   * Waits until a job has ended. Raises ApiError for a failed one.
   * @param {Job} job
   * @param {AbortSignal} [signal]
   * @returns {Promise<Job>}
   */
  async finished(job, signal) {
    let current = job;
    while (current.state === "queued" || current.state === "submitted") {
      await pause(POLL_MS, signal);
      current = await this.oneJob(current.id, signal);
    }
    if (current.state === "failed") {
      throw new ApiError(422, current.error ?? { code: "internal", message: "The job failed.", retryable: true });
    }
    return current.result?.url ? current : this.oneJob(current.id, signal);
  }

  /**
   * Fetches the result of a job that is done.
   * @param {Job} job
   * @param {AbortSignal} [signal]
   * @returns {Promise<Cutout>}
   */
  async fileOf(job, signal) {
    const url = job.result?.url;
    if (!url || !job.result) throw new ApiError(404, { code: "not_found", message: "No result.", retryable: false });
    const { subject, warnings, timings, engine } = job;
    return { blob: await this.file(url, signal), facts: { engine, subject, warnings, timings, ...sizeOf(job.result) } };
  }

  /** @param {string} url A presigned URL. @param {AbortSignal} [signal] @returns {Promise<Blob>} */
  async file(url, signal) {
    const response = await this.send(this.sameOrigin(url), { signal });
    return received(response.blob(), signal);
  }

  /** @param {string} id @param {AbortSignal} [signal] @returns {Promise<Job>} */
  oneJob(id, signal) {
    return this.json(`/v1/jobs/${encodeURIComponent(id)}`, { signal });
  }

  /**
   * @param {{state?: string, cursor?: string, limit?: number}} [filter]
   * @returns {Promise<{jobs: Job[], cursor: string | null}>}
   */
  jobs({ state = "", cursor = "", limit = 25 } = {}) {
    const query = new URLSearchParams({ limit: String(limit) });
    if (state) query.set("state", state);
    if (cursor) query.set("cursor", cursor);
    return this.json(`/v1/jobs?${query}`);
  }

  /** @param {string} id @returns {Promise<Job>} */
  retry(id) {
    return this.json(`/v1/jobs/${encodeURIComponent(id)}/retry`, { method: "POST" });
  }

  /** Fetches the source of a job. @param {string} id @returns {Promise<Blob>} */
  async source(id) {
    const { url } = await this.json(`/v1/jobs/${encodeURIComponent(id)}/source`);
    return this.file(url);
  }

  /** @param {string} id @param {Verdict} verdict @param {string} [upload] The corrected cut-out. @returns {Promise<Job>} */
  review(id, verdict, upload) {
    return this.json(`/v1/jobs/${encodeURIComponent(id)}/review`, json({ verdict, upload }));
  }

  /** @returns {Promise<Engine[]>} */
  async engines() {
    /** @type {{engines: Engine[]}} */
    const { engines } = await this.json("/v1/engines");
    return engines;
  }

  /** @returns {Promise<Preset[]>} */
  async presets() {
    /** @type {{presets: Preset[]}} */
    const { presets } = await this.json("/v1/presets");
    return presets;
  }

  /** @param {string} month `YYYY-MM`. @returns {Promise<Usage>} */
  usage(month) {
    return this.json(`/v1/usage?month=${month}`);
  }

  /** @returns {Promise<{status: string, stage: string, version: string}>} */
  health() {
    return this.json("/v1/health");
  }

  /** @returns {Promise<any>} The OpenAPI document. */
  openapi() {
    return this.json("/v1/openapi.json");
  }
}

/**
 * Awaits a response or its body. Raises ApiError where the connection is lost or the body is no JSON.
 * @template T
 * @param {Promise<T>} part @param {AbortSignal | null} [signal] @returns {Promise<T>}
 */
async function received(part, signal) {
  try {
    return await part;
  } catch (error) {
    if (signal?.aborted) throw error;
    if (error instanceof SyntaxError) {
      const message = "The server sent a response that is no JSON. Is this the URL of Maskdrop?";
      throw new ApiError(502, { code: "bad_response", message, retryable: true });
    }
    throw new ApiError(NO_RESPONSE, { code: "network", message: "The server cannot be reached.", retryable: true });
  }
}

/**
 * Returns the error of a response, also of one that a proxy wrote.
 * @param {Response} response
 */
export async function errorOf(response) {
  const after = Number(response.headers.get("retry-after"));
  const retryAfter = after > 0 ? after : null;
  const body = await response.json().catch(() => null);
  /** @type {ErrorInfo} */
  const info = body?.error?.code
    ? body.error
    : {
        code: response.status === 401 || response.status === 403 ? "auth_failed" : `http_${response.status}`,
        message: `The server responded with the status ${response.status}.`,
        retryable: response.status === 429 || response.status >= 500,
      };
  return new ApiError(response.status, info, retryAfter);
}

/**
 * The facts in the headers of a response.
 * @param {Headers} headers
 * @returns {Facts}
 */
export function factsOf(headers) {
  /** @param {string} name @param {any} otherwise */
  const parsed = (name, otherwise) => JSON.parse(headers.get(`x-maskdrop-${name}`) || "null") ?? otherwise;
  return {
    engine: headers.get("x-maskdrop-engine") ?? "",
    width: Number(headers.get("x-maskdrop-width")),
    height: Number(headers.get("x-maskdrop-height")),
    subject: parsed("subject", null),
    warnings: parsed("warnings", []),
    timings: parsed("timings", {}),
  };
}

/** @param {{width: number, height: number}} result */
function sizeOf({ width, height }) {
  return { width, height };
}

/**
 * The body of a request for one image: a form for a file, JSON for a URL.
 * @param {Blob | string} source
 * @param {Record<string, unknown>} options
 * @returns {RequestInit}
 */
export function bodyOf(source, options) {
  if (typeof source === "string") return json({ ...options, source: { url: source } });
  const body = new FormData();
  body.set("image", source, "image");
  const { output, ...rest } = options;
  for (const [name, value] of Object.entries({ ...rest, .../** @type {object} */ (output ?? {}) })) {
    body.set(name, typeof value === "string" ? value : JSON.stringify(value));
  }
  return { body };
}

/** @param {unknown} body @param {AbortSignal} [signal] @returns {RequestInit} */
function json(body, signal) {
  return { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal };
}

/** @param {number} ms @param {AbortSignal} [signal] @returns {Promise<void>} */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
