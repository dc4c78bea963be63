// Clients of socket.io-client 1.x and 2.x, each of which says what it receives, as client.mjs does.
//
//   node legacy.mjs URL '[{"version": "1.4.8", "token": "...", "options": {"transports": ["websocket"]}}, ...]'
//
// A token may have a query: TOKEN?body=raw. With "reply", a list, a request that asks for an acknowledgement gets it.
// Where an upgrade is possible, `connect` is said after it.
import { revived, say } from "./plain.mjs";

const [url, clients] = process.argv.slice(2);
const events = ["request", "replaced", "error", "disconnect", "pong"];

const sockets = await Promise.all(
  JSON.parse(clients).map(async ({ version, token, reply, options }) => {
    const { default: io } = await import(`sio-${version}`);
    const socket = io(`${url}/${token}`, { forceNew: true, ...options });
    const hasUpgraded = new Promise((resolve) => {
      if (options.transports.length === 1) resolve();
      else socket.io.engine.on("upgrade", resolve);
    });
    socket.on("connect", () => hasUpgraded.then(() => say(token, "connect", socket.io.engine.transport.name)));
    for (const event of events) socket.on(event, (...data) => say(token, event, ...data));
    socket.on("request", (request, acknowledge) => {
      if (reply && acknowledge) acknowledge(...revived(reply));
    });
    return socket;
  }),
);

process.stdin
  .on("end", () => {
    for (const socket of sockets) socket.disconnect();
    setTimeout(() => process.exit(0), 200); // the last POST is on its way
  })
  .resume();
