/**
 * Notices above the view: a lost connection, an API key that is missing or revoked. The live region reads the queue.
 */

import { fill, h, icon } from "../dom.js";
import { t } from "../i18n.js";

/** @import { App } from "../app.js" */

/** @type {(() => void) | null} */
let stop = null;

/** @param {HTMLElement} root @param {HTMLElement} live @param {App} app */
export function notices(root, live, app) {
  stop?.();
  let shown = "none";
  let spoken = "";

  function update() {
    const state =
      app.status === "key" || app.queue.hold === "key"
        ? "key"
        : app.status === "offline" || app.queue.hold === "offline"
          ? "offline"
          : "";
    const kind = state === "key" && app.settings.key ? "refused" : state;
    if (kind !== shown) {
      const focused = root.contains(document.activeElement);
      shown = kind;
      fill(root, state === "key" ? keyNotice(app) : state === "offline" && offlineNotice(app));
      if (focused) root.querySelector("input")?.focus();
    }
    const { done, failed, waiting, running } = app.queue.counts;
    const total = app.queue.items.length;
    const key = waiting + running ? "live.working" : failed ? "live.failed" : "live.done";
    const text = total ? t(key, { done, total, failed }) : "";
    if (text !== spoken) live.textContent = spoken = text;
  }

  app.addEventListener("status", update);
  app.queue.addEventListener("change", update);
  update();
  stop = () => {
    app.removeEventListener("status", update);
    app.queue.removeEventListener("change", update);
  };
}

/** @param {App} app */
function offlineNotice(app) {
  const retry = h("button", { class: "button small", onclick: () => void app.reconnect() }, t("notice.retry"));
  return h(
    "div",
    { class: "notice warn", role: "alert", "data-testid": "offline" },
    icon("warning"),
    h("p", {}, t("notice.offline")),
    retry,
  );
}

/** @param {App} app */
function keyNotice(app) {
  const known = Boolean(app.settings.key);
  const input = h("input", {
    id: "notice-key",
    type: "password",
    autocomplete: "off",
    spellcheck: false,
    required: true,
  });
  const remember = h("input", { type: "checkbox", checked: app.settings.remembered });
  /** @param {Event} event */
  const send = (event) => {
    event.preventDefault();
    void app.useKey(input.value.trim(), remember.checked);
  };
  return h(
    "form",
    { class: "notice warn", onsubmit: send, "data-testid": "key-notice" },
    icon("key"),
    h("p", { role: "alert" }, t(known ? "notice.revoked" : "notice.nokey")),
    h("label", { class: "hidden-text", for: "notice-key" }, t("settings.key")),
    input,
    h("label", { class: "check" }, remember, t("settings.remember")),
    h("button", { class: "button primary small" }, t("notice.usekey")),
  );
}
