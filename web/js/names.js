/** Names of files. */

const FALLBACK = "image";

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
    source
      .replace(/\.[A-Za-z0-9]{1,5}$/, "")
      .replace(/[\u0000-\u001f\u007f<>:"/\\|?*]/g, "_")
      .replace(/^\.+|[. ]+$/g, "") || FALLBACK;
  let name = `${stem}.${format}`;
  for (let number = 2; used.has(name.toLowerCase()); number += 1) name = `${stem}-${number}.${format}`;
  used.add(name.toLowerCase());
  return name;
}
