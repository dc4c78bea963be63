// Bytes from base64 and back, as text, and as hex.

export function fromBase64(base64) {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

export function toBase64(bytes) {
  let binary = "";
  for (let i = 0; i < bytes.length; i += 8192) binary += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(binary);
}

export function toBytes(text) {
  return new TextEncoder().encode(text);
}

/** The text of a header, which has one character for each byte, as bytes. */
export function latin1Bytes(text) {
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}

/** The text that `bytes` are in UTF-8, or null if they are not. A byte order mark stays. */
export function asUtf8(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** The text of `bytes` in UTF-8, with U+FFFD where they are not. */
export function toText(bytes) {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

/** Whether `bytes` look like text: UTF-8 without NUL. A cut may have split the last character. */
export function looksLikeText(bytes) {
  const head = bytes.subarray(0, 4096);
  if (head.includes(0)) return false;
  for (let cut = 0; cut < 4; cut++) if (asUtf8(head.subarray(0, head.length - cut)) !== null) return true;
  return false;
}

export function toHex(bytes) {
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

/** The lines of a hex dump: offset, bytes in two groups, and ASCII with dots for the rest. */
export function hexLines(bytes, perLine = 16) {
  const lines = [];
  const half = perLine / 2;
  for (let at = 0; at < bytes.length; at += perLine) {
    const row = bytes.subarray(at, at + perLine);
    let hex = "";
    let ascii = "";
    for (let i = 0; i < perLine; i++) {
      if (i === half) hex += " ";
      hex += i < row.length ? ` ${row[i].toString(16).padStart(2, "0")}` : "   ";
      if (i < row.length) ascii += row[i] >= 32 && row[i] < 127 ? String.fromCharCode(row[i]) : ".";
    }
    lines.push(`${at.toString(16).padStart(8, "0")} ${hex}  ${ascii}`);
  }
  return lines;
}
