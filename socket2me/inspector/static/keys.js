// The keys of the page, and the dialog that shows them. They are off while something is typed and while a dialog is open.

import { html } from "./vendor/htm-preact-3.1.1.js";
import { Dialog } from "./parts.js";

const KEYS = [
  ["j", "next request"],
  ["k", "previous request"],
  ["r", "replay"],
  ["e", "edit and replay"],
  ["c", "copy as curl, HTTPie, Python, pytest"],
  ["d", "compare with another request"],
  ["/", "filter"],
  ["Esc", "end the comparison, close the request"],
  ["?", "this help"],
];

/** Call `actions[key]` for keys that are pressed anywhere but in a field. Returns what ends that. */
export function listenToKeys(actions) {
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]")) return;
    // A field of a dialog that was just closed has the focus for a moment.
    if (event.target.closest?.("input, textarea, select") && !event.target.closest("dialog")) return;
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  };
  document.addEventListener("keydown", onKey);
  return () => document.removeEventListener("keydown", onKey);
}

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
