// A Socket.IO client that says what it receives: one JSON line an event. It leaves when its input ends.
//
//   node client.mjs URL TOKEN[,TOKEN...] '{"transports": ["websocket"], "auth": {...}}'
//
// The tokens share one connection. A line names the token where there are several. With "reply", a list, a request
// that asks for an acknowledgement gets it; {"$bytes": base64} in it, there and in what is said, are bytes.
import { Manager } from "socket.io-client";

import { revived, say } from "./plain.mjs";

const [url, tokens, options = "{}"] = process.argv.slice(2);
const { auth, reply, ...managerOptions } = JSON.parse(options);
const manager = new Manager(url, managerOptions);

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
