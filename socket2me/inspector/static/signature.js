// Signatures of webhooks: whose scheme a request has, whether its signature is right, and a new one for an edited request.
// The secret is used here and sent nowhere.

import { fromBase64, latin1Bytes, toBase64, toBytes, toHex } from "./bytes.js";
import { hmac, join } from "./hmac.js";

// Providers refuse signatures that are older: Stripe, Slack and Standard Webhooks say five minutes.
export const TOLERANCE_SECONDS = 300;

/** The value of the header `name`, in lower case; null if there is none. */
export function header(headers, name) {
  return headers.find(([n]) => n.toLowerCase() === name)?.[1] ?? null;
}

const sha256Hex = (prefix) => async (key, data) => prefix + toHex(await hmac("SHA-256", key, data));

// read(headers) returns {given: [signatures], timestamp, id} or null if the scheme's headers are not there.
// signed(body, read) returns the bytes that are signed. encode(key, bytes) returns the signature as it is sent.
// write(signature, timestamp, id) returns the headers of a new signature.
export const SCHEMES = {
  github: {
    label: "GitHub",
    rule: "X-Hub-Signature-256: HMAC-SHA256 of the body",
    read(headers) {
      const value = header(headers, "x-hub-signature-256");
      return value === null ? null : { given: [value] };
    },
    signed: (body) => body,
    encode: sha256Hex("sha256="),
    write: (signature) => [["x-hub-signature-256", signature]],
  },
  stripe: {
    label: "Stripe",
    rule: "Stripe-Signature: HMAC-SHA256 of timestamp, dot and body",
    read(headers) {
      const value = header(headers, "stripe-signature");
      if (value === null) return null;
      const items = value.split(",").map((item) => item.trim().split("="));
      const given = items.filter(([name]) => name === "v1").map(([, text]) => text ?? "");
      return { given, timestamp: items.find(([name]) => name === "t")?.[1] ?? "" };
    },
    signed: (body, { timestamp }) => join(latin1Bytes(`${timestamp}.`), body),
    encode: sha256Hex(""),
    write: (signature, timestamp) => [["stripe-signature", `t=${timestamp},v1=${signature}`]],
  },
  slack: {
    label: "Slack",
    rule: "X-Slack-Signature: HMAC-SHA256 of v0, timestamp and body",
    read(headers) {
      const value = header(headers, "x-slack-signature");
      if (value === null) return null;
      return { given: [value], timestamp: header(headers, "x-slack-request-timestamp") ?? "" };
    },
    signed: (body, { timestamp }) => join(latin1Bytes(`v0:${timestamp}:`), body),
    encode: sha256Hex("v0="),
    write: (signature, timestamp) => [
      ["x-slack-signature", signature],
      ["x-slack-request-timestamp", timestamp],
    ],
  },
  standard: {
    label: "Standard Webhooks",
    rule: "Webhook-Signature: HMAC-SHA256 of id, timestamp and body, in base64",
    read(headers) {
      const prefix = header(headers, "webhook-signature") === null ? "svix" : "webhook";
      const value = header(headers, `${prefix}-signature`);
      if (value === null) return null;
      const id = header(headers, `${prefix}-id`) ?? "";
      return { given: value.split(" "), timestamp: header(headers, `${prefix}-timestamp`) ?? "", id, prefix };
    },
    key: (secret) => (secret.startsWith("whsec_") ? fromBase64(secret.slice(6)) : toBytes(secret)),
    signed: (body, { timestamp, id }) => join(latin1Bytes(`${id}.${timestamp}.`), body),
    encode: async (key, data) => `v1,${toBase64(await hmac("SHA-256", key, data))}`,
    write: (signature, timestamp, { id, prefix }) => [
      [`${prefix}-signature`, signature],
      [`${prefix}-timestamp`, timestamp],
      [`${prefix}-id`, id],
    ],
  },
};

/** The scheme of a request's headers: a name of `SCHEMES`, or "generic". */
export function detect(headers) {
  return Object.keys(SCHEMES).find((name) => SCHEMES[name].read(headers) !== null) ?? "generic";
}

