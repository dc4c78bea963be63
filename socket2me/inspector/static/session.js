// What the page shows, from the URL's fragment, which no request has: `#token=...&secret=...`. The secret moves to
// `sessionStorage` before the first fetch; token, filter and open request stay.

const keyOf = (token) => `socket2me.secret.${token}`;

/** The place in the address bar: {token, filter, request}, "" for what is not there. A secret leaves the address bar. */
export function readPlace() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const place = {
    token: parameters.get("token") ?? "",
    filter: parameters.get("filter") ?? "",
    request: parameters.get("request") ?? "",
  };
  const secret = parameters.get("secret");
  if (secret !== null) {
    if (place.token) keepSecret(place.token, secret);
    writePlace(place);
  }
  return place;
}

/** Show `place` in the address bar; as a step back of the browser if `isStep`. */
export function writePlace(place, isStep = false) {
  const parameters = new URLSearchParams(Object.entries(place).filter(([, value]) => value));
  const url = parameters.size ? `#${parameters}` : location.pathname;
  if (isStep) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
}

export function keepSecret(token, secret) {
  sessionStorage.setItem(keyOf(token), secret.trim());
}

/** The secret of `token`, or null. */
export function secretOf(token) {
  return sessionStorage.getItem(keyOf(token));
}

export function forgetSecret(token) {
  sessionStorage.removeItem(keyOf(token));
}
