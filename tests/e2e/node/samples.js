// node samples.js axios|fetch URL KEY FILE OUTPUT: the samples of remove.bg's API page for two HTTP clients.
const fs = require("fs");
const path = require("path");

const [, , client, url, key, file, output] = process.argv;

async function withAxios() {
  const FormData = require("form-data");
  const form = new FormData();
  form.append("size", "auto");
  form.append("image_file", fs.createReadStream(file), path.basename(file));
  const headers = { ...form.getHeaders(), "X-Api-Key": key };
  const response = await require("axios")({ method: "post", url, data: form, responseType: "arraybuffer", headers });
  return response.data;
}

async function withFetch() {
  const form = new FormData();
  form.append("size", "auto");
  form.append("image_file", new Blob([fs.readFileSync(file)]));
  const response = await fetch(url, { method: "POST", headers: { "X-Api-Key": key }, body: form });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return Buffer.from(await response.arrayBuffer());
}

({ axios: withAxios, fetch: withFetch })[client]().then((data) => fs.writeFileSync(output, data));
