// JSON as text. Nothing is converted: integers of any size, the order of members and duplicate keys stay. Only `isJson`
// validates.

const TOKEN = /"(?:[^"\\]|\\[^])*(?:"|$)|[{}[\],:]|[^\s{}[\],:"]+/g;

// Deeper levels are indented no further: a body of nested brackets would grow with the square of its size.
const MAX_INDENT = 40;

/** Whether `text` is JSON, whatever its depth. */
export function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** The kind of a token that is no bracket, comma or colon. */
function kindOf(token) {
  if (token[0] === '"') return "string";
  return /^[-\d]/.test(token) ? "number" : "word";
}

/**
 * The lines of `text` laid out, each a list of [kind, text]; kind is "punctuation", "key", "duplicate", "string", "number",
 * "word" or "indent". A text that ends early is laid out as far as it goes.
 */
export function prettyLines(text) {
  const lines = [];
  const open = []; // one for each open bracket: {keys} of an object, {} of an array
  let line = [];
  let expectsKey = false;

  const breakLine = () => {
    if (line.length) lines.push(line);
    line = open.length ? [["indent", "  ".repeat(Math.min(open.length, MAX_INDENT))]] : [];
  };

  const tokens = text.match(TOKEN) ?? [];
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i];
    const closing = token === "{" ? "}" : token === "[" ? "]" : null;
    if (closing !== null) {
      if (tokens[i + 1] === closing) {
        line.push(["punctuation", token + closing]);
        i++;
        expectsKey = false;
        continue;
      }
      line.push(["punctuation", token]);
      open.push(token === "{" ? { keys: new Set() } : {});
      expectsKey = token === "{";
      breakLine();
    } else if (token === "}" || token === "]") {
      open.pop();
      breakLine();
      line.push(["punctuation", token]);
      expectsKey = false;
    } else if (token === ",") {
      line.push(["punctuation", token]);
      expectsKey = open.at(-1)?.keys !== undefined;
      breakLine();
    } else if (token === ":") {
      line.push(["punctuation", ": "]);
      expectsKey = false;
    } else if (expectsKey && token[0] === '"') {
      const { keys } = open.at(-1);
      const key = decodeString(token);
      line.push([keys.has(key) ? "duplicate" : "key", token]);
      keys.add(key);
    } else {
      line.push([kindOf(token), token]);
    }
  }
  if (line.some(([kind]) => kind !== "indent")) lines.push(line);
  return lines;
}

/** The text of a string token without its quotes and escapes; as it is, if it is none. */
export function decodeString(token) {
  try {
    return JSON.parse(token);
  } catch {
    return token;
  }
}

const ESCAPE = /\\(?:u([0-9a-fA-F]{4})|.)/g;

/** A string token with its escapes of letters as these letters. All other escapes stay: the token means the same. */
export function readable(token) {
  return token.replace(ESCAPE, (escape, hex) => {
    const letter = hex ? String.fromCharCode(parseInt(hex, 16)) : "";
    return /[^\u0000-\u00a0]/.test(letter) && /\p{L}/u.test(letter) ? letter : escape;
  });
}

const PLAIN_NAME = /^[A-Za-z_$][\w$-]*$/;

/** A path in the notation of the filter: `$.data["a b"][0]`. */
export function joinPath(path, key) {
  if (typeof key === "number") return `${path}[${key}]`;
  return PLAIN_NAME.test(key) ? `${path}.${key}` : `${path}[${JSON.stringify(key)}]`;
}

/**
 * The leaves of the JSON `text`: a Map from path to {text, value}. `text` is as sent, `value` compares equal for equal
 * strings, however they are escaped. A key that comes again has its number behind the path: `$.a #2`.
 */
export function leaves(text) {
  const found = new Map();
  const open = []; // {path, index} of an array, {path} of an object
  let path = "$";
  let expectsKey = false;

  const add = (token) => {
    let place = path;
    for (let n = 2; found.has(place); n++) place = `${path} #${n}`;
    const value = token[0] === '"' ? `"${decodeString(token)}` : token;
    found.set(place, { text: token, value });
  };
  const enterItem = () => {
    const top = open.at(-1);
    if (top?.index !== undefined) path = joinPath(top.path, top.index);
  };

  const tokens = text.match(TOKEN) ?? [];
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i];
    if (token === "{" || token === "[") {
      enterItem();
      if (tokens[i + 1] === (token === "{" ? "}" : "]")) {
        add(token + tokens[++i]);
        expectsKey = false;
        continue;
      }
      open.push(token === "{" ? { path } : { path, index: 0 });
      expectsKey = token === "{";
    } else if (token === "}" || token === "]") {
      open.pop();
      expectsKey = false;
    } else if (token === ",") {
      const top = open.at(-1);
      if (top?.index !== undefined) top.index++;
      else expectsKey = true;
    } else if (token === ":") {
      expectsKey = false;
    } else if (expectsKey) {
      path = joinPath(open.at(-1).path, decodeString(token));
    } else {
      enterItem();
      add(token);
    }
  }
  return found;
}
