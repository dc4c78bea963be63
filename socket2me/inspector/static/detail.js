// One request: what it is, what can be done with it, and its parts.

import { html, useEffect, useState } from "./vendor/htm-preact-3.1.1.js";
import { formatAgo, formatBytes, formatExact, formatMs, statusKind, visible } from "./format.js";
import { pairs } from "./forms.js";
import { Icon, Notice, Pairs } from "./parts.js";
import { Body } from "./views/body.js";
import { Response, Timeline } from "./views/outcome.js";

const AGO_REFRESH_MS = 10_000;

/** `actions` are replay, edit, copy, compare, remove, close; `download(id)` returns a Blob. */
export function Detail({ request, actions, download, onFilter, signature, replayLabel, kind, tab, setTab }) {
  const fields = pairs(request.query);
  const tabs = [
    ["Body", null],
    ["Headers", request.headers.length],
    ["Timeline", request.timeline.length],
    ["Response", null],
    ["Signature", null],
  ];
  return html`<article class="detail" aria-label="Request ${visible(request.method)} ${visible(request.path || "/")}">
    <${Head} request=${request} actions=${actions} replayLabel=${replayLabel} kind=${kind} />
    <div class="tabs" role="tablist" aria-label="Parts of the request" onKeyDown=${(event) => moveTab(event)}>
      ${tabs.map(
        ([name, number]) => html`<button
          type="button"
          role="tab"
          id="tab-${name}"
          aria-selected=${tab === name}
          aria-controls="panel"
          tabindex=${tab === name ? 0 : -1}
          onClick=${() => setTab(name)}
        >
          ${name}${number !== null && html`<span class="number">${number}</span>`}
        </button>`,
      )}
    </div>
    <div id="panel" class="panel" role="tabpanel" aria-labelledby="tab-${tab}" tabindex="0">
      ${tab === "Body" &&
      html`${fields.length > 0 &&
        html`<h3>Query</h3>
          <${Pairs} pairs=${fields} label="Query" />
          <h3>Body</h3>`}
        <${Body}
          bytes=${request.body}
          contentType=${request.content_type ?? ""}
          head=${rawHead(request)}
          name=${`${request.id}${extension(request.content_type ?? "")}`}
          download=${() => download(request.id)}
        />`}
      ${tab === "Headers" &&
      html`<${Pairs} pairs=${request.headers} label="Headers" onFilter=${(name, value) => onFilter(`header.${name.toLowerCase()}`, value)} />`}
      ${tab === "Timeline" && html`<${Timeline} entries=${request.timeline} kind=${kind} />`}
      ${tab === "Response" && html`<${Response} response=${request.response} id=${request.id} />`}
      ${tab === "Signature" && signature}
    </div>
  </article>`;
}

function moveTab(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const all = [...event.currentTarget.children];
  const next = all[(all.indexOf(document.activeElement) + step + all.length) % all.length];
  next.focus();
  next.click();
}

function Head({ request, actions, replayLabel, kind }) {
  const [, refresh] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => refresh((n) => n + 1), AGO_REFRESH_MS);
    return () => clearInterval(timer);
  }, []);
  const outcome = request.status === null ? (kind === "client" ? "the app has it" : "the caller waits") : request.outcome;
  return html`<header class="detail-head">
    <div class="title">
      <button type="button" class="button quiet icon-only only-narrow" aria-label="Back to the list" onClick=${actions.close}>
        <${Icon} name="back" />
      </button>
      <h2><span class="method">${visible(request.method)}</span> <span class="path">${visible(request.path || "/")}</span>${
        request.query && html`<span class="query">?${visible(request.query)}</span>`
      }</h2>
      <span class="grow"></span>
      <button type="button" class="button quiet icon-only" aria-label="Delete this request" title="Delete" onClick=${actions.remove}><${Icon} name="trash" /></button>
    </div>
    <p class="facts">
      <span class="status-chip ${statusKind(request.status)}">${request.status ?? "waiting"}</span>
      ${outcome && html`<span>${visible(String(outcome))}</span>`}
      <span>${formatMs(request.ms)}</span>
      <span>${formatBytes(request.size)}</span>
      <span title=${new Date(request.received_at * 1000).toISOString()}>${formatExact(request.received_at)} <span class="muted">(${formatAgo(request.received_at)})</span></span>
      ${request.remote_addr && html`<span>from ${visible(request.remote_addr)}</span>`}
      ${request.replay_of && html`<button type="button" class="link" onClick=${() => actions.open(request.replay_of)}>replay of ${visible(request.replay_of)}</button>`}
    </p>
    <div class="actions">
      <button type="button" class="button primary" onClick=${actions.replay}><${Icon} name="replay" /><span>${replayLabel}</span></button>
      <button type="button" class="button" onClick=${actions.edit}><${Icon} name="edit" /><span>Edit<span class="wide-only"> and replay</span></span></button>
      <button type="button" class="button" onClick=${actions.copy}><${Icon} name="copy" /><span>Copy as</span></button>
      <button type="button" class="button" onClick=${actions.compare}><${Icon} name="diff" /><span>Compare</span></button>
    </div>
  </header>`;
}

/** The request line and the headers as HTTP/1.1 has them. */
function rawHead({ method, path, query, headers }) {
  const line = `${method} ${path || "/"}${query ? `?${query}` : ""} HTTP/1.1`;
  return [line, ...headers.map(([name, value]) => `${name}: ${value}`), ""].join("\n");
}

const EXTENSIONS = { "application/json": ".json", "application/xml": ".xml", "text/plain": ".txt", "application/pdf": ".pdf" };

function extension(contentType) {
  return EXTENSIONS[contentType.split(";")[0].trim().toLowerCase()] ?? ".bin";
}

/** What stands in place of a request while none is shown. */
export function NoDetail({ error, isLoading }) {
  if (error) return html`<div class="state"><${Notice} kind="warning">${error}<//></div>`;
  return html`<div class="state placeholder"><p class="muted">${isLoading ? "Loading …" : html`Select a request. <kbd>j</kbd> and <kbd>k</kbd> move, <kbd>?</kbd> shows all keys.`}</p></div>`;
}
