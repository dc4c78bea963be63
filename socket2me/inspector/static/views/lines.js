// Lines of text in blocks, of which the browser lays out those in sight: megabytes do not freeze the page.

import { html } from "../vendor/htm-preact-3.1.1.js";
import { visible } from "../format.js";

const LINES_A_BLOCK = 100;

// Above this, lines have no colours: an element for each token would make the page heavy.
const MAX_COLOURED_LINES = 5000;

/** `lines` are strings, or lists of [kind, text]. */
export function Lines({ lines, class: className = "" }) {
  const blocks = [];
  for (let at = 0; at < lines.length; at += LINES_A_BLOCK) blocks.push(lines.slice(at, at + LINES_A_BLOCK));
  const isColoured = lines.length <= MAX_COLOURED_LINES;
  return html`<pre class="lines ${className}" tabindex="0">${blocks.map(
    (block, i) => html`<div class="block" key=${i}>${
      isColoured && typeof block[0] !== "string" ? coloured(block) : plain(block)
    }</div>`,
  )}</pre>`;
}

function plain(lines) {
  return visible(lines.map((line) => (typeof line === "string" ? line : textOf(line))).join("\n")) + "\n";
}

export function textOf(line) {
  return line.map(([, text]) => text).join("");
}

function coloured(lines) {
  return lines.flatMap((line) => [
    ...line.map(([kind, text]) =>
      kind === "punctuation" || kind === "indent" ? text : html`<span class="t-${kind}" title=${TITLES[kind]}>${visible(text)}</span>`,
    ),
    "\n",
  ]);
}

const TITLES = { duplicate: "This key comes more than once." };
