// A request as a command for bash or zsh, or as a program, that sends the same bytes. No control character is in it as it
// is: a terminal acts on those that are pasted.

import { asUtf8, latin1Bytes, toBase64 } from "./bytes.js";

// What a request is sent with anew, or what belongs to its connection.
const NOT_COPIED = new Set([
  "host",
  "content-length",
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "expect",
]);

// Linux lets an argument have 128 KiB.
const MAX_ARGUMENT_CHARACTERS = 100_000;

// For larger bodies curl asks the server whether it may send them, and waits.
const MAX_UNASKED_BYTES = 1_000_000;

/** The headers that are copied, and which of those that programs add by themselves the request has not. */
function headersOf(request) {
  const copied = request.headers.filter(([name]) => !NOT_COPIED.has(name.toLowerCase()));
  const names = new Set(copied.map(([name]) => name.toLowerCase()));
  return { copied, unset: (added) => added.filter((name) => !names.has(name.toLowerCase())) };
}

/** The URL to send to: `base` with the request's path and query as they were sent. */
export function urlOf(request, base) {
  const target = base.replace(/\/+$/, "") + request.path + (request.query ? `?${request.query}` : "");
  // What would end the URL early. A character of a target is one byte.
  return target.replace(/[^!"$-~]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`);
}

/** `text` as one word of bash or zsh, written as UTF-8. */
export function shellQuote(text) {
  if (/^[\w@%+=:,./-]+$/.test(text) && !/^[=~]/.test(text)) return text;
  if (/^[ -~\u00a1-\u1fff\u3001-\ud7ff\n]*$/.test(text) && !(text.includes("\n") && text.includes("!"))) {
    return `'${text.replaceAll("'", "'\\''")}'`;
  }
  return shellBytes(new TextEncoder().encode(text));
}

/** Bytes without NUL as one word of bash or zsh. */
function shellBytes(bytes) {
  const escaped = Array.from(bytes, (b) => {
    if (b === 10) return "\\n";
    if (b === 9) return "\\t";
    if (b === 13) return "\\r";
    if (b === 39 || b === 92) return `\\${String.fromCharCode(b)}`;
    // Bash looks for `!` in each line, and may take a hex digit that follows an escape for a part of it.
    return b >= 32 && b < 127 && b !== 33 ? String.fromCharCode(b) : `\\${b.toString(8).padStart(3, "0")}`;
  });
  return `$'${escaped.join("")}'`;
}

/** A header's text, which has one character a byte, as one word. */
function shellHeader(text) {
  const bytes = latin1Bytes(text);
  const utf8 = asUtf8(bytes);
  return utf8 === null ? shellBytes(bytes) : shellQuote(utf8);
}

/** The body as a word, or null where only a pipe has room for its bytes. */
function bodyWord(body) {
  const text = body.length < MAX_ARGUMENT_CHARACTERS && !body.includes(0) ? asUtf8(body) : null;
  return text === null ? null : shellQuote(text);
}

const pipe = (body) => `echo '${toBase64(body)}' | base64 -d | `;
const lines = (words) => words.join(" \\\n  ");

function curl(request, base) {
  const { copied, unset } = headersOf(request);
  const url = shellQuote(urlOf(request, base));
  const words = [`curl -g --path-as-is ${request.method === "HEAD" ? "--head" : `-X ${shellQuote(request.method)}`} ${url}`];
  for (const [name, value] of copied) words.push(`-H ${shellHeader(value === "" ? `${name};` : `${name}: ${value}`)}`);
  for (const name of unset(["Accept", "User-Agent"])) words.push(`-H ${name}:`);
  if (!request.body.length || request.method === "HEAD") return lines(words);
  for (const name of unset(["Content-Type"])) words.push(`-H ${name}:`);
  if (request.body.length > MAX_UNASKED_BYTES) words.push("-H Expect:");
  const word = bodyWord(request.body);
  if (word !== null) return lines([...words, `--data-raw ${word}`]);
  return pipe(request.body) + lines([...words, "--data-binary @-"]);
}

function httpie(request, base) {
  const { copied, unset } = headersOf(request);
  const word = request.body.length ? bodyWord(request.body) : null;
  const piped = request.body.length > 0 && word === null;
  const words = [
    `http --path-as-is ${piped ? "" : "--ignore-stdin "}${shellQuote(request.method)} ${shellQuote(urlOf(request, base))}`,
  ];
  const leftOut = [];
  for (const [name, value] of copied) {
    const bytes = latin1Bytes(value);
    if (asUtf8(bytes) === null) leftOut.push(name);
    else if (value === "") words.push(shellQuote(`${name};`));
    // A backslash before one of its separators is HTTPie's own escape: such a value is read from a file.
    else if (/\\[\\:=@;]|^[=@]/.test(value)) words.push(`${shellQuote(`${name}:@`)}<(printf %s ${shellHeader(value)})`);
    else words.push(shellHeader(`${name}:${value}`));
  }
  for (const name of unset(["Accept", "Accept-Encoding", "User-Agent", "Content-Type"])) words.push(`${name}:`);
  if (word !== null) words.push(`--raw=${word}`);
  const note = leftOut.map((name) => `# Left out, since its bytes are not UTF-8: ${name}\n`).join("");
  return note + (piped ? pipe(request.body) : "") + lines(words);
}

/** `text` as a Python string. */
export function pythonString(text) {
  const escaped = text.replace(/[^ !#-[\]-~\u00a1-\u00ac\u00ae-\u05ff]/gu, (c) => {
    const known = { "\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\" }[c];
    if (known) return known;
    const code = c.codePointAt(0);
    if (code < 256) return `\\x${code.toString(16).padStart(2, "0")}`;
    if (code < 65536) return `\\u${code.toString(16).padStart(4, "0")}`;
    return `\\U${code.toString(16).padStart(8, "0")}`;
  });
  return `"${escaped}"`;
}

/** `bytes` as a Python expression. */
function pythonBytes(bytes) {
  if (!bytes.length) return 'b""';
  const text = asUtf8(bytes);
  const isText = text !== null && !text.includes("\0");
  const source = isText ? text : latin1(bytes);
  const pieces = source.match(/[^\n]{1,4000}\n?|\n/g);
  const suffix = isText ? ".encode()" : '.encode("latin-1")';
  if (pieces.length === 1) return `${pythonString(source)}${suffix}`;
  return `(\n${pieces.map((piece) => `    ${pythonString(piece)}`).join("\n")}\n)${suffix}`;
}

function latin1(bytes) {
  let text = "";
  for (const b of bytes) text += String.fromCharCode(b);
  return text;
}

/** What sends the request. `http.client` writes the text of headers in Latin-1, so one character is one byte. */
function pythonParts(request, base) {
  const { copied, unset } = headersOf(request);
  const merged = new Map();
  for (const [name, value] of copied) {
    const key = name.toLowerCase();
    merged.set(key, merged.has(key) ? [name, `${merged.get(key)[1]}, ${value}`] : [name, value]);
  }
  const items = [...merged.values()].map(([name, value]) => `    ${pythonString(name)}: ${pythonString(value)},`);
  for (const name of unset(["Accept"])) items.push(`    "${name}": None,`);
  for (const name of unset(["Accept-Encoding", "User-Agent"])) items.push(`    "${name}": SKIP_HEADER,`);
  const skips = items.some((item) => item.endsWith("SKIP_HEADER,"));
  return {
    imports: ["import requests", ...(skips ? ["from urllib3.util import SKIP_HEADER"] : [])],
    constants: [
      `url = ${pythonString(urlOf(request, base))}`,
      `headers = {\n${items.join("\n")}\n}`,
      ...(request.body.length ? [`body = ${pythonBytes(request.body)}`] : []),
    ],
    call: `requests.request(${pythonString(request.method)}, url, headers=headers${request.body.length ? ", data=body" : ""})`,
  };
}

function python(request, base) {
  const { imports, constants, call } = pythonParts(request, base);
  return [...imports, "", ...constants, "", `response = ${call}`, "print(response.status_code, response.text)", ""].join("\n");
}

function pytest(request, base) {
  const { imports, constants, call } = pythonParts(request, base);
  const words = `${request.method}_${request.path}`.toLowerCase().match(/[a-z0-9]+/g) ?? ["request"];
  const indented = constants.join("\n").replaceAll("\n", "\n    ");
  return [
    ...imports,
    "",
    "",
    `def test_${words.join("_").slice(0, 60)}():`,
    `    ${indented}`,
    `    response = ${call}`,
    `    assert response.status_code == ${request.status >= 200 && request.status < 300 ? request.status : 200}`,
    "",
  ].join("\n");
}

export const FORMATS = {
  curl: { label: "curl", make: curl },
  httpie: { label: "HTTPie", make: httpie },
  python: { label: "Python", make: python },
  pytest: { label: "pytest", make: pytest },
};

/** `request` {method, path, query, headers, body} in a format of `FORMATS`, sent to the URL `base`. */
export function copyAs(format, request, base) {
  return FORMATS[format].make(request, base);
}
