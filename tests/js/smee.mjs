// smee-client as its users run it, saying what it logs: one JSON line each. It leaves when its input ends.
//
//   node smee.mjs PACKAGE SOURCE TARGET
//
// SOURCE is a channel, or ".../new", which the client asks for one. The package of version 4 asks smee.io, whatever
// its options are: there, the request goes to SOURCE instead.
import { say } from "./plain.mjs";

const [name, source, target] = process.argv.slice(2);
const { SmeeClient } = await import(name);

const logger = {
  info: (...words) => say("smee", "info", ...words),
  error: (...words) => say("smee", "error", ...words.map((word) => word?.cause?.message ?? word?.message ?? String(word))),
};

const newChannel = () =>
  SmeeClient.createChannel(name === "smee-client" ? { newChannelUrl: source } : { fetch: (_, options) => fetch(source, options) });

const channel = source.endsWith("/new") ? await newChannel() : source;
say("smee", "channel", channel);
new SmeeClient({ source: channel, target, logger }).start();

process.stdin.on("end", () => process.exit(0)).resume();
