// What became of a request, in the order of time.

import { html } from "../vendor/htm-preact-3.1.1.js";
import { formatExact, formatMs, visible } from "../format.js";

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

export function Timeline({ entries }) {
  const start = entries[0]?.at;
  return html`<ol class="timeline">
    ${entries.map(
      ({ at, what, detail }, i) => html`<li key=${i} class=${what}>
        <span class="what">${NAMES[what] ?? visible(String(what))}</span>
        <span class="detail">${detail ? visible(typeof detail === "string" ? detail : JSON.stringify(detail)) : ""}</span>
        <time class="muted" title=${formatExact(at)}>${i ? `+${formatMs((at - start) * 1000)}` : formatExact(at)}</time>
      </li>`,
    )}
  </ol>`;
}
