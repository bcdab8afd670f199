import assert from "node:assert/strict";
import { test } from "node:test";

import {
  cssOf,
  designOf,
  incomplete,
  isPlain,
  keepsPlace,
  marketplacesOf,
  outputOf,
  plain,
  requestOf,
} from "../../../web/js/design.js";

const ITEM = { prompts: [], strokes: [] };
const MARKETS = [{ name: "amazon", canvas: "2000x2000", padding: "7%", background: "#ffffff" }];
const with_ = (changes) => ({ ...plain(), ...changes });

test("without choices the result is the cut-out", () => {
  assert.deepEqual(outputOf(plain()), { format: "png" });
  assert.ok(isPlain(plain()));
  assert.ok(!isPlain(with_({ format: "webp" })));
});

test("each choice becomes a field of output", () => {
  const design = with_({
    background: "gradient",
    shadow: "contact",
    opacity: 60,
    canvas: "custom",
    width: 1000,
    height: 800,
    padding: 5,
    outline: 2,
    format: "avif",
    size: "hd",
  });
  assert.deepEqual(outputOf(design), {
    background: "gradient 180deg #f5f7fa #c9d2de",
    shadow: "contact 60%",
    canvas: "1000x800",
    padding: "5%",
    outline: "2% #ffffff",
    format: "avif",
  });
});

test("a size is sent with an aspect ratio, not with a canvas in pixels", () => {
  assert.equal(outputOf(with_({ canvas: "1:1", size: "hd" })).size, "hd");
  assert.equal(outputOf(with_({ canvas: "amazon", size: "hd" })).size, undefined);
});

test("a background image is drawn in the browser, over the marketplace's canvas without its background", () => {
  const design = with_({ background: "image", image: new Blob(["x"]), canvas: "amazon", format: "jpg" });
  assert.deepEqual(requestOf(design, ITEM, MARKETS).options.output, {
    canvas: "2000x2000",
    padding: "7%",
    format: "png",
  });
  assert.equal(outputOf({ ...design, padding: 10 }, MARKETS).padding, "10%");
});

test("a background from a text is an edit", () => {
  const { path, options } = requestOf(with_({ background: "text", text: " a beach " }), ITEM, MARKETS);
  assert.equal(path, "/v1/edits");
  assert.deepEqual(options.edit, { prompts: "a beach", change: "background" });
});

test("prompts and strokes of the item are sent, and replace the engine", () => {
  const item = { prompts: [{ box: [0, 0, 9, 9] }], strokes: [{ mode: "erase" }] };
  const { options } = requestOf(with_({ engine: "u2netp" }), item, []);
  assert.deepEqual([options.prompt, options.strokes, options.engine], [item.prompts, item.strokes, undefined]);
});

test("a preset is sent by its name and shows its values", () => {
  const design = designOf({
    name: "product",
    engine: "auto",
    output: { format: "jpg", channels: "rgba", canvas: "1:1", padding: "10%", background: "#ffffff", scale: "80%" },
  });
  assert.deepEqual(requestOf(design, ITEM, []).options, { preset: "product" });
  assert.deepEqual(
    [design.canvas, design.padding, design.background, design.colour, design.format],
    ["1:1", 10, "colour", "#ffffff", "jpg"],
  );
  assert.deepEqual(outputOf({ ...design, preset: "" }), {
    scale: "80%",
    background: "#ffffff",
    canvas: "1:1",
    padding: "10%",
    format: "jpg",
  });
});

test("lengths in pixels of a preset survive a change in the panel", () => {
  const design = designOf({
    name: "sticker",
    output: { format: "webp", outline: "8px", canvas: "512x512", padding: "0px" },
  });
  const output = outputOf({ ...design, preset: "", shadow: "drop" });
  assert.deepEqual([output.outline, output.padding, output.canvas], ["8px", "0px", "512x512"]);
});

test("a choice in the panel replaces a length in pixels of a preset", () => {
  const design = designOf({ name: "sticker", output: { outline: "8px", padding: "0px" } });
  const output = outputOf({ ...design, preset: "", outline: 3, padding: 4 });
  assert.deepEqual([output.outline, output.padding], ["3% #ffffff", "4%"]);
});

test("backgrounds of presets are read", () => {
  const of = (background) => designOf({ name: "a", output: { background } });
  assert.equal(of("blur 5%").blur, 5);
  assert.equal(of("studio grey").studio, "grey");
  const gradient = of("gradient 90deg #ffffff #cccccc");
  assert.deepEqual([gradient.from, gradient.to, gradient.angle], ["#ffffff", "#cccccc", "90deg"]);
});

test("colours and gradients are shown at once by CSS", () => {
  assert.equal(cssOf(with_({ background: "colour", colour: "#ff0000" })), "#ff0000");
  assert.equal(
    cssOf(with_({ background: "gradient", angle: "radial" })),
    "radial-gradient(farthest-corner, #f5f7fa, #c9d2de)",
  );
  assert.equal(cssOf(with_({ background: "blur" })), "");
});

test("only a design without a canvas keeps the place of the image", () => {
  assert.ok(keepsPlace(with_({ background: "blur", outline: 2 })));
  assert.ok(!keepsPlace(with_({ canvas: "1:1" })));
});

test("a background image or text that is missing is incomplete", () => {
  assert.ok(incomplete(with_({ background: "image" })));
  assert.ok(incomplete(with_({ background: "text", text: " " })));
  assert.ok(!incomplete(plain()));
});

test("marketplaces come from the OpenAPI document", () => {
  const rules = { canvas: "2000x2000", padding: "7%" };
  const document = {
    components: { schemas: { Output: { properties: { canvas: { "x-marketplaces": { amazon: rules } } } } } },
  };
  assert.deepEqual(marketplacesOf(document), [{ name: "amazon", ...rules }]);
  assert.deepEqual(marketplacesOf({}), []);
});
