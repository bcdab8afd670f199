/** @import { App } from "../app.js" */

/** @param {HTMLElement} root @param {App} app @returns {() => void} */
export function settings(root, app) {
  root.dataset.app = app.status;
  return () => {};
}
