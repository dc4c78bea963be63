// Small parts that many views use: icons, buttons, dialogs, notices, tables.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { visible } from "./format.js";

const PATHS = {
  back: "M10 3 5 8l5 5",
  bell: "M4 11V7a4 4 0 0 1 8 0v4l1 1H3zM6.5 14h3",
  copy: "M6 6h7v7H6zM3.5 10H3V3h7v.5",
  check: "m3.5 8.5 3 3 6-7",
  close: "m4 4 8 8m0-8-8 8",
  cross: "m4.5 4.5 7 7m0-7-7 7",
  diff: "M5 2v7M2 5.5h6M8 13h6",
  down: "M8 2v8m-3.5-3.5L8 10l3.5-3.5M3 13.5h10",
  edit: "m3 13 .5-3L10 3.5 12.5 6 6 12.5zM9 4.5 11.5 7",
  filter: "M2.5 4h11M4.5 8h7M6.5 12h3",
  more: "M3.5 8h.01M8 8h.01M12.5 8h.01",
  replay: "M13 8a5 5 0 1 1-1.5-3.5L13 6M13 2.5V6H9.5",
  search: "M7 11.5a4.5 4.5 0 1 1 0-9 4.5 4.5 0 0 1 0 9zm3.5-1 3 3",
  trash: "M3 4.5h10M6.5 4V2.5h3V4M4.5 4.5l.5 9h6l.5-9",
};

export function Icon({ name }) {
  return html`<svg class="icon icon-${name}" viewBox="0 0 16 16" aria-hidden="true" focusable="false"><path d=${PATHS[name]} /></svg>`;
}

/** The mark and name of the program. */
export function Brand() {
  return html`<span class="brand">
    <svg viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <rect width="32" height="32" rx="8" />
      <path d="M8 12h11l-4-4M24 20H13l4 4" />
    </svg>
    <span>socket2me</span>
  </span>`;
}

/** Put `text` on the clipboard; also on a page from plain http, where browsers have no clipboard API. */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "offscreen";
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  if (!isCopied) throw new Error("The browser refused to copy.");
}

/** A button that copies what `text` returns, and says so. */
export function CopyButton({ text, label = "Copy", class: className = "", autofocus = false }) {
  const [state, setState] = useState("");
  useEffect(() => {
    if (!state) return undefined;
    const timer = setTimeout(() => setState(""), 1600);
    return () => clearTimeout(timer);
  }, [state]);
  const copy = () => copyText(typeof text === "function" ? text() : text).then(
    () => setState("Copied"),
    () => setState("Not copied"),
  );
  return html`<button type="button" class="button ${className}" autofocus=${autofocus} onClick=${copy}>
    <${Icon} name=${state === "Copied" ? "check" : "copy"} /><span>${state || label}</span>
  </button>`;
}

/** A line to copy, such as a command. */
export function CopyLine({ text, label }) {
  return html`<div class="copy-line">
    <code>${text}</code>
    <${CopyButton} text=${text} label="Copy" class="quiet" key=${label} />
  </div>`;
}

export function Dialog({ title, onClose, children, class: className = "" }) {
  const ref = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    ref.current.showModal();
    ref.current.querySelector("[autofocus]")?.focus();
    return () => before?.focus?.();
  }, []);
  const onClick = (event) => event.target === ref.current && onClose();
  return html`<dialog ref=${ref} class=${className} aria-label=${title} onClose=${onClose} onClick=${onClick}>
    <div class="dialog">
      <header>
        <h2>${title}</h2>
        <button type="button" class="button quiet icon-only" aria-label="Close" onClick=${onClose}><${Icon} name="close" /></button>
      </header>
      ${children}
    </div>
  </dialog>`;
}

/** A quiet box that says what is so. `kind` is "info", "warning" or "error". */
export function Notice({ kind = "info", children }) {
  return html`<div class="notice ${kind}" role=${kind === "error" ? "alert" : "status"}>${children}</div>`;
}

/** A state of the whole pane: a heading, what is so, and what to do. */
export function State({ title, children }) {
  return html`<div class="state"><h2>${title}</h2>${children}</div>`;
}

/** Hand `blob` to the user as a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Names and values in two columns: headers, query, form. `onFilter(name, value)`, if it is given, shows only requests with the same. */
export function Pairs({ pairs, label, onFilter }) {
  if (!pairs.length) return html`<p class="nothing">None.</p>`;
  return html`<table class="pairs" aria-label=${label}>
    <tbody>
      ${pairs.map(
        ([name, value], i) => html`<tr key=${i}>
          <th scope="row">${visible(name)}</th>
          <td>
            <span>${visible(value)}</span>
            ${onFilter &&
            html`<button
              type="button"
              class="button quiet icon-only"
              aria-label="Show only requests with this ${visible(name)}"
              title="Show only requests with the same"
              onClick=${() => onFilter(name, value)}
            >
              <${Icon} name="filter" />
            </button>`}
          </td>
        </tr>`,
      )}
    </tbody>
  </table>`;
}
