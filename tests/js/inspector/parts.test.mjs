// Bytes, forms, filters, times, lists and the parser of the stream.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { test } from "node:test";

import { asUtf8, fromBase64, hexLines, looksLikeText, toBase64 } from "../../../socket2me/inspector/static/bytes.js";
import { addTerm, term } from "../../../socket2me/inspector/static/filter.js";
import { formatBytes, formatMs, statusKind, visible } from "../../../socket2me/inspector/static/format.js";
import { pairs, parts } from "../../../socket2me/inspector/static/forms.js";
import { hmac } from "../../../socket2me/inspector/static/hmac.js";
import { activity, addEvents, addPage, EMPTY, previousLike } from "../../../socket2me/inspector/static/requests.js";
import { check, detect, sign } from "../../../socket2me/inspector/static/signature.js";
import { eventParser, follow } from "../../../socket2me/inspector/static/stream.js";

const bytes = (text) => new TextEncoder().encode(text);

test("base64 keeps every byte", () => {
  const all = Uint8Array.from({ length: 100_000 }, (_, i) => (i * 7) % 256);
  assert.equal(toBase64(all), Buffer.from(all).toString("base64"));
  assert.deepEqual(fromBase64(toBase64(all)), all);
});

test("text is UTF-8 without NUL, also where a cut splits a character", () => {
  assert.ok(looksLikeText(bytes("é".repeat(4096))));
  assert.ok(!looksLikeText(Uint8Array.of(65, 0)));
  assert.ok(!looksLikeText(Uint8Array.of(65, 255, 254, 253, 252)));
  assert.equal(asUtf8(Uint8Array.of(0xef, 0xbb, 0xbf, 65)), "\ufeffA");
});

test("a hex dump has offsets, two groups of eight, and dots for what is not ASCII", () => {
  assert.deepEqual(hexLines(bytes("0123456789abcdef\n<é")), [
    "00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  0123456789abcdef",
    "00000010  0a 3c c3 a9                                       .<..",
  ]);
});

test("forms keep order and repeated names, and read bytes that are not UTF-8", () => {
  assert.deepEqual(pairs("a=1&b=2+3&a=%C3%A9&c&=x&d=%ff%"), [["a", "1"], ["b", "2 3"], ["a", "é"], ["c", ""], ["", "x"], ["d", "\ufffd%"]]);
});

test("a multipart body has its fields and files, whatever is within them", () => {
  const body = bytes(
    '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\none --x\r\ntwo\r\n--x\r\nContent-Disposition: form-data; name="f"; filename="a \\"b\\".png"\r\nContent-Type: image/png\r\n\r\n\0\x01\r\n--x--\r\n',
  );
  const found = parts(body, 'multipart/form-data; boundary="x"');
  assert.deepEqual(found.map(({ name, filename, type }) => [name, filename, type]), [["a", null, null], ["f", 'a "b".png', "image/png"]]);
  assert.deepEqual([...found[1].bytes], [0, 1]);
  assert.equal(found[0].text, "one --x\r\ntwo");
  assert.equal(parts(body, "multipart/form-data"), null);
  assert.equal(parts(bytes("nothing"), "multipart/form-data; boundary=x"), null);
});

test("characters that are invisible or turn the text around are shown as numbers", () => {
  assert.equal(visible("a\u202eb\0c\u200bd\te\nf\ufeff"), "a\\u202eb\\u0000c\\u200bd\te\nf\\ufeff");
});

test("sizes, times and statuses have words", () => {
  assert.deepEqual([formatBytes(999), formatBytes(12_345), formatBytes(2_000_000)], ["999 B", "12.3 KB", "2.0 MB"]);
  assert.deepEqual([formatMs(null), formatMs(0.44), formatMs(12.3), formatMs(1250)], ["–", "0.4 ms", "12 ms", "1.25 s"]);
  assert.deepEqual([200, 302, 404, 503, null].map(statusKind), ["ok", "redirect", "client-error", "server-error", "waiting"]);
});

test("a term of the filter is quoted where it has to be, and added once", () => {
  assert.equal(term("header.x-a", "push"), "header.x-a:push");
  assert.equal(term("header.x-a", 'a "b" \\'), 'header.x-a:"a \\"b\\" \\\\"');
  assert.equal(term("header.x-a", ""), 'header.x-a:""');
  assert.equal(addTerm("POST", "x:1"), "POST x:1");
  assert.equal(addTerm("x:1 POST", "x:1"), "x:1 POST");
});

test("requests and updates come into the list once, newest first, in any order", () => {
  const row = (id, status = null) => ({ id, method: "POST", path: "/", status, received_at: 0 });
  let list = addPage(EMPTY, { requests: [row("2"), row("1")], more: true });
  list = addEvents(list, [
    ["request", row("3")],
    ["request", row("2")],
    ["update", { id: "3", status: 200, ms: 5, outcome: "sent" }],
    ["update", { id: "1", status: 502 }],
    ["update", { id: "0", status: 500 }],
    ["request", row("4")],
  ]);
  assert.deepEqual(list.rows.map(({ id, status }) => [id, status]), [["4", null], ["3", 200], ["2", null], ["1", 502]]);
  list = addPage(list, { requests: [row("1"), row("0")], more: false });
  assert.deepEqual(list.rows.map(({ id }) => id), ["4", "3", "2", "1", "0"]);
  assert.equal(list.more, false);
});

