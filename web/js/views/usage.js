/** The view of usage and cost by calendar month. */

import { ApiError } from "../api.js";
import { fill, h } from "../dom.js";
import { dollars, monthName, number, t } from "../i18n.js";
import { select } from "./controls.js";

/** @import { App } from "../app.js" */

const MONTHS = 12;

/** The months up to this one, newest first. @param {Date} now @returns {Date[]} */
export function monthsUntil(now) {
  return Array.from(
    { length: MONTHS },
    (_, back) => new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - back, 1)),
  );
}

/** @param {HTMLElement} root @param {App} app @returns {() => void} */
export function usage(root, app) {
  const months = monthsUntil(new Date());
  const lead = h("p", { class: "lead" });
  const cards = h("dl", { class: "cards" });
  const message = h("p", { class: "bad", role: "alert" });
  /** @param {Date} month */
  const code = (month) => month.toISOString().slice(0, 7);
  let shown = code(/** @type {Date} */ (months[0]));
  const choice = select({
    label: t("usage.month"),
    value: shown,
    options: months.map((month) => [code(month), monthName(month)]),
    testid: "usage-month",
    change: (value) => {
      shown = value;
      void load();
    },
  });
  root.append(
    h(
      "div",
      { class: "page" },
      h("div", { class: "page-head" }, h("h1", {}, t("usage.title")), lead),
      choice,
      message,
      cards,
      h("p", { class: "hint" }, t("usage.note")),
    ),
  );

  /** @param {string} label @param {string} value */
  const card = (label, value) => h("div", { class: "card" }, h("dt", {}, label), h("dd", {}, value));

  async function load() {
    const asked = shown;
    try {
      const found = await app.api.usage(asked);
      if (asked !== shown) return;
      message.textContent = "";
      lead.textContent = t("usage.lead", { owner: found.owner });
      fill(
        cards,
        card(t("usage.pictures"), number(found.pictures)),
        card(t("usage.generated"), number(found.generated)),
        card(t("usage.cost"), dollars(found.generated_usd)),
        card(t("usage.refused"), number(found.refused)),
      );
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      message.textContent = error.offline ? t("error.offline") : error.message;
    }
  }

  const again = () => void load();
  app.addEventListener("status", again);
  again();
  return () => app.removeEventListener("status", again);
}
