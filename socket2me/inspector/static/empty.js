// What stands in place of the list while there is none: how to make a first request, or that the filter matches nothing.

import { html } from "./vendor/htm-preact-3.1.1.js";
import { formatTime } from "./format.js";
import { CopyLine, State } from "./parts.js";

export function Empty({ url, filter, clear, info, kind }) {
  if (filter) {
    return html`<${State} title="No request matches">
      <p>New requests that match <code>${filter}</code> appear here.</p>
      <button type="button" class="button" onClick=${clear}>Clear the filter</button>
    <//>`;
  }
  const relay = new URL(url).origin;
  return html`<div class="state first-steps">
    <h2>Waiting for the first request</h2>
    <ol>
      <li>
        <h3>Send one</h3>
        <${CopyLine} text=${`curl -d '{"hello": "world"}' -H 'Content-Type: application/json' ${url}/hello`} label="curl" />
      </li>
      <li>
        <h3>Give this URL to the sender of your webhooks</h3>
        <${CopyLine} text=${url} label="url" />
      </li>
      ${kind !== "client" &&
      html`<li>
        <h3>Bring requests to an app on your machine</h3>
        <${CopyLine} text=${`socket2me listen http://localhost:3000 --server ${relay}`} label="listen" />
      </li>`}
    </ol>
    ${info && html`<p class="muted">${senderNote(info)}</p>`}
    ${info?.expires_at && html`<p class="muted">The URL lives until ${formatTime(info.expires_at)}.</p>`}
  </div>`;
}

/** What senders are answered while no app is connected. */
function senderNote({ connected, mailbox }) {
  if (connected) return "An app is connected: requests go on to it.";
  return mailbox
    ? "No app is connected. Until one is, senders are answered 202, and the relay keeps their requests for it."
    : "No app is connected. Until one is, senders are answered 503 after a few seconds. Their requests appear here at once.";
}
