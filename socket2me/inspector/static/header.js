// The bar at the top: the URL, the state of the connection, and what concerns the whole list.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { Brand, CopyButton, Icon } from "./parts.js";

const STATES = {
  connecting: ["Connecting", "Asking the relay for the stream."],
  live: ["Live", "New requests appear as they arrive."],
  reconnecting: ["Reconnecting", "The connection was cut. Nothing is lost: the stream goes on where it ended."],
  paused: ["Paused", "The filter does not parse."],
  ended: ["Ended", "The relay has no more for this URL."],
};

export function Header({ url, state, retry, notifications, onHelp, onSteps, onClear, onHar, onLeave, kind }) {
  const [label, title] = STATES[state];
  return html`<header class="bar">
    <h1><${Brand} /><span class="hidden"> inspector</span></h1>
    <div class="url">
      <code title=${url}>${url}</code>
      <${CopyButton} text=${url} label="Copy URL" class="quiet" />
    </div>
    <span class="connection ${state}" role="status" title=${title}>${label}</span>
    ${state === "reconnecting" && html`<button type="button" class="button quiet wide-only" onClick=${retry}>Try now</button>`}
    <${Menu}
      items=${[
        notifications.isPossible && [notifications.isOn ? "Turn notifications off" : "Notify me of new requests", notifications.toggle],
        ["Download as HAR", onHar],
        ["Commands to copy", onSteps],
        ["Keys and filters", onHelp],
        ["Delete all requests", onClear],
        [kind === "client" ? "Leave" : "Open or make another URL", onLeave],
      ].filter(Boolean)}
    />
  </header>`;
}

function Menu({ items }) {
  const [isOpen, setOpen] = useState(false);
  const ref = useRef(null);
  useEffect(() => {
    if (!isOpen) return undefined;
    ref.current.querySelector("[role=menuitem]").focus();
    const onDown = (event) => ref.current.contains(event.target) || setOpen(false);
    document.addEventListener("pointerdown", onDown);
    return () => document.removeEventListener("pointerdown", onDown);
  }, [isOpen]);
  const onKeyDown = (event) => {
    const all = [...ref.current.querySelectorAll("[role=menuitem]")];
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape" && isOpen) {
      setOpen(false);
      ref.current.querySelector("button").focus();
    } else if (by && isOpen) all[(all.indexOf(document.activeElement) + by + all.length) % all.length].focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return html`<div class="menu" ref=${ref} onKeyDown=${onKeyDown}>
    <button type="button" class="button quiet icon-only" aria-label="More" aria-haspopup="menu" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>
      <${Icon} name="more" />
    </button>
    ${isOpen &&
    html`<div class="menu-items" role="menu">
      ${items.map(
        ([label, action]) =>
          html`<button type="button" role="menuitem" tabindex="-1" onClick=${() => (setOpen(false), action())}>${label}</button>`,
      )}
    </div>`}
  </div>`;
}
