/** The view of the settings: API key, language, theme; what the server is. */

import { fill, h } from "../dom.js";
import { currentLanguage, LANGUAGES, t } from "../i18n.js";
import { id, segmented } from "./controls.js";

/** @import { App } from "../app.js" */

/** Names of the languages in themselves. @type {Record<string, string>} */
const NAMES = { en: "English", de: "Deutsch" };

/** @param {HTMLElement} root @param {App} app @returns {() => void} */
export function settings(root, app) {
  const { settings: kept } = app;
  const key = id();
  const input = h("input", {
    id: key,
    type: "password",
    autocomplete: "off",
    spellcheck: false,
    value: kept.key,
    "data-testid": "key",
  });
  const message = h("p", { class: "hint", role: "status" });
  let remember = kept.remembered;
  const keep = segmented({
    label: t("settings.keep"),
    value: remember ? "browser" : "session",
    options: ["session", "browser"].map((value) => [value, t(`settings.keep.${value}`)]),
    testid: "keep",
    change: (value) => {
      remember = value === "browser";
    },
  });
  const server = h("dl", { class: "facts" });

  /** @param {Event} event */
  async function send(event) {
    event.preventDefault();
    await app.useKey(input.value.trim(), remember);
    message.textContent = t(
      app.status === "" ? "settings.saved" : app.status === "key" ? "settings.refused" : "error.offline",
    );
    message.className = app.status === "" ? "good" : "bad";
  }

  function forget() {
    input.value = "";
    kept.setKey("", false);
    message.textContent = t("settings.deleted");
    message.className = "hint";
  }

  /** @param {string} name @param {string} value */
  function prefer(name, value) {
    kept.set(name, value);
    app.fire("preferences");
  }

  const languages = Object.keys(LANGUAGES).map((code) => [code, NAMES[code] ?? code]);
  const themes = ["system", "light", "dark"].map((value) => [value, t(`theme.${value}`)]);
  root.append(
    h(
      "div",
      { class: "page narrow" },
      h("div", { class: "page-head" }, h("h1", {}, t("settings.title"))),
      section(
        t("settings.key"),
        h(
          "form",
          { class: "stack", onsubmit: send },
          h(
            "div",
            { class: "field" },
            h("label", { class: "hidden-text", for: key }, t("settings.key")),
            input,
            h("p", { class: "hint" }, t("settings.key.hint")),
          ),
          keep,
          h(
            "div",
            { class: "row" },
            h("button", { class: "button primary", "data-testid": "save-key" }, t("settings.save")),
            h("button", { type: "button", class: "button", onclick: forget }, t("settings.forget")),
          ),
          message,
        ),
      ),
      section(
        t("settings.language"),
        segmented({
          label: t("settings.language"),
          value: currentLanguage(),
          options: languages,
          testid: "language",
          change: (value) => prefer("language", value),
        }),
      ),
      section(
        t("settings.theme"),
        segmented({
          label: t("settings.theme"),
          value: kept.get("theme") || "system",
          options: themes,
          testid: "theme",
          change: (value) => prefer("theme", value),
        }),
      ),
      section(
        t("settings.server"),
        server,
        h("p", {}, h("a", { href: `${app.api.base}/v1/docs`, target: "_blank", rel: "noopener" }, t("settings.docs"))),
      ),
    ),
  );

  async function describe() {
    const health = await app.api.health().catch(() => null);
    if (!health) return fill(server, h("dd", { class: "bad" }, t("error.offline")));
    const engines = app.engines.filter((engine) => engine.available !== false).map((engine) => engine.name);
    const rows = [
      [t("settings.stage"), health.stage],
      [t("settings.version"), health.version],
      [t("settings.engines"), engines.join(", ")],
    ];
    fill(
      server,
      ...rows
        .filter(([, value]) => value)
        .flatMap(([name = "", value = ""]) => [h("dt", {}, name), h("dd", {}, value)]),
    );
  }

  const update = () => void describe();
  app.addEventListener("status", update);
  update();
  return () => app.removeEventListener("status", update);
}

/** @param {string} title @param {...HTMLElement} children */
function section(title, ...children) {
  return h("section", { class: "setting" }, h("h2", {}, title), ...children);
}