test("the sparkline counts every request of its span", () => {
  const rows = [0, 1, 59].map((age) => ({ received_at: 1000 - age }));
  const { seconds, counts } = activity(rows, 1000);
  assert.deepEqual([seconds, counts.reduce((a, b) => a + b), counts.at(-1), counts[0]], [60, 3, 2, 1]);
  assert.equal(activity([], 1000).counts.every((n) => n === 0), true);
});

test("the request to compare with is the nearest older one to the same place", () => {
  const rows = [["3", "/a"], ["2", "/b"], ["1", "/a"]].map(([id, path]) => ({ id, method: "POST", path }));
  assert.equal(previousLike(rows, 0).id, "1");
  assert.equal(previousLike(rows, 2), null);
});

test("events are read from pieces of any size", () => {
  const text = ': hi\r\n\r\nevent: request\r\nid: 1\r\ndata: {"a":\r\ndata: 1}\r\n\r\nretry: 5\n\nid: 2\nevent:update\ndata:x\n\nevent: lost\n';
  for (let size = 1; size < text.length; size++) {
    const events = [];
    const push = eventParser((event) => events.push(event));
    for (let at = 0; at < text.length; at += size) push(text.slice(at, at + size));
    assert.deepEqual(events, [
      { event: "request", id: "1", data: '{"a":\n1}' },
      { event: "update", id: "2", data: "x" },
    ]);
  }
});

test("to try now ends a pause, and takes away that after an attempt that is under way", async () => {
  const attempts = [];
  const next = async (count) => {
    while (attempts.length < count) await new Promise(setImmediate);
    return attempts[count - 1];
  };
  const api = { stream: () => new Promise((_, reject) => attempts.push(reject)) };
  const nothing = () => {};
  const calls = { onState: nothing, onOpen: nothing, onEvent: nothing, onEnd: nothing };
  const stream = follow(api, "", calls, 3_600_000);
  (await next(1))(new Error("cut"));
  await new Promise(setImmediate);
  stream.retry(); // in the pause
  const reject = await next(2);
  stream.retry(); // during the attempt
  reject(new Error("cut"));
  (await next(3))(new Error("cut"));
  await new Promise(setImmediate);
  assert.equal(attempts.length, 3);
  stream.stop();
});

test("the HMAC for pages without WebCrypto is that of WebCrypto and OpenSSL", async () => {
  for (const keySize of [1, 63, 64, 65, 200]) {
    for (const size of [0, 1, 55, 56, 63, 64, 65, 1000]) {
      const key = Uint8Array.from({ length: keySize }, (_, i) => i * 31);
      const data = Uint8Array.from({ length: size }, (_, i) => i * 17);
      const expected = createHmac("sha256", key).update(data).digest("hex");
      assert.equal(Buffer.from(await hmac("SHA-256", key, data, null)).toString("hex"), expected);
      assert.equal(Buffer.from(await hmac("SHA-256", key, data)).toString("hex"), expected);
    }
  }
  await assert.rejects(hmac("SHA-1", bytes("k"), bytes("d"), null), /https/);
});

test("a request that was signed anew has a valid signature; of another secret or body it is wrong", async () => {
  const now = 1_700_000_000;
  const names = { github: "x-hub-signature-256", stripe: "stripe-signature", slack: "x-slack-signature", standard: "webhook-signature" };
  for (const [scheme, name] of Object.entries(names)) {
    const headers = await sign([["x-other", "1"], [name, "?"]], bytes("{}"), scheme, "secret", now);
    assert.equal(detect(headers), scheme);
    const request = { headers, body: bytes("{}"), received_at: now + 1 };
    assert.equal((await check(request, scheme, "secret")).verdict, "valid");
    assert.equal((await check(request, scheme, "other")).verdict, "wrong");
    assert.equal((await check({ ...request, body: bytes("{ }") }, scheme, "secret")).verdict, "wrong");
    assert.equal((await check({ ...request, headers: [] }, scheme, "secret")).verdict, "missing");
    const late = (await check({ ...request, received_at: now + 301 }, scheme, "secret")).late;
    assert.equal(late, scheme !== "github");
  }
});

test("the signature of another provider is an HMAC of the body, as hex or base64, with or without a prefix", async () => {
  for (const [hash, name] of [["SHA-256", "sha256"], ["SHA-1", "sha1"], ["SHA-512", "sha512"]]) {
    for (const form of ["hex", "base64"]) {
      const value = createHmac(name, "k").update("body").digest(form);
      for (const sent of [value, `${name}=${value}`]) {
        const request = { headers: [["X-Sig", sent]], body: bytes("body"), received_at: 0 };
        assert.equal((await check(request, "generic", "k", { header: "x-sig", hash })).verdict, "valid", `${hash} ${sent}`);
        assert.equal((await check(request, "generic", "other", { header: "x-sig", hash })).verdict, "wrong");
      }
    }
  }
});

test("a secret that is none is said", async () => {
  const request = { headers: [["webhook-signature", "v1,x"]], body: bytes(""), received_at: 0 };
  await assert.rejects(check(request, "standard", "whsec_???"), /base64/);
  await assert.rejects(check(request, "standard", ""), /Enter/);
});
