import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { nameOfUrl, readable, resultName } from "../../../web/js/names.js";
import { crc32, zip } from "../../../web/js/zip.js";

const text = (value) => new TextEncoder().encode(value);

test("CRC-32 has the check value of its definition", () => {
  assert.equal(crc32(text("123456789")), 0xcbf43926);
});

test("another program reads the ZIP, with names in UTF-8", async () => {
  const files = [
    { name: "Größe 1.png", blob: new Blob(["first"]) },
    { name: "empty.png", blob: new Blob([]) },
    { name: "写真.webp", blob: new Blob([new Uint8Array(70_000).fill(7)]) },
  ];
  const path = join(mkdtempSync(join(tmpdir(), "zip-")), "files.zip");
  writeFileSync(path, new Uint8Array(await (await zip(files, new Date(2026, 10, 29, 12, 30, 8))).arrayBuffer()));
  const read =
    "import json,sys,zipfile; z=zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; print(json.dumps([[i.filename,i.file_size,i.date_time] for i in z.infolist()]))";
  const date = [2026, 11, 29, 12, 30, 8];
  assert.deepEqual(JSON.parse(execFileSync("python3", ["-c", read, path], { encoding: "utf8" })), [
    ["Größe 1.png", 5, date],
    ["empty.png", 0, date],
    ["写真.webp", 70_000, date],
  ]);
});

test("more files than a ZIP can have are refused", async () => {
  await assert.rejects(zip(Array(65_536).fill({ name: "a", blob: new Blob([]) })), RangeError);
});

test("a.jpg and a.png never share a result", () => {
  const used = new Set();
  assert.deepEqual(
    ["a.jpg", "a.png", "A.webp"].map((name) => resultName(name, "png", used)),
    ["a.png", "a-2.png", "A-3.png"],
  );
});

test("the name of a result has no path and no control characters", () => {
  assert.equal(resultName("../../etc/pass\u0000wd", "png"), "_.._etc_pass_wd.png");
  assert.equal(resultName('<img src=x onerror="1">.jpg', "webp"), "_img src=x onerror=_1__.webp");
  assert.equal(resultName(".jpg", "png"), "image.png");
  assert.equal(resultName("v1.2.final.tiff", "jpg"), "v1.2.final.jpg");
});

test("the name of a URL is the last part of its path", () => {
  assert.equal(nameOfUrl("https://example.com/a/caf%C3%A9.jpg?size=2"), "café.jpg");
  assert.equal(nameOfUrl("https://example.com/%E0%A4%A"), "%E0%A4%A");
  assert.equal(nameOfUrl("https://example.com/"), "image");
});

test("a name cannot deceive by characters that hide or reverse it", () => {
  const name = "a\u202egnp.exe";
  assert.equal(readable(name), "a_gnp.exe");
  assert.equal(resultName(name, "png"), "a_gnp.png");
});
