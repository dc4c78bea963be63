// How numbers, times and bytes are written.

/** `1,234 B`, `12.3 KB`, `2.0 MB`. */
export function formatBytes(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} KB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** `0.4 ms`, `12 ms`, `1.25 s`; a dash while there is none. */
export function formatMs(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** `10:51:52`, with the day before it if that is not today. */
export function formatTime(seconds, now = new Date()) {
  const date = new Date(seconds * 1000);
  const time = clock.format(date);
  return date.toDateString() === now.toDateString() ? time : `${day.format(date)} ${time}`;
}

/** `10:51:52.123`. */
export function formatExact(seconds) {
  const date = new Date(seconds * 1000);
  return `${clock.format(date)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** `just now`, `5 s ago`, `3 min ago`, `2 h ago`, `4 days ago`. */
export function formatAgo(seconds, now = Date.now() / 1000) {
  const age = Math.max(0, now - seconds);
  if (age < 2) return "just now";
  if (age < 60) return `${Math.floor(age)} s ago`;
  if (age < 3600) return `${Math.floor(age / 60)} min ago`;
  if (age < 172800) return `${Math.floor(age / 3600)} h ago`;
  return `${Math.floor(age / 86400)} days ago`;
}

/** `1 request`, `1,200 requests`. */
export function count(n, noun) {
  return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
}

/** The class of a status: "ok", "redirect", "client-error", "server-error", or "waiting" for none. */
export function statusKind(status) {
  if (status === null || status === undefined) return "waiting";
  if (status < 300) return "ok";
  if (status < 400) return "redirect";
  return status < 500 ? "client-error" : "server-error";
}

// Control characters, and those that are invisible or change the direction of the text around them.
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** `text` with invisible characters as `\u202e`; line feeds and tabs stay. */
export function visible(text) {
  return text.replace(INVISIBLE, (c) => (c === "\r" ? "␍" : `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`));
}
