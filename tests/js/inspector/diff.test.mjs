// What differs between two requests.

import assert from "node:assert/strict";
import { test } from "node:test";

import { diffJson, diffLines, diffRequests } from "../../../socket2me/inspector/static/diff.js";

const bytes = (text) => new TextEncoder().encode(text);
const request = (changes) => ({ method: "POST", path: "/a", query: "", status: 200, headers: [], body: bytes(""), ...changes });

test("order of members, white space and escapes are no difference of JSON", () => {
  assert.deepEqual(diffJson('{"a":1,"b":"é"}', '{ "b": "\\u00e9", "a": 1 }'), []);
});

test("integers that differ beyond what JavaScript can count differ", () => {
  assert.deepEqual(diffJson('{"id":9007199254740993}', '{"id":9007199254740992}'), [
    { path: "$.id", before: "9007199254740993", after: "9007199254740992" },
  ]);
});

test("what was added, removed and changed has its path", () => {
  assert.deepEqual(diffJson('{"a":{"x":1,"y":2},"l":[1,2]}', '{"a":{"x":3},"l":[1,2,4]}'), [
    { path: "$.a.x", before: "1", after: "3" },
    { path: "$.a.y", before: "2", after: null },
    { path: "$.l[2]", before: null, after: "4" },
  ]);
});

test("a string and a number of the same characters differ", () => {
  assert.equal(diffJson('{"a":1}', '{"a":"1"}').length, 1);
});

test("lines: the shortest script that makes one text of the other", () => {
  const shown = diffLines("a\nb\nc\nd", "a\nc\nx\nd").map(([kind, line]) => `${{ same: " ", removed: "-", added: "+" }[kind]}${line}`);
  assert.deepEqual(shown, [" a", "-b", " c", "+x", " d"]);
});

test("lines: the script always makes one text of the other", () => {
  let seed = 7;
  const random = (n) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
  for (let run = 0; run < 200; run++) {
    const text = () => Array.from({ length: random(12) }, () => "abc"[random(3)]).join("\n");
    const [before, after] = [text(), text()];
    const script = diffLines(before, after);
    const side = (kind) => script.filter(([k]) => k === "same" || k === kind).map(([, line]) => line).join("\n");
    assert.deepEqual([side("removed"), side("added")], [before, after]);
  }
});

test("texts that have nothing in common cost little", () => {
  const many = (letter) => Array.from({ length: 20_000 }, (_, i) => letter + i).join("\n");
  assert.equal(diffLines(many("a"), many("b")).length, 40_000);
});

test("request line and headers are compared; names of headers whatever their case", () => {
  const found = diffRequests(
    request({ headers: [["X-A", "1"], ["x-b", "2"]] }),
    request({ method: "PUT", status: null, headers: [["x-a", "1"], ["x-c", "3"]] }),
  );
  assert.deepEqual(found.line, [{ path: "method", before: "POST", after: "PUT" }, { path: "status", before: "200", after: "" }]);
  assert.deepEqual(found.headers, [{ path: "x-b", before: "2", after: null }, { path: "x-c", before: null, after: "3" }]);
  assert.deepEqual(found.body, { kind: "same" });
});

test("bodies that are no text are compared byte by byte", () => {
  const found = diffRequests(request({ body: Uint8Array.of(1, 255, 3) }), request({ body: Uint8Array.of(1, 255, 3, 4) }));
  assert.deepEqual(found.body, { kind: "binary", at: 3, sizes: [3, 4] });
});

test("bodies of text are compared by line where one is no JSON", () => {
  assert.equal(diffRequests(request({ body: bytes("{}") }), request({ body: bytes("no") })).body.kind, "text");
});
