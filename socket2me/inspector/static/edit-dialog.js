// Edit a request and send it again. Only what was changed is sent to the relay; all else stays as it came, byte for byte.

import { html, useState } from "./vendor/htm-preact-3.1.1.js";
import { asUtf8, toBytes } from "./bytes.js";
import { formatBytes } from "./format.js";
import { isJson, prettyLines } from "./json-tokens.js";
import { Dialog, Notice } from "./parts.js";
import { detect, SCHEMES, sign } from "./signature.js";
import { textOf } from "./views/lines.js";

const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

const linesOf = (headers) => headers.map(([name, value]) => `${name}: ${value}`).join("\n");

/** The headers in `text`, one `Name: value` on a line. Throws an Error for the user. */
function parseHeaders(text) {
  return text
    .split("\n")
    .filter((line) => line.trim())
    .map((line) => {
      const colon = line.indexOf(":");
      const name = line.slice(0, colon).trim();
      if (colon < 1 || !/^[\w!#$%&'*+.^`|~-]+$/.test(name)) throw new Error(`This header line is not “Name: value”: ${line}`);
      return [name, line.slice(colon + 1).trim()];
    });
}

/** `onSend(changes)` sends the request and rejects with an Error; `secret` is the signing secret, "" if none was given. */
export function EditDialog({ request, secret, onSend, onClose }) {
  const original = asUtf8(request.body);
  const [method, setMethod] = useState(request.method);
  const [target, setTarget] = useState(request.path + (request.query ? `?${request.query}` : ""));
  const [headerText, setHeaderText] = useState(linesOf(request.headers));
  const [body, setBody] = useState(original);
  const scheme = detect(request.headers);
  const isSigned = scheme !== "generic";
  const [signingSecret, setSigningSecret] = useState(secret);
  const [signsAnew, setSignsAnew] = useState(false);
  const [error, setError] = useState("");
  const [isSending, setSending] = useState(false);

  const isBodyChanged = body !== original;
  const isBrokenJson = original !== null && isJson(original) && body !== "" && !isJson(body);

  const send = async (event) => {
    event.preventDefault();
    setError("");
    setSending(true);
    try {
      await onSend(await changes());
    } catch (failure) {
      setError(failure.message);
      setSending(false);
    }
  };

  const changes = async () => {
    const found = {};
    const cut = target.indexOf("?");
    const path = cut < 0 ? target : target.slice(0, cut);
    const query = cut < 0 ? "" : target.slice(cut + 1);
    if (path && !path.startsWith("/")) throw new Error("The path begins with /.");
    if (method !== request.method) found.method = method;
    if (path !== request.path) found.path = path;
    if (query !== request.query) found.query = query;
    if (isBodyChanged) found.text = body;
    let headers = parseHeaders(headerText);
    if (signsAnew) headers = await sign(headers, isBodyChanged ? toBytes(body) : request.body, scheme, signingSecret);
    if (linesOf(headers) !== linesOf(request.headers)) found.headers = headers;
    return found;
  };

  const layOut = () => setBody(prettyLines(body).map(textOf).join("\n"));
  return html`<${Dialog} title="Edit and replay" onClose=${onClose} class="wide">
    <form class="edit" onSubmit=${send}>
      <div class="edit-line">
        <label class="field">
          <span>Method</span>
          <select value=${method} onChange=${(event) => setMethod(event.currentTarget.value)}>
            ${[...new Set([request.method, ...METHODS])].map((name) => html`<option value=${name}>${name}</option>`)}
          </select>
        </label>
        <label class="field grow">
          <span>Path and query</span>
          <input type="text" spellcheck=${false} value=${target} onInput=${(event) => setTarget(event.currentTarget.value)} />
        </label>
      </div>
      <label class="field">
        <span>Body${isBodyChanged ? " (changed)" : ""}</span>
        ${body === null
          ? html`<${Notice}>The body is binary (${formatBytes(request.body.length)}) and is sent as it came.<//>`
          : html`<textarea rows="10" autofocus spellcheck=${false} value=${body} onInput=${(event) => setBody(event.currentTarget.value)}></textarea>`}
      </label>
      ${body !== null &&
      isJson(body) &&
      html`<button type="button" class="link" onClick=${layOut}>Lay out the JSON</button>`}
      ${isBrokenJson && html`<${Notice} kind="warning">The body is no longer valid JSON.<//>`}
      <label class="field">
        <span>Headers</span>
        <textarea rows="6" spellcheck=${false} value=${headerText} onInput=${(event) => setHeaderText(event.currentTarget.value)}></textarea>
      </label>
      ${isSigned &&
      html`<div class="sign-anew">
        <label class="check">
          <input type="checkbox" checked=${signsAnew} onChange=${(event) => setSignsAnew(event.currentTarget.checked)} />
          <span>Sign it anew as ${SCHEMES[scheme].label}</span>
        </label>
        ${signsAnew
          ? html`<label class="field">
              <span>Signing secret (stays in this page)</span>
              <input type="password" autocomplete="off" required value=${signingSecret} onInput=${(event) => setSigningSecret(event.currentTarget.value)} />
            </label>`
          : isBodyChanged && html`<p class="muted hint">The body was changed, so its signature no longer fits.</p>`}
      </div>`}
      ${error && html`<${Notice} kind="error">${error}<//>`}
      <footer>
        <button type="button" class="button" onClick=${onClose}>Cancel</button>
        <button type="submit" class="button primary" disabled=${isSending}>${isSending ? "Sending …" : "Send"}</button>
      </footer>
    </form>
  <//>`;
}
