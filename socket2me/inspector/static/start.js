// The first page: what this is, one button that makes a URL, and the way to one that exists.

import { html, useState } from "./vendor/htm-preact-3.1.1.js";
import { makeToken } from "./api.js";
import { Brand, Notice } from "./parts.js";

export function Start({ onOpen, version }) {
  const [error, setError] = useState(null);
  const [apiKey, setApiKey] = useState("");
  const [isMaking, setMaking] = useState(false);
  const needsKey = error?.status === 401;

  const make = async (event) => {
    event.preventDefault();
    setMaking(true);
    try {
      const made = await makeToken(apiKey);
      onOpen(made.token, made.secret);
    } catch (failure) {
      setError(failure);
      setMaking(false);
    }
  };

  return html`<main class="start">
    <div class="start-inner">
      <${Brand} />
      <h1>See what your webhooks send</h1>
      <p class="lead">
        This is a webhook relay. It gives you a URL. Each request to it appears here as it arrives, byte for byte, and goes on to your
        app, wherever that runs.
      </p>
      <form onSubmit=${make}>
        ${needsKey &&
        html`<label class="field">
          <span>API key of this relay</span>
          <input type="password" autocomplete="off" required value=${apiKey} onInput=${(event) => setApiKey(event.currentTarget.value)} />
        </label>`}
        <button type="submit" class="button primary large" disabled=${isMaking}>${isMaking ? "Making a URL …" : "Make a URL"}</button>
      </form>
      ${error && html`<${Notice} kind=${needsKey && !apiKey ? "info" : "error"}>${error.message}<//>`}
      <ul class="promises">
        <li><strong>Find</strong> a request by method, path, header, status or a field of its body.</li>
        <li><strong>Check</strong> signatures of GitHub, Stripe, Slack and Standard Webhooks. The secret stays in your browser.</li>
        <li><strong>Send again</strong>, as it was or edited. Copy as curl, HTTPie, Python or a test.</li>
      </ul>
      <${OpenExisting} onOpen=${onOpen} />
      ${version && html`<p class="muted version">socket2me ${version}</p>`}
    </div>
  </main>`;
}

function OpenExisting({ onOpen }) {
  const [token, setToken] = useState("");
  const [secret, setSecret] = useState("");
  const open = (event) => {
    event.preventDefault();
    onOpen(tokenIn(token), secret.trim());
  };
  return html`<details class="existing">
    <summary>Open a URL that you have</summary>
    <form onSubmit=${open}>
      <label class="field">
        <span>URL or token</span>
        <input type="text" spellcheck="false" required value=${token} onInput=${(event) => setToken(event.currentTarget.value)} />
      </label>
      <label class="field">
        <span>Secret</span>
        <input type="password" autocomplete="off" required value=${secret} onInput=${(event) => setSecret(event.currentTarget.value)} placeholder="s2m_…" />
      </label>
      <button type="submit" class="button">Open</button>
    </form>
  </details>`;
}

/** The token in a URL such as `https://relay.example/v1/go/abc`, or the text itself. */
function tokenIn(text) {
  return /\/go\/([^/?#]+)/.exec(text)?.[1] ?? text.trim();
}

/** Ask for the secret of a token: at first, or because another was wrong. */
export function AskSecret({ token, isWrong, onSecret, onLeave }) {
  const [secret, setSecret] = useState("");
  const give = (event) => {
    event.preventDefault();
    onSecret(secret.trim());
  };
  return html`<main class="start">
    <div class="start-inner narrow">
      <${Brand} />
      <h1>${isWrong ? "This secret does not open the URL" : "Enter the secret of this URL"}</h1>
      <p class="lead">Token <code>${token}</code></p>
      <form onSubmit=${give}>
        <label class="field">
          <span>Secret</span>
          <input type="password" autocomplete="off" required autofocus value=${secret} onInput=${(event) => setSecret(event.currentTarget.value)} placeholder="s2m_…" />
        </label>
        <div class="start-actions">
          <button type="submit" class="button primary">Open</button>
          <button type="button" class="button" onClick=${onLeave}>Another URL</button>
        </div>
      </form>
      <p class="muted hint">It was shown once, when the URL was made. It is kept for this tab only, and is in no URL.</p>
    </div>
  </main>`;
}
