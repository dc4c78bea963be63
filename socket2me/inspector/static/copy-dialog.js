// "Copy as": the request as a command or program, sent to a URL of the user's choice.

import { html, useState } from "./vendor/htm-preact-3.1.1.js";
import { copyAs, FORMATS } from "./copy-as.js";
import { CopyButton, Dialog, Notice } from "./parts.js";
import { Lines } from "./views/lines.js";

const BASE_KEY = "socket2me.copy-to";
const FORMAT_KEY = "socket2me.copy-as";
const SHOWN_CHARACTERS = 20_000;

/** `url` is the public URL of the token: what is copied is sent there unless the user says otherwise. */
export function CopyDialog({ request, url, onClose }) {
  const [format, setFormat] = useState(localStorage.getItem(FORMAT_KEY) ?? "curl");
  const [base, setBase] = useState(sessionStorage.getItem(BASE_KEY) ?? url);
  const known = format in FORMATS ? format : "curl";
  const text = copyAs(known, request, base);
  const chooseFormat = (name) => {
    localStorage.setItem(FORMAT_KEY, name);
    setFormat(name);
  };
  const chooseBase = (event) => {
    sessionStorage.setItem(BASE_KEY, event.currentTarget.value);
    setBase(event.currentTarget.value);
  };
  return html`<${Dialog} title="Copy as" onClose=${onClose} class="wide">
    <div class="toolbar">
      <div class="segments" role="group" aria-label="Format">
        ${Object.entries(FORMATS).map(
          ([name, { label }]) =>
            html`<button type="button" aria-pressed=${name === known} onClick=${() => chooseFormat(name)}>${label}</button>`,
        )}
      </div>
      <span class="grow"></span>
      <${CopyButton} text=${text} label="Copy" class="primary" key=${known} autofocus />
    </div>
    <label class="field">
      <span>Send to</span>
      <input type="url" spellcheck=${false} value=${base} onInput=${chooseBase} list="targets" />
      <datalist id="targets"><option value=${url} /><option value="http://localhost:3000" /></datalist>
    </label>
    <${Lines} lines=${text.slice(0, SHOWN_CHARACTERS).split("\n")} class="wrapped code" />
    ${text.length > SHOWN_CHARACTERS && html`<${Notice}>The copy has all ${text.length.toLocaleString("en")} characters. The first ${SHOWN_CHARACTERS.toLocaleString("en")} are shown.<//>`}
    <p class="muted hint">
      ${known === "curl" || known === "httpie" ? "For bash and zsh. " : ""}Headers of the connection are left out. The others are copied as they
      came, signatures and credentials too.
    </p>
  <//>`;
}
