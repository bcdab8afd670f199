/** Writes ZIP files without compression (APPNOTE.TXT, version 2.0): images are compressed already. */

const FILES_MAX = 65_535;
const BYTES_MAX = 4_294_967_295;
const UTF8_NAMES = 0x0800;
const VERSION = 20;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** CRC-32 as in ZIP and PNG. @param {Uint8Array} bytes @returns {number} */
export function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = /** @type {number} */ (TABLE[(value ^ byte) & 255]) ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

/**
 * Returns a ZIP with these files. Raises RangeError above 65,535 files or 4 GiB.
 * @param {{name: string, blob: Blob}[]} files Names are unique.
 * @param {Date} [date]
 * @returns {Promise<Blob>}
 */
export async function zip(files, date = new Date()) {
  if (files.length > FILES_MAX) throw new RangeError(`A ZIP contains at most ${FILES_MAX} files; got ${files.length}.`);
  /** @type {BlobPart[]} */
  const contents = [];
  /** @type {BlobPart[]} */
  const directory = [];
  let offset = 0;
  let directorySize = 0;
  for (const { name, blob } of files) {
    const encoded = new TextEncoder().encode(name);
    const crc = crc32(new Uint8Array(await blob.arrayBuffer()));
    const common = [VERSION, UTF8_NAMES, 0, dosTime(date), dosDate(date)];
    const sizes = [crc, blob.size, blob.size];
    contents.push(record(0x04034b50, common, sizes, [encoded.length, 0]), encoded, blob);
    const rest = [encoded.length, 0, 0, 0, 0];
    directory.push(record(0x02014b50, [VERSION, ...common], sizes, rest, [0, offset]), encoded);
    offset += 30 + encoded.length + blob.size;
    directorySize += 46 + encoded.length;
  }
  if (offset + directorySize > BYTES_MAX) throw new RangeError("A ZIP contains at most 4 GiB.");
  const end = record(0x06054b50, [0, 0, files.length, files.length], [directorySize, offset], [0]);
  return new Blob([...contents, ...directory, end], { type: "application/zip" });
}

/**
 * A little-endian record: a signature, then groups of 16-bit and 32-bit numbers in turn.
 * @param {number} signature @param {...number[]} groups
 */
function record(signature, ...groups) {
  const widths = groups.map((_, index) => (index % 2 ? 4 : 2));
  const size = groups.reduce((sum, group, index) => sum + group.length * /** @type {number} */ (widths[index]), 4);
  const view = new DataView(new ArrayBuffer(size));
  view.setUint32(0, signature, true);
  let at = 4;
  groups.forEach((group, index) => {
    for (const value of group) {
      if (widths[index] === 2) view.setUint16(at, value, true);
      else view.setUint32(at, value, true);
      at += /** @type {number} */ (widths[index]);
    }
  });
  return view.buffer;
}

/** @param {Date} date */
function dosTime(date) {
  return (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1);
}

/** @param {Date} date */
function dosDate(date) {
  return (Math.max(0, date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate();
}
