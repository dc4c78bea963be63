// A Socket.IO client that says what it hears: one JSON line an event. It leaves when its input ends.
//
//   node client.mjs URL TOKEN[,TOKEN...] '{"transports": ["websocket"], "auth": {...}}'
//
// The tokens share one connection. A line names the token where there are several. With "reply", a list, a request
// that asks for an acknowledgement gets it; {"$bytes": base64} in it, there and in what is said, are bytes.
import { Manager } from "socket.io-client";

const [url, tokens, options = "{}"] = process.argv.slice(2);
const { auth, reply, ...managerOptions } = JSON.parse(options);
const manager = new Manager(url, managerOptions);

const plain = (value) =>
  Buffer.isBuffer(value) || value instanceof Uint8Array || value instanceof ArrayBuffer
    ? { $bytes: Buffer.from(value).toString("base64") }
    : Array.isArray(value)
      ? value.map(plain)
      : value !== null && typeof value === "object"
        ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]))
        : value;

const revived = (value) =>
  value === null || typeof value !== "object"
    ? value
    : Array.isArray(value)
      ? value.map(revived)
      : "$bytes" in value
        ? Buffer.from(value.$bytes, "base64")
        : Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, revived(inner)]));

const say = (token, event, ...data) =>
  process.stdout.write(JSON.stringify({ token, event, data: plain(data) }) + "\n");

for (const token of tokens.split(",")) {
  const socket = manager.socket(`/${token}`, { auth });
  socket.on("connect", () => say(token, "connect", manager.engine.transport.name));
  socket.on("connect_error", (error) => say(token, "connect_error", error.message, error.data));
  socket.on("disconnect", (reason) => say(token, "disconnect", reason));
  socket.onAny((event, ...data) => {
    say(token, event, ...data);
    const acknowledge = data.at(-1);
    if (reply && typeof acknowledge === "function") acknowledge(...revived(reply));
  });
}
manager.engine.on("upgrade", (transport) => say(null, "upgrade", transport.name));
manager.on("close", (reason) => say(null, "close", reason));

process.stdin
  .on("end", () => {
    manager.once("close", () => setTimeout(() => process.exit(0), 200)); // the last POST is on its way
    for (const socket of Object.values(manager.nsps)) socket.disconnect();
    manager._close(); // a connection that never joined a namespace
    setTimeout(() => process.exit(0), 1000).unref();
  })
  .resume();
