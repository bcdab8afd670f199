/** Names of files. */

const FALLBACK = "image";

/** Control characters, and those that hide or reverse text, so that a name deceives. */
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** Longest name of an upload that the API accepts. */
const UPLOAD_NAME_MAX = 128;

/** A name without characters that deceive. @param {string} name */
export function readable(name) {
  return name.replace(UNSEEN, "_");
}

/** The name of an upload, by which History shows its job; a Blob has none. @param {Blob} file */
export function uploadName(file) {
  const name = file instanceof File ? file.name.replace(/[^\p{L}\p{N}._ -]/gu, "_") : "";
  return /^\.*$/.test(name) ? FALLBACK : [...name].slice(-UPLOAD_NAME_MAX).join("");
}

/** Last part of a URL's path, decoded. @param {string} url @returns {string} */
export function nameOfUrl(url) {
  const last = new URL(url).pathname.split("/").pop() || FALLBACK;
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}

/**
 * The name of a result: the stem of the source with the extension of the format. Control characters and characters that
 * a file system or a ZIP cannot have become `_`. `used` gets the name; a name in it gets a number.
 * @param {string} source @param {string} format @param {Set<string>} [used] In lower case.
 */
export function resultName(source, format, used = new Set()) {
  const stem =
    readable(source)
      .replace(/\.[A-Za-z0-9]{1,5}$/, "")
      .replace(/[<>:"/\\|?*]/g, "_")
      .replace(/^\.+|[. ]+$/g, "") || FALLBACK;
  let name = `${stem}.${format}`;
  for (let number = 2; used.has(name.toLowerCase()); number += 1) name = `${stem}-${number}.${format}`;
  used.add(name.toLowerCase());
  return name;
}
