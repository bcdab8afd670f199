/** Texts in German. @type {Record<string, string>} */
export const de = {};
