// The keys and the language of the filter.

import { html } from "./vendor/htm-preact-3.1.1.js";
import { KEYS } from "./keys.js";
import { Dialog } from "./parts.js";

const FILTERS = [
  ["POST /stripe/*", "method and path; * is any part of a path"],
  ["status:5xx", "what the caller was answered; status:404 for one"],
  ["header.x-event:push*", "a header"],
  ["body.$.data.id:17", "a field of a JSON body"],
  ["outcome:refused", "what became of it"],
  ["invoice -test", "text anywhere; - is not, a space is and"],
  ['"payment failed"', "words together"],
];

export function HelpDialog({ onClose }) {
  return html`<${Dialog} title="Keys and filters" onClose=${onClose}>
    <div class="help">
      <section>
        <h3>Keys</h3>
        <dl>
          ${KEYS.map(([key, what]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}
        </dl>
      </section>
      <section>
        <h3>Filter</h3>
        <dl>
          ${FILTERS.map(([text, what]) => html`<div><dt><code>${text}</code></dt><dd>${what}</dd></div>`)}
        </dl>
      </section>
    </div>
  <//>`;
}
