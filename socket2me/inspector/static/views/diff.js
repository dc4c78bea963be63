// What differs between two requests.

import { html, useMemo } from "../vendor/htm-preact-3.1.1.js";
import { diffRequests } from "../diff.js";
import { formatBytes, visible } from "../format.js";

export function Diff({ before, after }) {
  const { line, headers, body } = useMemo(() => diffRequests(before, after), [before, after]);
  return html`<div class="diff">
    <h3>Request</h3>
    <${Changes} changes=${line} />
    <h3>Headers</h3>
    <${Changes} changes=${headers} />
    <h3>Body</h3>
    <${BodyDiff} body=${body} />
  </div>`;
}

function Changes({ changes }) {
  if (!changes.length) return html`<p class="nothing">The same in both.</p>`;
  return html`<table class="changes">
    <colgroup><col class="where" /><col /></colgroup>
    <thead class="hidden">
      <tr><th scope="col">Where</th><th scope="col">Before and after</th></tr>
    </thead>
    <tbody>
      ${changes.map(
        ({ path, before, after }) => html`<tr key=${path}>
          <th scope="row">${visible(path)}</th>
          <td>
            ${before !== null && html`<del><span class="sign">−</span>${visible(before) || "(empty)"}</del>`}
            ${after !== null && html`<ins><span class="sign">+</span>${visible(after) || "(empty)"}</ins>`}
          </td>
        </tr>`,
      )}
    </tbody>
  </table>`;
}

function BodyDiff({ body }) {
  if (body.kind === "same") return html`<p class="nothing">The same bytes in both.</p>`;
  if (body.kind === "json") {
    return body.changes.length
      ? html`<${Changes} changes=${body.changes} />`
      : html`<p class="nothing">The same JSON in both. White space, the order of members or escapes differ.</p>`;
  }
  if (body.kind === "binary") {
    const [before, after] = body.sizes.map(formatBytes);
    return html`<p class="nothing">The bytes differ from byte ${body.at.toLocaleString("en")} on. ${before} before, ${after} after.</p>`;
  }
  return html`<pre class="lines diff-lines" tabindex="0">${shortened(body.lines).map(
    ([kind, text], i) =>
      html`<div key=${i} class=${kind}><span class="sign">${SIGNS[kind]}</span>${visible(text)}</div>`,
  )}</pre>`;
}

const SIGNS = { same: " ", removed: "−", added: "+", gap: " " };
const CONTEXT_LINES = 3;
const MAX_LINES = 2000;

/** The lines that changed with a few around them. */
function shortened(lines) {
  const isNear = (at) => lines.slice(Math.max(0, at - CONTEXT_LINES), at + CONTEXT_LINES + 1).some(([kind]) => kind !== "same");
  const shown = [];
  lines.forEach((line, at) => {
    if (shown.length >= MAX_LINES) return;
    if (isNear(at)) shown.push(line);
    else if (shown.at(-1)?.[0] !== "gap") shown.push(["gap", "…"]);
  });
  return shown;
}
