// A Probot app in development, whose webhooks come over a channel. It says which events it handles.
//
//   node probot.mjs CHANNEL PORT SECRET
import { generateKeyPairSync } from "node:crypto";

import { Probot, Server } from "probot";

import { say } from "./plain.mjs";

const [webhookProxy, port, secret] = process.argv.slice(2);
const { privateKey } = generateKeyPairSync("rsa", {
  modulusLength: 2048,
  publicKeyEncoding: { type: "spki", format: "pem" },
  privateKeyEncoding: { type: "pkcs1", format: "pem" },
});

const server = new Server({
  Probot: Probot.defaults({ appId: 1, privateKey, secret }),
  webhookProxy,
  port: Number(port),
  host: "127.0.0.1",
});
await server.load((app) => {
  app.on("issues.opened", (context) => say("smee", "issue", context.id, context.payload.issue.title));
});
await server.start();
say("smee", "started");

process.stdin.on("end", () => process.exit(0)).resume();
