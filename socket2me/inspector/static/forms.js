// Forms: urlencoded pairs and the parts of multipart bodies, in their order, repeated names kept.

import { asUtf8, latin1Bytes, toText } from "./bytes.js";

const MAX_PAIRS = 5000;
const MAX_PARTS = 1000;

/** The [name, value] pairs of a query or a urlencoded form. Bytes that are not UTF-8 become U+FFFD. */
export function pairs(text) {
  if (!text) return [];
  return text.split("&", MAX_PAIRS).map((pair) => {
    const at = pair.indexOf("=");
    return at < 0 ? [unescape(pair), ""] : [unescape(pair.slice(0, at)), unescape(pair.slice(at + 1))];
  });
}

function unescape(text) {
  const spaced = text.replaceAll("+", " ");
  try {
    return decodeURIComponent(spaced);
  } catch {
    const escapes = /(?:%[0-9a-f]{2})+/gi;
    return spaced.replace(escapes, (run) => toText(Uint8Array.from(run.match(/[0-9a-f]{2}/gi), (hex) => parseInt(hex, 16))));
  }
}

/** The value of a parameter of a header, such as `boundary`; null if there is none. */
export function parameter(header, name) {
  const pattern = new RegExp(`;\\s*${name}\\s*=\\s*(?:"((?:[^"\\\\]|\\\\.)*)"|([^;\\s]*))`, "i");
  const match = pattern.exec(header);
  return match ? (match[1]?.replace(/\\(["\\])/g, "$1") ?? match[2]) : null;
}

function indexOf(bytes, needle, from) {
  for (let at = bytes.indexOf(needle[0], from); at >= 0; at = bytes.indexOf(needle[0], at + 1)) {
    let i = 1;
    while (i < needle.length && bytes[at + i] === needle[i]) i++;
    if (i === needle.length) return at;
  }
  return -1;
}

/** The parts of a multipart body: {name, filename, type, headers, bytes} each; null if it is none. */
export function parts(bytes, contentType) {
  const boundary = parameter(contentType, "boundary");
  if (!boundary) return null;
  const mark = latin1Bytes(`--${boundary}`);
  const found = [];
  const nextMark = (from) => {
    let place = indexOf(bytes, mark, from);
    while (place > 0 && bytes[place - 1] !== 10) place = indexOf(bytes, mark, place + 1); // within a line it is content
    return place;
  };
  let at = nextMark(0);
  while (at >= 0 && found.length < MAX_PARTS) {
    at += mark.length;
    if (bytes[at] === 45 && bytes[at + 1] === 45) return found; // --boundary--
    const start = bytes.indexOf(10, at) + 1;
    const end = start ? nextMark(start) : -1;
    if (end < 0) break;
    const content = end - (bytes[end - 2] === 13 ? 2 : 1);
    found.push(part(bytes.subarray(start, Math.max(start, content))));
    at = end;
  }
  return found.length ? found : null;
}

function part(bytes) {
  const headers = [];
  let at = 0;
  for (;;) {
    const end = bytes.indexOf(10, at);
    const line = toText(bytes.subarray(at, end < 0 ? bytes.length : end)).trimEnd();
    at = end < 0 ? bytes.length : end + 1;
    if (!line || end < 0) break;
    const colon = line.indexOf(":");
    if (colon > 0) headers.push([line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]);
  }
  const disposition = headers.find(([name]) => name === "content-disposition")?.[1] ?? "";
  const type = headers.find(([name]) => name === "content-type")?.[1] ?? null;
  const content = bytes.subarray(at);
  return {
    name: parameter(disposition, "name") ?? "",
    filename: parameter(disposition, "filename"),
    type,
    headers,
    bytes: content,
    text: asUtf8(content),
  };
}
