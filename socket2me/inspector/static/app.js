// The page: which of its states it is in.

import { html, render, useEffect, useMemo, useState } from "./vendor/htm-preact-3.1.1.js";
import { about, Api } from "./api.js";
import { Inspector } from "./inspector.js";
import { forgetSecret, keepSecret, readPlace, secretOf, writePlace } from "./session.js";
import { AskKey, AskSecret, Start } from "./start.js";

// The only token of `socket2me listen --inspect`.
const CLIENT_TOKEN = "local";

// What an older relay is, which does not say.
const RELAY = { kind: "relay", version: "", replay: ["relay"] };

function App({ first }) {
  const [place, setPlace] = useState(first);
  const [server, setServer] = useState(null);
  const [isWrong, setWrong] = useState(false);
  const secret = place.token && secretOf(place.token);
  const api = useMemo(() => secret && !isWrong && new Api(place.token, secret), [place.token, secret, isWrong]);

  useEffect(() => {
    about().then(setServer, () => setServer(RELAY));
    const onMove = () => {
      setWrong(false);
      setPlace(readPlace());
    };
    addEventListener("popstate", onMove);
    addEventListener("hashchange", onMove);
    return () => {
      removeEventListener("popstate", onMove);
      removeEventListener("hashchange", onMove);
    };
  }, []);

  const move = (changes, isStep) => {
    const next = { ...place, ...changes };
    writePlace(next, isStep);
    setPlace(next);
  };
  const open = (token, newSecret) => {
    keepSecret(token, newSecret);
    setWrong(false);
    move({ token, filter: "", request: "" }, true);
  };
  const leave = () => {
    forgetSecret(place.token);
    setWrong(false);
    move({ token: "", filter: "", request: "" }, true);
  };

  const isClient = server?.kind === "client";
  if (!place.token && !isClient) return server && html`<${Start} onOpen=${open} version=${server.version} />`;
  if (isClient && !api) return html`<${AskKey} isWrong=${isWrong} onKey=${(key) => open(CLIENT_TOKEN, key)} />`;
  if (!api) {
    const give = (newSecret) => {
      keepSecret(place.token, newSecret);
      setWrong(false);
      setPlace({ ...place });
    };
    return html`<${AskSecret} key=${String(isWrong)} token=${place.token} isWrong=${isWrong} onSecret=${give} onLeave=${leave} />`;
  }
  return html`<${Inspector}
    key=${place.token}
    api=${api}
    server=${server ?? RELAY}
    place=${place}
    move=${move}
    onLeave=${leave}
    onWrongSecret=${() => setWrong(true)}
  />`;
}

// The secret leaves the address bar before anything is fetched.
const first = readPlace();
render(html`<${App} first=${first} />`, document.getElementById("app"));
