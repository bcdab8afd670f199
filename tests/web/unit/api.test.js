import assert from "node:assert/strict";
import { test } from "node:test";

import { Api, bodyOf, factsOf } from "../../../web/js/api.js";

/** An API whose server answers with these responses in turn; `requests` has what was sent. */
function apiOf(...responses) {
  const requests = [];
  const api = new Api({
    base: "https://stage.example/",
    key: () => "secret",
    fetch: async (url, init = {}) => {
      requests.push({ url, ...init, headers: new Headers(init.headers) });
      const next = responses.shift();
      if (next instanceof Error) throw next;
      return next;
    },
  });
  return { api, requests };
}
const failure = (status, code, headers = {}) =>
  Response.json({ error: { code, message: `about ${code}`, retryable: status >= 500 } }, { status, headers });

test("the key is in a header, never in the URL", async () => {
  const { api, requests } = apiOf(Response.json({ engines: [] }));
  await api.engines();
  assert.equal(requests[0].url, "https://stage.example/v1/engines");
  assert.equal(requests[0].headers.get("x-api-key"), "secret");
});

test("a cut-out has its facts", async () => {
  const headers = {
    "content-type": "image/png",
    "x-maskdrop-engine": "u2netp",
    "x-maskdrop-width": "40",
    "x-maskdrop-height": "30",
    "x-maskdrop-subject": '{"score": 0.4, "needs_review": true}',
    "x-maskdrop-warnings": '["no_subject"]',
  };
  const { api } = apiOf(new Response("png", { headers }));
  const { blob, facts } = await api.cutout(new Blob(["jpg"]), {});
  assert.equal(await blob.text(), "png");
  assert.deepEqual(
    [facts.engine, facts.width, facts.subject.needs_review, facts.warnings],
    ["u2netp", 40, true, ["no_subject"]],
  );
});

test("a form has the fields of output beside the others, objects as JSON", () => {
  const { body } = bodyOf(new Blob(["x"]), {
    engine: "auto",
    prompt: [{ box: [1, 2, 3, 4] }],
    output: { format: "jpg", crop: true },
  });
  assert.deepEqual([...body.entries()].slice(1), [
    ["engine", "auto"],
    ["prompt", '[{"box":[1,2,3,4]}]'],
    ["format", "jpg"],
    ["crop", "true"],
  ]);
});

test("an image by URL is sent as JSON", () => {
  const { body } = bodyOf("https://example.com/a.jpg", { output: { format: "png" } });
  assert.deepEqual(JSON.parse(body), { output: { format: "png" }, source: { url: "https://example.com/a.jpg" } });
});

test("an error keeps code, message and Retry-After", async () => {
  const { api } = apiOf(failure(503, "queue_full", { "retry-after": "7" }));
  await assert.rejects(
    api.health(),
    (error) =>
      error.code === "queue_full" && error.retryable && error.retryAfter === 7 && error.message === "about queue_full",
  );
});

test("a lost connection, a revoked key and the page of a proxy are distinct errors", async () => {
  const { api } = apiOf(
    new TypeError("fetch failed"),
    failure(403, "auth_failed"),
    new Response("<h1>Bad gateway</h1>", { status: 502 }),
  );
  await assert.rejects(api.health(), (error) => error.offline && error.code === "network");
  await assert.rejects(api.health(), (error) => error.key && !error.offline);
  await assert.rejects(api.health(), (error) => error.code === "http_502" && error.retryable);
});

test("a file that is too large for a request is uploaded and becomes a job", async () => {
  const job = {
    id: "a",
    state: "done",
    engine: "auto",
    subject: null,
    warnings: [],
    timings: {},
    results: [],
    result: { url: "https://stage.example/r.png", width: 2, height: 1 },
  };
  const { api, requests } = apiOf(
    failure(413, "file_too_large"),
    Response.json({ url: "https://stage.example/form", fields: { key: "k" }, upload: "u" }),
    new Response(null, { status: 204 }),
    Response.json(job),
    new Response("png"),
  );
  const { blob, facts } = await api.cutout(new Blob(["large"]), { engine: "auto" });
  assert.equal(await blob.text(), "png");
  assert.equal(facts.width, 2);
  assert.deepEqual(JSON.parse(requests[3].body), { engine: "auto", source: { upload: "u" } });
  assert.equal(requests[2].headers.get("x-api-key"), null, "a presigned form gets no key");
});

test("a job that failed raises its error", async () => {
  const { api } = apiOf(
    Response.json(
      { id: "a", state: "failed", error: { code: "mask_empty", message: "empty", retryable: false } },
      { status: 202 },
    ),
  );
  await assert.rejects(api.cutout(new Blob(["x"]), {}), (error) => error.code === "mask_empty");
});

test("a response without headers has facts", () => {
  assert.deepEqual(factsOf(new Headers()).warnings, []);
});

test("stored files are fetched from the origin of the console where its server says so", async () => {
  const { api, requests } = apiOf(new Response("png"), new Response("png"));
  api.files = [["https://results.s3.eu-central-1.amazonaws.com/", "/files/results/"]];
  await api.file("https://results.s3.eu-central-1.amazonaws.com/results/a%20b.png?X-Amz-Signature=1");
  await api.file("/v1/files/results/a.png?signature=1");
  assert.deepEqual(
    requests.map(({ url }) => url),
    ["/files/results/results/a%20b.png?X-Amz-Signature=1", "/v1/files/results/a.png?signature=1"],
  );
});

test("a connection that is lost during an upload, a download or a body is lost for the queue, too", async () => {
  const lost = (error) => error.offline && error.code === "network";
  const form = () => Response.json({ url: "https://stage.example/form", fields: {}, upload: "u" });
  const cut = new Response(new ReadableStream({ pull: (stream) => stream.error(new TypeError("network error")) }));
  const { api } = apiOf(form(), new TypeError("Failed to fetch"), new TypeError("Failed to fetch"), cut);
  await assert.rejects(api.upload(new Blob(["x"])), lost);
  await assert.rejects(api.file("/v1/files/results/a.png"), lost);
  await assert.rejects(api.cutout(new Blob(["x"]), {}), lost);
});

test("a page in place of JSON, and a key that no header can have, are errors in a sentence", async () => {
  const { api, requests } = apiOf(new Response("<html>"));
  await assert.rejects(api.health(), (error) => error.code === "bad_response" && error.message.includes("no JSON"));
  api.key = () => "ключ";
  await assert.rejects(api.health(), (error) => error.key);
  assert.equal(requests.length, 1);
});

test("an upload has the name of its file, so that History shows it", async () => {
  const names = [];
  for (const file of [new File(["x"], "a <b>.png"), new File(["x"], ".."), new Blob(["x"])]) {
    const { api, requests } = apiOf(
      Response.json({ url: "https://stage.example/form", fields: {}, upload: "u" }),
      new Response(null, { status: 204 }),
    );
    await api.upload(file);
    names.push(JSON.parse(requests[0].body).name);
  }
  assert.deepEqual(names, ["a _b_.png", "image", "image"]);
});
