/** Results of requests by their key. It uses no DOM. */

/**
 * Keeps the latest results. A new request ends the one before it: only the last click counts.
 * @template Result
 */
export class LatestCache {
  /** @param {(key: string, signal: AbortSignal) => Promise<Result>} request @param {number} [size] */
  constructor(request, size = 40) {
    this.request = request;
    this.size = size;
    /** @type {Map<string, Result>} */
    this.results = new Map();
    /** @type {AbortController | null} */
    this.running = null;
  }

  /** Ends the request that runs. */
  abort() {
    this.running?.abort();
    this.running = null;
  }

  /**
   * The result for a key; null where a later call has replaced this one.
   * @param {string} key @returns {Promise<Result | null>}
   */
  async get(key) {
    this.abort();
    const known = this.results.get(key);
    if (known !== undefined) {
      this.#keep(key, known);
      return known;
    }
    const controller = new AbortController();
    this.running = controller;
    try {
      const result = await this.request(key, controller.signal);
      this.#keep(key, result);
      return controller.signal.aborted ? null : result;
    } catch (error) {
      if (controller.signal.aborted) return null;
      throw error;
    } finally {
      if (this.running === controller) this.running = null;
    }
  }

  /** @param {string} key @param {Result} result */
  #keep(key, result) {
    this.results.delete(key);
    this.results.set(key, result);
    const [oldest] = this.results.keys();
    if (this.results.size > this.size && oldest !== undefined) this.results.delete(oldest);
  }
}
