/** Settings of this browser. The API key is kept for the session of the tab unless the user chooses the browser. */

const KEY = "maskdrop.key";

export class Settings {
  /** @param {Storage} session @param {Storage} browser */
  constructor(session, browser) {
    this.session = session;
    this.browser = browser;
  }

  /** @returns {string} "" for none. */
  get key() {
    return this.session.getItem(KEY) ?? this.browser.getItem(KEY) ?? "";
  }

  /** Whether the key is kept in the browser. */
  get remembered() {
    return this.browser.getItem(KEY) !== null;
  }

  /** @param {string} key "" deletes it. @param {boolean} remember In the browser rather than for the session. */
  setKey(key, remember) {
    this.session.removeItem(KEY);
    this.browser.removeItem(KEY);
    if (key) (remember ? this.browser : this.session).setItem(KEY, key);
  }

  /** @param {string} name @returns {string} "" where not set. */
  get(name) {
    return this.browser.getItem(`maskdrop.${name}`) ?? "";
  }

  /** @param {string} name @param {string} value */
  set(name, value) {
    this.browser.setItem(`maskdrop.${name}`, value);
  }
}