/** The header that most likely has the signature of another provider, or "". */
export function likelyHeader(headers) {
  return headers.find(([name]) => /signature|hmac|digest/i.test(name))?.[0].toLowerCase() ?? "";
}

/**
 * Check the signature of `request` {headers, body} with `secret`. `generic` is {header, hash} where scheme is "generic":
 * an HMAC of the body as hex or base64, with or without a prefix up to `=`.
 *
 * Returns {verdict: "valid" | "wrong" | "missing", given, expected, timestamp, late}. `late` says that the signature is
 * right but was `received_at` later than the tolerance. Throws an Error with a text for the user if the secret is none.
 */
export async function check(request, scheme, secret, generic = {}) {
  if (scheme === "generic") return checkGeneric(request, secret, generic);
  const rules = SCHEMES[scheme];
  const read = rules.read(request.headers);
  if (read === null) return { verdict: "missing", given: [], expected: null };
  const expected = await rules.encode(keyOf(rules, secret), rules.signed(request.body, read));
  const { given, timestamp } = read;
  const late =
    timestamp !== undefined && Math.abs(request.received_at - Number(timestamp)) > TOLERANCE_SECONDS;
  return { verdict: given.includes(expected) ? "valid" : "wrong", given, expected, timestamp, late };
}

function keyOf(rules, secret) {
  if (!secret) throw new Error("Enter the signing secret.");
  try {
    return rules.key ? rules.key(secret) : toBytes(secret);
  } catch {
    throw new Error("After whsec_ a secret is base64. This one is not.");
  }
}

async function checkGeneric(request, secret, { header: name, hash = "SHA-256" }) {
  const value = header(request.headers, (name ?? "").toLowerCase());
  if (value === null) return { verdict: "missing", given: [], expected: null };
  const digest = await hmac(hash, keyOf({}, secret), request.body);
  const hex = toHex(digest);
  const base64 = toBase64(digest);
  const bare = value.replace(/^[A-Za-z0-9_-]+=(?=.)/, "").trim();
  const valid = bare.toLowerCase() === hex || bare === base64 || value.trim() === base64;
  return { verdict: valid ? "valid" : "wrong", given: [value], expected: /^[0-9a-f]+$/i.test(bare) ? hex : base64 };
}

/**
 * The headers of `request` with a signature for `body`, made now: for an edited request. Only for the schemes that
 * `SCHEMES` has.
 */
export async function sign(headers, body, scheme, secret, now = Date.now() / 1000) {
  const rules = SCHEMES[scheme];
  const read = rules.read(headers);
  const timestamp = String(Math.floor(now));
  const signature = await rules.encode(keyOf(rules, secret), rules.signed(body, { ...read, timestamp }));
  const fresh = rules.write(signature, timestamp, read);
  const names = new Set(fresh.map(([name]) => name));
  return [...headers.filter(([name]) => !names.has(name.toLowerCase())), ...fresh];
}

const AT_ONCE = 4;

// More are not checked at once: each is fetched whole.
export const MAX_CHECKED = 1000;

// The relay answers 429 to more calls than it allows; then it is asked again.
const PAUSE_MS = 2000;

/**
 * Check `rows` with `signing` {secret, scheme}. Returns a Map from id to "valid", "late", "wrong" or "missing";
 * `onProgress(n)` is called as they are done. Requests that are no longer kept are left out.
 */
export async function checkMany(api, rows, signing, generic, onProgress) {
  const verdicts = new Map();
  const queue = rows.slice();
  const next = async () => {
    for (let row = queue.shift(); row; row = queue.shift()) {
      try {
        const request = await api.request(row.id);
        const scheme = signing.scheme || detect(request.headers);
        const { verdict, late } = await check(request, scheme, signing.secret, generic);
        verdicts.set(row.id, verdict === "valid" && late ? "late" : verdict);
      } catch (error) {
        if (error.status === 429) {
          queue.push(row);
          await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
        } else if (error.status !== 404) throw error;
      }
      onProgress(verdicts.size);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, next));
  return verdicts;
}
