// What a client receives and sends, as JSON can carry it: bytes are {"$bytes": base64}.
const plain = (value) =>
  Buffer.isBuffer(value) || value instanceof Uint8Array || value instanceof ArrayBuffer
    ? { $bytes: Buffer.from(value).toString("base64") }
    : Array.isArray(value)
      ? value.map(plain)
      : value !== null && typeof value === "object"
        ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]))
        : value;

export const revived = (value) =>
  value === null || typeof value !== "object"
    ? value
    : Array.isArray(value)
      ? value.map(revived)
      : "$bytes" in value
        ? Buffer.from(value.$bytes, "base64")
        : Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, revived(inner)]));

export const say = (token, event, ...data) =>
  process.stdout.write(JSON.stringify({ token, event, data: plain(data) }) + "\n");
