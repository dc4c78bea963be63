// The HTTP contract of the inspector. The secret is sent as a Bearer and is in no URL.

import { fromBase64, toBase64 } from "./bytes.js";

/** An answer that is no success: its status, 0 where there was none, and the text for the user. */
export class ApiError extends Error {
  constructor(status, message, details = {}) {
    super(message);
    this.status = status;
    this.details = details;
  }
}

// What serves this page, as errors name it.
let serverName = "The relay";

async function call(path, { method = "GET", secret, json, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (secret) headers.Authorization = `Bearer ${secret}`;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      signal,
      body: json === undefined ? undefined : JSON.stringify(json),
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, `${serverName} does not answer.`);
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

/** The error that `response` tells of. */
export async function errorOf(response) {
  let details = {};
  try {
    details = (await response.json()).error ?? {};
  } catch {
    // A proxy in front answers in its own way.
  }
  return new ApiError(response.status, details.message ?? `${serverName} answered ${response.status}.`, details);
}

const encode = encodeURIComponent;

/** What serves this page: {kind: "relay" | "client", version, replay}. */
export async function about() {
  const told = await (await call("inspector.json")).json();
  if (told.kind === "client") serverName = "The command";
  return told;
}

/** Make a token with a secret and history, and with a mailbox where the relay has mailboxes. `apiKey` may be "". */
export async function makeToken(apiKey) {
  const make = async (options) =>
    (await call("v1/new", { method: "POST", secret: apiKey, json: { inspect: true, ...options } })).json();
  try {
    return await make({ mailbox: true });
  } catch (error) {
    if (error.status !== 400) throw error;
    return make({});
  }
}

/** The calls for one token. */
export class Api {
  constructor(token, secret) {
    this.secret = secret;
    this.token = token;
    this.root = `v1/tokens/${encode(token)}`;
  }

  call(path, options = {}) {
    return call(this.root + path, { ...options, secret: this.secret });
  }

  /** What the relay says about the token. */
  async info() {
    return (await this.call("")).json();
  }

  /** {requests, more}: a page of summaries, newest first. */
  async list({ limit, before, filter, signal }) {
    const query = new URLSearchParams({ limit });
    if (before) query.set("before", before);
    if (filter) query.set("filter", filter);
    return (await this.call(`/requests?${query}`, { signal })).json();
  }

  /** A request with its headers as pairs, its body and its response's body as bytes, and its timeline. */
  async request(id, signal) {
    const found = await (await this.call(`/requests/${encode(id)}`, { signal })).json();
    return {
      ...found,
      path: found.path ?? "",
      query: found.query ?? "",
      headers: asPairs(found.headers),
      body: fromBase64(found.body ?? ""),
      response: found.response && {
        ...found.response,
        headers: asPairs(found.response.headers),
        body: fromBase64(found.response.body ?? ""),
      },
    };
  }

  /** Send a request again. `changes` has the members that differ; its `body` is bytes. Returns the new id. */
  async replay(id, changes = null) {
    const json = changes && { ...changes, ...(changes.body && { body: toBase64(changes.body) }) };
    const options = { method: "POST", json: json ?? undefined };
    return (await (await this.call(`/requests/${encode(id)}/replay`, options)).json()).id;
  }

  async remove(id) {
    await this.call(`/requests/${encode(id)}`, { method: "DELETE" });
  }

  async clear() {
    await this.call("/requests", { method: "DELETE" });
  }

  /** The exact bytes of a request's body. */
  async body(id) {
    return (await this.call(`/requests/${encode(id)}/body`)).blob();
  }

  async har(filter) {
    const query = filter ? `?${new URLSearchParams({ filter })}` : "";
    return (await this.call(`/requests.har${query}`)).blob();
  }

  /** The response of the stream, whose body is read by `stream.js`. */
  stream({ after, filter, signal }) {
    const query = filter ? `?${new URLSearchParams({ filter })}` : "";
    const headers = { Accept: "text/event-stream", Authorization: `Bearer ${this.secret}` };
    if (after) headers["Last-Event-ID"] = after;
    const options = { headers, signal, cache: "no-store", credentials: "omit" };
    return fetch(`${this.root}/requests/stream${query}`, options);
  }
}

function asPairs(headers) {
  return Array.isArray(headers) ? headers : Object.entries(headers ?? {});
}
