// Runs @imgly/background-removal-node for `tests.bench.peers`, in the folder of node_modules. Argument: PHOTO.
// For each line of standard input, a number of images, prints the seconds. Writes the last result next to the photo as
// imgly.png.

import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { removeBackground } from "@imgly/background-removal-node";

const photo = process.argv[2];
for await (const line of createInterface({ input: process.stdin })) {
  const start = performance.now();
  let result;
  for (let count = Number(line); count > 0; count--) {
    result = await removeBackground(pathToFileURL(photo).href, { output: { format: "image/png" } });
  }
  console.log((performance.now() - start) / 1000);
  await writeFile(join(dirname(photo), "imgly.png"), Buffer.from(await result.arrayBuffer()));
}
