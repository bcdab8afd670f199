/** Starts the console: language, theme, the frame of the page and the view that the URL's fragment names. */

import { App } from "./app.js";
import { Settings } from "./settings.js";
import { frame } from "./views/frame.js";

const app = new App(new Settings(sessionStorage, localStorage));
frame(/** @type {HTMLElement} */ (document.getElementById("app")), app);
void app.load();
