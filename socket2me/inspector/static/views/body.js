// A body in its views. The first 64 KB are shown until more is asked for.

import { html, useEffect, useMemo, useState } from "../vendor/htm-preact-3.1.1.js";
import { asUtf8, hexLines, looksLikeText, toText } from "../bytes.js";
import { formatBytes } from "../format.js";
import { pairs, parts } from "../forms.js";
import { isJson, prettyLines, readable } from "../json-tokens.js";
import { CopyButton, Icon, Notice, Pairs, save } from "../parts.js";
import { Lines } from "./lines.js";

const SHOWN_BYTES = 65_536;

/** The names of the views that `bytes` have, the most telling first. */
function viewsOf(bytes, contentType) {
  const type = contentType.toLowerCase();
  const views = [];
  if (/[/+]json\b/.test(type) || (/^\s*[[{]/.test(toText(bytes.subarray(0, 64))) && looksLikeText(bytes))) views.push("JSON");
  if (type.startsWith("application/x-www-form-urlencoded")) views.push("Form");
  if (type.startsWith("multipart/") && parts(bytes, contentType)) views.push("Multipart");
  const plain = looksLikeText(bytes) ? ["Text", "Hex"] : ["Hex", "Text"];
  return [...views, ...plain, "Raw"];
}

/** `head` is the text before the body in the raw view; `download` returns the exact bytes as a Blob. */
export function Body({ bytes, contentType, head, name, download }) {
  const views = useMemo(() => viewsOf(bytes, contentType), [bytes, contentType]);
  const [chosen, setChosen] = useState(null);
  const [isWhole, setWhole] = useState(false);
  const [failure, setFailure] = useState("");
  useEffect(() => setWhole(false), [bytes]);
  if (!bytes.length && !head) return html`<p class="nothing">No body.</p>`;
  const view = views.includes(chosen) ? chosen : bytes.length ? views[0] : "Raw";
  const shown = isWhole ? bytes : bytes.subarray(0, SHOWN_BYTES);
  const isCut = shown.length < bytes.length;
  const onDownload = async () => {
    try {
      save(await download(), name);
      setFailure("");
    } catch (error) {
      setFailure(error.message);
    }
  };
  return html`<section class="body">
    <div class="toolbar">
      <div class="segments" role="group" aria-label="View of the body">
        ${views.map(
          (label) => html`<button type="button" aria-pressed=${label === view} onClick=${() => setChosen(label)}>${label}</button>`,
        )}
      </div>
      <span class="muted">${formatBytes(bytes.length)}</span>
      <span class="grow"></span>
      ${asUtf8(bytes.subarray(0, 1024)) !== null && html`<${CopyButton} text=${() => toText(bytes)} label="Copy body" class="quiet" />`}
      <button type="button" class="button quiet" onClick=${onDownload}><${Icon} name="down" /><span>Download</span></button>
    </div>
    ${failure && html`<${Notice} kind="error">The body was not downloaded. ${failure}<//>`}
    <${View} view=${view} bytes=${bytes} shown=${shown} contentType=${contentType} head=${head} />
    ${isCut &&
    view !== "Form" &&
    view !== "Multipart" &&
    html`<div class="cut">
      <span>The first ${formatBytes(SHOWN_BYTES)} of ${formatBytes(bytes.length)} are shown.</span>
      <button type="button" class="button" onClick=${() => setWhole(true)}>Show all</button>
    </div>`}
  </section>`;
}

function View({ view, bytes, shown, contentType, head }) {
  if (view === "JSON") return html`<${Json} bytes=${bytes} shown=${shown} />`;
  if (view === "Form") return html`<${Pairs} pairs=${pairs(toText(bytes))} label="Form fields" />`;
  if (view === "Multipart") return html`<${Multipart} bytes=${bytes} contentType=${contentType} />`;
  if (view === "Hex") return html`<${Hex} bytes=${shown} />`;
  const text = toText(shown);
  return html`<${Lines} lines=${`${view === "Raw" ? `${head}\n` : ""}${text}`.split(/\r?\n/)} class="wrapped" />`;
}

function Json({ bytes, shown }) {
  const isValid = useMemo(() => isJson(toText(bytes)), [bytes]);
  const lines = useMemo(() => prettyLines(toText(shown)).map(withLetters), [shown]);
  const hasDuplicates = lines.some((line) => line.some(([kind]) => kind === "duplicate"));
  if (!isValid) {
    return html`<${Notice} kind="warning">This is not valid JSON. It is shown as text.<//>
      <${Lines} lines=${toText(shown).split(/\r?\n/)} class="wrapped" />`;
  }
  return html`${hasDuplicates && html`<${Notice} kind="warning">A key comes more than once in an object. Programs keep different ones of them.<//>`}
    <${Lines} lines=${lines} class="wrapped json" />`;
}

function withLetters(line) {
  return line.map(([kind, text]) => [kind, text.includes("\\u") ? readable(text) : text]);
}

const isNarrow = () => matchMedia("(max-width: 640px)").matches;

function Hex({ bytes }) {
  const lines = useMemo(() => hexLines(bytes, isNarrow() ? 8 : 16), [bytes]);
  return html`<${Lines} lines=${lines} class="hex" />`;
}

function Multipart({ bytes, contentType }) {
  const found = useMemo(() => parts(bytes, contentType), [bytes, contentType]);
  return html`<ul class="parts">
    ${found.map((part, i) => html`<li key=${i}><${Part} part=${part} /></li>`)}
  </ul>`;
}

function Part({ part }) {
  const isFile = part.filename !== null;
  const shown = part.bytes.subarray(0, SHOWN_BYTES);
  const lines = part.text === null ? hexLines(shown.subarray(0, 4096), isNarrow() ? 8 : 16) : toText(shown).split(/\r?\n/);
  return html`<div class="part-head">
      <strong>${part.name || "(no name)"}</strong>
      ${isFile && html`<span class="chip">${part.filename || "(no filename)"}</span>`}
      <span class="muted">${[part.type, formatBytes(part.bytes.length)].filter(Boolean).join(" · ")}</span>
      <span class="grow"></span>
      ${isFile &&
      html`<button type="button" class="button quiet" onClick=${() => save(new Blob([part.bytes]), part.filename || "file")}>
        <${Icon} name="down" /><span>Download</span>
      </button>`}
    </div>
    <${Lines} lines=${lines} class=${part.text === null ? "hex" : "wrapped"} />`;
}
