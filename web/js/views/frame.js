/** The frame of the page: navigation, notices, the view of the fragment in the URL. */

import { fill, h, icon } from "../dom.js";
import { currentLanguage, languageOf, setLanguage, t } from "../i18n.js";
import { notices } from "./notices.js";
import { studio } from "./studio.js";

/** @import { App } from "../app.js" */

/** @typedef {(root: HTMLElement, app: App) => (() => void) | void} View Renders into `root`; returns what ends it. */

/** Icon and module of each view; those besides the first are loaded when they are opened. @type {Record<string, {icon: string, load: () => Promise<View>}>} */
const VIEWS = {
  studio: { icon: "cut", load: async () => studio },
  detect: { icon: "detect", load: async () => (await import("./detect.js")).detect },
  review: { icon: "review", load: async () => (await import("./review.js")).review },
  history: { icon: "history", load: async () => (await import("./history.js")).history },
  usage: { icon: "usage", load: async () => (await import("./usage.js")).usage },
  settings: { icon: "settings", load: async () => (await import("./settings.js")).settings },
};

/** @param {HTMLElement} root @param {App} app */
export function frame(root, app) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const nav = h("nav", { class: "nav" });
  const main = h("main", { id: "main", tabIndex: -1 });
  const notice = h("div", { class: "notices" });
  const live = h("div", { class: "hidden-text", role: "status", "data-testid": "live" });
  const skip = h("a", { class: "skip", href: "#main", onclick: focusMain });
  const brand = h("a", { class: "brand", href: "#studio" }, logo(), "Maskdrop");
  fill(root, skip, h("header", { class: "top" }, brand, nav), notice, main, live);
  /** @type {(() => void) | void} */
  let end;
  let shown = "";
  let turn = 0;

  /** @param {Event} event */
  function focusMain(event) {
    event.preventDefault();
    main.focus();
  }

  async function route() {
    const name = location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "studio";
    if (end) end();
    end = undefined;
    turn += 1;
    const own = turn;
    main.replaceChildren();
    main.dataset.view = name;
    for (const link of nav.querySelectorAll("a")) {
      if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = name === "studio" ? "Maskdrop" : `${t(`nav.${name}`)} · Maskdrop`;
    const view = await VIEWS[name]?.load().catch(() => null);
    if (own !== turn) return;
    if (view) end = view(main, app);
    else fill(main, h("p", { class: "bad", role: "alert" }, t("error.offline")));
    if (shown && shown !== name) {
      main.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    shown = name;
  }

  function theme() {
    const choice = app.settings.get("theme") || "system";
    document.documentElement.dataset.theme = choice === "system" ? (dark.matches ? "dark" : "light") : choice;
  }

  function texts() {
    const chosen = app.settings.get("language");
    setLanguage(languageOf(chosen ? [chosen] : navigator.languages));
    document.documentElement.lang = currentLanguage();
    skip.textContent = t("nav.skip");
    nav.setAttribute("aria-label", t("nav.label"));
    fill(
      nav,
      ...Object.entries(VIEWS).map(([name, { icon: drawn }]) =>
        h("a", { href: `#${name}`, class: `tab tab-${name}` }, icon(drawn), h("span", {}, t(`nav.${name}`))),
      ),
    );
    notices(notice, live, app);
    void route();
  }

  addEventListener("hashchange", () => void route());
  dark.addEventListener("change", theme);
  app.addEventListener("preferences", () => {
    theme();
    texts();
  });
  addEventListener("online", () => void app.reconnect());
  addEventListener("beforeunload", (event) => {
    if (app.queue.busy) event.preventDefault();
  });
  theme();
  texts();
}

function logo() {
  return h("img", { src: "icon.svg", alt: "", width: 28, height: 28 });
}
