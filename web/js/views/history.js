/** @import { App } from "../app.js" */

/** @param {HTMLElement} root @param {App} app @returns {() => void} */
export function history(root, app) {
  root.dataset.app = app.status;
  return () => {};
}
