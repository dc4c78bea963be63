// What is shown before there are requests: the page that makes a URL, the field for a secret, and the first steps.

import { html, useState } from "./vendor/htm-preact-3.1.1.js";
import { makeToken } from "./api.js";
import { formatTime } from "./format.js";
import { Brand, CopyButton, CopyLine, Notice, State } from "./parts.js";

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
        <input type="text" spellcheck=${false} required value=${token} onInput=${(event) => setToken(event.currentTarget.value)} />
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

/** Ask for the key of a run of `socket2me listen --inspect`. */
export function AskKey({ isWrong, onKey }) {
  const [key, setKey] = useState("");
  const give = (event) => {
    event.preventDefault();
    // The whole URL that was printed will do.
    onKey(/[#&]secret=([^&]+)/.exec(key)?.[1] ?? key);
  };
  return html`<main class="start">
    <div class="start-inner narrow">
      <${Brand} />
      <h1>${isWrong ? "This key is not that of this run" : "Enter the key of this run"}</h1>
      <p class="lead">
        Each run of <code>socket2me listen --inspect</code> makes a new key, and prints the URL of this page with it.
      </p>
      <form onSubmit=${give}>
        <label class="field">
          <span>URL or key</span>
          <input type="password" autocomplete="off" required autofocus value=${key} onInput=${(event) => setKey(event.currentTarget.value)} />
        </label>
        <button type="submit" class="button primary">Open</button>
      </form>
    </div>
  </main>`;
}

/** What stands in place of an empty list: how to make a first request, or that the filter matches nothing. */
export function Empty({ url, secret, filter, clear, info, kind }) {
  if (filter) {
    return html`<${State} title="No request matches">
      <p>New requests that match <code>${filter}</code> appear here.</p>
      <button type="button" class="button" onClick=${clear}>Clear the filter</button>
    <//>`;
  }
  return html`<div class="state"><h2>Waiting for the first request</h2><${FirstSteps} ...${{ url, secret, info, kind }} /></div>`;
}

/** The lines to copy: how to send a request to the URL, and how to bring its requests to an app. */
export function FirstSteps({ url, secret, info, kind }) {
  return html`<ol class="first-steps">
      <li>
        <h3>Send a request</h3>
        <${CopyLine} text=${`curl -H 'Content-Type: application/json' \\\n  -d '{"hello": "world"}' \\\n  ${url}/hello`} label="curl" />
      </li>
      <li>
        <h3>Give this URL to the sender of your webhooks</h3>
        <${CopyLine} text=${url} label="url" />
      </li>
      ${kind !== "client" &&
      html`<li>
        <h3>Bring its requests to an app on your machine</h3>
        <${CopyLine} text=${`socket2me listen http://localhost:3000 \\\n  --url ${url}`} label="listen" />
        <p class="muted hint after">It asks for the secret of the URL: <${CopyButton} text=${secret} label="Copy the secret" class="quiet" /></p>
      </li>`}
    </ol>
    ${info && html`<p class="muted">${senderNote(info)}${info.expires_at && ` The URL lives until ${formatTime(info.expires_at)}.`}</p>`}`;
}

/** What senders are answered while no app is connected. */
function senderNote({ connected, mailbox, target }) {
  if (target) return `Requests go on to ${target}${connected ? "" : " when the command is connected to the relay again"}.`;
  if (connected) return "An app is connected: requests go on to it.";
  return mailbox
    ? "No app is connected. Until one is, senders are answered 202, and the relay keeps their requests for it."
    : "No app is connected. Until one is, senders are answered 503 after a few seconds. Their requests appear here at once.";
}
