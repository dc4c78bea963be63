// The signature of a request, and of all in the list. The secret stays in this page's memory.

import { html, useEffect, useState } from "../vendor/htm-preact-3.1.1.js";
import { count, formatExact, visible } from "../format.js";
import { Notice } from "../parts.js";
import { check, detect, likelyHeader, MAX_CHECKED, SCHEMES } from "../signature.js";

/** `signing` is {secret, scheme, header, hash}, kept by the page while it is open; `scheme` "" is the detected one; `summary` says what a check of all found. */
export function Signature({ request, signing, setSigning, rowCount, checkAll, progress, summary }) {
  const detected = detect(request.headers);
  const scheme = signing.scheme || detected;
  const generic = { header: signing.header || likelyHeader(request.headers), hash: signing.hash };
  const [result, setResult] = useState(null);

  useEffect(() => {
    let isCurrent = true;
    setResult(null);
    if (!signing.secret) return undefined;
    check(request, scheme, signing.secret, generic).then(
      (found) => isCurrent && setResult(found),
      (error) => isCurrent && setResult({ error: error.message }),
    );
    return () => (isCurrent = false);
  }, [request, scheme, signing.secret, generic.header, generic.hash]);

  const set = (name) => (event) => setSigning({ ...signing, [name]: event.currentTarget.value });
  const detectedLabel = detected === "generic" ? "no known header found" : SCHEMES[detected].label;
  return html`<section class="signature">
    <div class="fields">
      <label>
        <span>Signed by</span>
        <select value=${signing.scheme} onChange=${set("scheme")}>
          <option value="">Detect: ${detectedLabel}</option>
          ${Object.entries(SCHEMES).map(([name, { label }]) => html`<option value=${name}>${label}</option>`)}
          <option value="generic">Another provider (HMAC of the body)</option>
        </select>
      </label>
      <label>
        <span>Signing secret</span>
        <input type="password" autocomplete="off" spellcheck=${false} value=${signing.secret} onInput=${set("secret")} placeholder=${scheme === "standard" ? "whsec_…" : ""} />
      </label>
      ${scheme === "generic" &&
      html`<label>
          <span>Header</span>
          <input type="text" spellcheck=${false} value=${generic.header} onInput=${set("header")} placeholder="x-signature" />
        </label>
        <label>
          <span>Hash</span>
          <select value=${signing.hash} onChange=${set("hash")}>
            ${["SHA-256", "SHA-1", "SHA-512"].map((hash) => html`<option value=${hash}>${hash}</option>`)}
          </select>
        </label>`}
    </div>
    <p class="muted hint">
      ${scheme === "generic" ? "HMAC of the body, as hex or base64." : `${SCHEMES[scheme].rule}.`} The secret stays in this page.
    </p>
    <${Result} result=${result} />
    <div class="check-all">
      <button type="button" class="button" disabled=${!signing.secret || progress !== null} onClick=${() => checkAll(generic)}>
        ${progress === null ? rowCount === null
              ? `Check the newest ${count(MAX_CHECKED, "request")}`
              : rowCount === 1
                ? "Check the request in the list"
                : `Check all ${count(rowCount, "request")} in the list` : `Checked ${progress} …`}
      </button>
      ${progress === null && summary}
    </div>
  </section>`;
}

function Result({ result }) {
  if (result === null) return null;
  if (result.error) return html`<${Notice} kind="error">${result.error}<//>`;
  const { verdict, given, expected, timestamp, late } = result;
  const time = timestamp === undefined ? null : Number(timestamp);
  if (verdict === "missing") return html`<${Notice} kind="warning">The request has no such signature.<//>`;
  return html`<div class="verdict-box ${verdict}">
    <${Notice} kind=${verdict === "wrong" ? "error" : late ? "warning" : "ok"}>
      <strong>${verdict === "wrong" ? "The signature is wrong." : "The signature is valid."}</strong>
      ${verdict === "wrong" && html`<span> The body was changed, or was signed with another secret.</span>`}
      ${verdict === "valid" && late && html`<span> But its timestamp is more than 5 minutes from when it arrived: providers refuse it.</span>`}
    <//>
    <dl>
      <dt>Sent</dt>
      <dd>${given.map((text) => html`<code>${visible(text)}</code>`)}</dd>
      ${verdict === "wrong" && html`<dt>Expected</dt><dd><code>${expected}</code></dd>`}
      ${time !== null && html`<dt>Timestamp</dt><dd>${Number.isFinite(time) && time > 0 ? html`<code>${timestamp}</code> <span class="muted">${formatExact(time)}</span>` : html`<code>${visible(timestamp)}</code>`}</dd>`}
    </dl>
  </div>`;
}
