/** The frame of the page: navigation, notices, the view of the fragment in the URL. */

import { fill, h, icon } from "../dom.js";
import { currentLanguage, languageOf, setLanguage, t } from "../i18n.js";
import { detect } from "./detect.js";
import { history } from "./history.js";
import { notices } from "./notices.js";
import { review } from "./review.js";
import { settings } from "./settings.js";
import { studio } from "./studio.js";
import { usage } from "./usage.js";

/** @import { App } from "../app.js" */

/** @typedef {(root: HTMLElement, app: App) => (() => void) | void} View Renders into `root`; returns what ends it. */

/** @type {Record<string, {view: View, icon: string}>} */
const VIEWS = {
  studio: { view: studio, icon: "cut" },
  detect: { view: detect, icon: "detect" },
  review: { view: review, icon: "review" },
  history: { view: history, icon: "history" },
  usage: { view: usage, icon: "usage" },
  settings: { view: settings, icon: "settings" },
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

  /** @param {Event} event */
  function focusMain(event) {
    event.preventDefault();
    main.focus();
  }

  function route() {
    const name = location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "studio";
    if (end) end();
    main.replaceChildren();
    main.dataset.view = name;
    for (const link of nav.querySelectorAll("a")) {
      if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = name === "studio" ? "Maskdrop" : `${t(`nav.${name}`)} · Maskdrop`;
    end = VIEWS[name]?.view(main, app);
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
    route();
  }

  addEventListener("hashchange", route);
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
