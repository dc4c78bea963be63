// The filter: its field, and terms that are added to it. The relay reads the expression; where it does not parse, its answer is shown.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { Icon } from "./parts.js";

const PAUSE_MS = 250;

export function FilterField({ filter, error, onFilter }) {
  const [text, setText] = useState(filter);
  const timer = useRef(null);
  useEffect(() => setText(filter), [filter]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const apply = (value) => {
    clearTimeout(timer.current);
    if (value.trim() !== filter) onFilter(value.trim());
  };
  const onInput = (event) => {
    const { value } = event.currentTarget;
    setText(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => apply(value), PAUSE_MS);
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter") apply(text);
    if (event.key !== "Escape") return;
    if (text) {
      setText("");
      apply("");
    } else event.currentTarget.blur();
  };
  return html`<div class="filter ${error ? "invalid" : ""}">
    <${Icon} name="search" />
    <input
      id="filter"
      type="search"
      spellcheck=${false}
      autocomplete="off"
      aria-label="Filter"
      aria-invalid=${error !== null}
      aria-describedby=${error ? "filter-error" : undefined}
      placeholder="Filter: POST /stripe/* status:5xx"
      value=${text}
      onInput=${onInput}
      onKeyDown=${onKeyDown}
    />
    ${!text && html`<kbd aria-hidden="true">/</kbd>`}
    ${error && html`<p id="filter-error" role="alert">${error.message}</p>`}
  </div>`;
}

const PLAIN_VALUE = /^[^\s"]\S*$/;

/** `field:value` as a term, the value in quotes where it needs them. */
export function term(field, value) {
  return `${field}:${PLAIN_VALUE.test(value) ? value : `"${value.replace(/["\\]/g, "\\$&")}"`}`;
}

/** `expression` with `added` at its end, if it is not in it. */
export function addTerm(expression, added) {
  const words = expression.trim();
  if (` ${words} `.includes(` ${added} `)) return words;
  return words ? `${words} ${added}` : added;
}
