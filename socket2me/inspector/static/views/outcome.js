// What became of a request: its timeline, and what its caller was answered.

import { html } from "../vendor/htm-preact-3.1.1.js";
import { count, formatExact, formatMs, statusKind, visible } from "../format.js";
import { Pairs } from "../parts.js";
import { header } from "../signature.js";
import { Body } from "./body.js";

const NAMES = {
  received: "Received",
  verified: "Signature checked",
  queued: "Queued",
  sent: "Sent to the client",
  acknowledged: "Acknowledged",
  replied: "Caller answered",
  kept: "Kept in the mailbox",
  redelivered: "Sent again",
  dead_lettered: "Dead-lettered",
  refused: "Refused",
};

// What is another thing on the machine of the app.
const CLIENT_NAMES = { sent: "Sent to the app", replied: "The app answered", redelivered: "Received again", refused: "Not answered" };

export function Timeline({ entries, kind }) {
  const start = entries[0]?.at;
  return html`<ol class="timeline">
    ${entries.map(
      ({ at, what, detail }, i) => html`<li key=${i} class=${what}>
        <span class="what">${(kind === "client" && CLIENT_NAMES[what]) || NAMES[what] || visible(String(what))}</span>
        <span class="detail">${detail ? visible(typeof detail === "string" ? detail : JSON.stringify(detail)) : ""}</span>
        <time class="muted" title=${formatExact(at)}>${i ? `+${formatMs((at - start) * 1000)}` : formatExact(at)}</time>
      </li>`,
    )}
  </ol>`;
}

export function Response({ response, id }) {
  if (!response) return html`<p class="nothing">No response is kept for this request.</p>`;
  return html`<p class="facts">
      <span class="status-chip ${statusKind(response.status)}">${response.status ?? "–"}</span>
      <span>${count(response.headers.length, "header")}</span>
    </p>
    <${Pairs} pairs=${response.headers} label="Headers of the response" />
    <h3>Body</h3>
    <${Body}
      bytes=${response.body}
      contentType=${header(response.headers, "content-type") ?? ""}
      head=""
      name=${`${id}-response`}
      download=${() => Promise.resolve(new Blob([response.body]))}
    />`;
}
