// JSON as text: what is shown is what was sent.

import assert from "node:assert/strict";
import { test } from "node:test";

import { decodeString, isJson, joinPath, leaves, prettyLines, readable } from "../../../socket2me/inspector/static/json-tokens.js";

const laidOut = (text) => prettyLines(text).map((line) => line.map(([, piece]) => piece).join("")).join("\n");
const kinds = (text, kind) => prettyLines(text).flat().filter(([k]) => k === kind).map(([, piece]) => piece);

test("numbers keep every digit, and members their order", () => {
  const text = '{"b":123456789012345678901234567890,"a":1.50,"c":-0.0,"d":1E400}';
  assert.equal(laidOut(text), '{\n  "b": 123456789012345678901234567890,\n  "a": 1.50,\n  "c": -0.0,\n  "d": 1E400\n}');
});

test("duplicate keys are all there, and marked; the same key in another object is none", () => {
  const text = '{"a":1,"\\u0061":2,"b":{"a":3},"a":4}';
  assert.deepEqual(kinds(text, "duplicate"), ['"\\u0061"', '"a"']);
  assert.deepEqual(kinds(text, "number"), ["1", "2", "3", "4"]);
});

test("laying out changes white space only", () => {
  const samples = ['[]', '{}', '[[],{}]', '"a b"', " 1 ", 'null', '{"a":[1,{"b":"x\\"y\\\\"}],"c d":"e,f:g{}[]"}', '[1,[2,[3,[]]]]', '["",{"":""}]'];
  for (const text of samples) assert.deepEqual(JSON.parse(laidOut(text)), JSON.parse(text), text);
});

test("strings with brackets, quotes and commas are one token", () => {
  assert.deepEqual(kinds('["{\\"a\\":[1,2]}"]', "string"), ['"{\\"a\\":[1,2]}"']);
});

test("keys that look like members of objects in JavaScript are plain keys", () => {
  assert.deepEqual(kinds('{"__proto__":1,"constructor":2,"toString":3}', "key"), ['"__proto__"', '"constructor"', '"toString"']);
  assert.deepEqual(kinds('{"__proto__":1,"constructor":2}', "duplicate"), []);
});

test("a text that is cut is laid out as far as it goes", () => {
  assert.equal(laidOut('{"a":[1,2,{"b":"unfinis'), '{\n  "a": [\n    1,\n    2,\n    {\n      "b": "unfinis');
});

test("what is no JSON neither throws nor takes long", () => {
  for (const text of ["", "]]]}}}", ",,,:::", '"', "\\", '{"a"::}', "<svg onload=alert(1)>", '{{{"'.repeat(50)]) prettyLines(text);
});

test("ten thousand brackets take memory in proportion", () => {
  const text = "[".repeat(10_000) + "]".repeat(10_000);
  assert.ok(laidOut(text).length < 100 * text.length);
});

test("escapes of letters can be read, and no others", () => {
  assert.equal(readable('"Zo\\u00eb \\u4e2d \\u202e \\u0022 \\\\u00eb \\n \\ud83d\\ude00"'), '"Zoë 中 \\u202e \\u0022 \\\\u00eb \\n \\ud83d\\ude00"');
});

test("isJson is what JSON.parse reads", () => {
  assert.ok(isJson("[".repeat(5000) + "]".repeat(5000)));
  for (const text of ["", "{a:1}", "NaN", "[1,]", "'a'"]) assert.ok(!isJson(text), text);
});

test("leaves have paths as the filter writes them", () => {
  const found = leaves('{"a":{"b c":[1,{"d":"x"}]},"e":[],"f":{}}');
  assert.deepEqual([...found].map(([path, { text }]) => [path, text]), [
    ['$.a["b c"][0]', "1"],
    ['$.a["b c"][1].d', '"x"'],
    ["$.e", "[]"],
    ["$.f", "{}"],
  ]);
});

test("leaves of duplicate keys are all there", () => {
  assert.deepEqual([...leaves('{"a":1,"a":2}').keys()], ["$.a", "$.a #2"]);
  assert.deepEqual([...leaves("[[1],[2]]").keys()], ["$[0][0]", "$[1][0]"]);
  assert.deepEqual([...leaves("5").entries()].map(([path, { text }]) => [path, text]), [["$", "5"]]);
});

test("joinPath and decodeString keep what they cannot read", () => {
  assert.equal(joinPath("$", 'a"b'), '$["a\\"b"]');
  assert.equal(decodeString('"unfinis'), '"unfinis');
});
