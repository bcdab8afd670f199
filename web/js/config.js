/** The settings of the server that serves the console. */

/** @typedef {{files?: Record<string, string>, preview?: boolean, corrections_days?: number}} Config */

/** @type {Promise<Config> | undefined} */
let config;

/** Returns `config.json`, which the server makes; {} where it has none, or until the server is reached. @returns {Promise<Config>} */
export function configOf() {
  config ??= fetch("config.json")
    .then((response) => (response.ok ? response.json() : {}))
    .catch(() => {
      config = undefined;
      return {};
    });
  return config;
}
