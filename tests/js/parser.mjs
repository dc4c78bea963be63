// engine.io-parser as a version of socket.io-client brings it: one JSON line in, one out.
//
//   node parser.mjs PACKAGE
//
// In: {"packets": [...], "binary": true} to encode them; {"payload": base64, "binary": true} to decode it. A packet
// of text is a string, one of bytes {"$bytes": base64}.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const from = (path, name) => createRequire(createRequire(path).resolve(name));
const engine = from(import.meta.url, process.argv[2]);
const parser = from(engine.resolve("engine.io-client"), "engine.io-parser")("engine.io-parser");

const encode = ({ packets, binary }) => {
  const messages = packets.map((data) => ({
    type: "message",
    data: typeof data === "string" ? data : Buffer.from(data.$bytes, "base64"),
  }));
  let payload;
  parser.encodePayload(messages, binary, (encoded) => (payload = encoded));
  return Buffer.from(payload).toString("base64");
};

const decode = ({ payload, binary }) => {
  const bytes = Buffer.from(payload, "base64");
  const packets = [];
  parser.decodePayload(binary ? bytes : bytes.toString(), null, ({ type, data }) => {
    if (type !== "message") throw new Error(`${type}: ${data}`);
    packets.push(Buffer.isBuffer(data) ? { $bytes: data.toString("base64") } : (data ?? ""));
  });
  return packets;
};

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  process.stdout.write(JSON.stringify("packets" in asked ? encode(asked) : decode(asked)) + "\n");
}
