// Signs as @octokit/webhooks and svix do, and has svix verify a request. In and out: one JSON object.
import { Webhooks } from "@octokit/webhooks";
import { readFileSync } from "node:fs";
import { Webhook } from "svix";

const { secret, key, body, now, headers } = JSON.parse(readFileSync(0, "utf8"));
const svix = new Webhook(key);
svix.verify(body, headers); // throws
console.log(
  JSON.stringify({
    github: await new Webhooks({ secret }).sign(body),
    svix: svix.sign("msg_2", new Date(now * 1000), body),
    is_verified: true,
  }),
);
