// What differs between two requests.

import { asUtf8 } from "./bytes.js";
import { isJson, leaves } from "./json-tokens.js";

// A difference is {path, before, after}; null stands for "is not there".

/** The differences of two Maps from name to text, in the order of the first, new names last. */
function compare(before, after) {
  const found = [];
  for (const [path, value] of before) {
    if (after.get(path) !== value) found.push({ path, before: value, after: after.get(path) ?? null });
  }
  for (const [path, value] of after) if (!before.has(path)) found.push({ path, before: null, after: value });
  return found;
}

function headerMap(headers) {
  const map = new Map();
  for (const [name, value] of headers) {
    const key = name.toLowerCase();
    map.set(key, map.has(key) ? `${map.get(key)}, ${value}` : value);
  }
  return map;
}

/** The differences of two JSON texts by path. Order of members, white space and escapes are no difference. */
export function diffJson(before, after) {
  const [from, to] = [leaves(before), leaves(after)];
  const found = [];
  for (const [path, { text, value }] of from) {
    const other = to.get(path);
    if (other?.value !== value) found.push({ path, before: text, after: other?.text ?? null });
  }
  for (const [path, { text }] of to) if (!from.has(path)) found.push({ path, before: null, after: text });
  return found;
}

// Texts that differ in more lines are shown as replaced: the search costs the square of this.
const MAX_EDITS = 300;

/** The lines of both texts as [kind, line], kind "same", "removed" or "added": the shortest script (Myers, 1986). */
export function diffLines(before, after) {
  const a = before.split("\n");
  const b = after.split("\n");
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const same = (lines) => lines.map((line) => ["same", line]);
  return [
    ...same(a.slice(0, start)),
    ...editScript(a.slice(start, a.length - end), b.slice(start, b.length - end)),
    ...same(end ? a.slice(-end) : []),
  ];
}

function editScript(a, b) {
  const reached = { 1: 0 }; // the furthest place in `a` on each diagonal
  const trace = [];
  for (let edits = 0; edits <= Math.min(a.length + b.length, MAX_EDITS); edits++) {
    trace.push({ ...reached });
    for (let k = -edits; k <= edits; k += 2) {
      let x = k === -edits || (k !== edits && reached[k - 1] < reached[k + 1]) ? reached[k + 1] : reached[k - 1] + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      reached[k] = x;
      if (x >= a.length && x - k >= b.length) return walkBack(trace, a, b);
    }
  }
  return [...a.map((line) => ["removed", line]), ...b.map((line) => ["added", line])];
}

function walkBack(trace, a, b) {
  const script = [];
  let [x, y] = [a.length, b.length];
  for (let edits = trace.length - 1; edits >= 0; edits--) {
    const reached = trace[edits];
    const k = x - y;
    const down = k === -edits || (k !== edits && reached[k - 1] < reached[k + 1]);
    const fromX = edits === 0 ? 0 : down ? reached[k + 1] : reached[k - 1];
    const fromY = edits === 0 ? 0 : fromX - (down ? k + 1 : k - 1);
    while (x > fromX && y > fromY) {
      script.push(["same", a[--x]]);
      y--;
    }
    if (edits === 0) break;
    script.push(down ? ["added", b[--y]] : ["removed", a[--x]]);
  }
  return script.reverse();
}

/**
 * What differs between two requests {method, path, query, status, headers, body}: {line, headers, body}. `body` is
 * {kind: "same"}, {kind: "json", changes}, {kind: "text", lines} or {kind: "binary", at, sizes}.
 */
export function diffRequests(before, after) {
  const line = (request) =>
    new Map(["method", "path", "query", "status"].map((name) => [name, String(request[name] ?? "")]));
  return {
    line: compare(line(before), line(after)),
    headers: compare(headerMap(before.headers), headerMap(after.headers)),
    body: diffBodies(before.body, after.body),
  };
}

function diffBodies(before, after) {
  const at = before.findIndex((byte, i) => byte !== after[i]);
  if (at < 0 && before.length === after.length) return { kind: "same" };
  const texts = [asUtf8(before), asUtf8(after)];
  if (texts.includes(null)) {
    return { kind: "binary", at: at < 0 ? before.length : at, sizes: [before.length, after.length] };
  }
  if (texts.every(isJson)) return { kind: "json", changes: diffJson(...texts) };
  return { kind: "text", lines: diffLines(...texts) };
}
