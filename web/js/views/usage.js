/** @import { App } from "../app.js" */

/** @param {HTMLElement} root @param {App} app @returns {() => void} */
export function usage(root, app) {
  root.dataset.app = app.status;
  return () => {};
}
