// The signatures of many requests, a few at a time.

import { check, detect } from "./signature.js";

const AT_ONCE = 4;

// More are not checked at once: each is fetched whole.
export const MAX_CHECKED = 1000;

// The relay answers 429 to more calls than it allows; then it is asked again.
const PAUSE_MS = 2000;

/**
 * Check `rows` with `signing` {secret, scheme}. Returns a Map from id to "valid", "late", "wrong" or "missing";
 * `onProgress(n)` is called as they are done. Requests that are no longer kept are left out.
 */
export async function checkMany(api, rows, signing, generic, onProgress) {
  const verdicts = new Map();
  const queue = rows.slice();
  const next = async () => {
    for (let row = queue.shift(); row; row = queue.shift()) {
      try {
        const request = await api.request(row.id);
        const scheme = signing.scheme || detect(request.headers);
        const { verdict, late } = await check(request, scheme, signing.secret, generic);
        verdicts.set(row.id, verdict === "valid" && late ? "late" : verdict);
      } catch (error) {
        if (error.status === 429) {
          queue.push(row);
          await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
        } else if (error.status !== 404) throw error;
      }
      onProgress(verdicts.size);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, next));
  return verdicts;
}
