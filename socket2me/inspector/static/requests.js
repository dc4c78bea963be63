// The list of summaries, newest first, as a function of what arrives.

// Older ones than these are asked for again when the list is scrolled to them.
export const MAX_ROWS = 20_000;

export const EMPTY = { rows: [], more: false, loaded: false };

/** The list after `page` of the relay, which follows its last row. */
export function addPage(list, page) {
  const known = new Set(list.rows.map((row) => row.id));
  const fresh = page.requests.filter((row) => !known.has(row.id));
  return { rows: [...list.rows, ...fresh], more: page.more, loaded: true };
}

/** The list after a batch of [event, data] of the stream. */
export function addEvents(list, events) {
  const places = new Map(list.rows.map((row, place) => [row.id, place]));
  const rows = list.rows.slice();
  const newer = [];
  const newPlaces = new Map();
  for (const [event, data] of events) {
    const place = places.get(data.id);
    const newPlace = newPlaces.get(data.id);
    if (event === "request") {
      if (place !== undefined) rows[place] = data;
      else if (newPlace !== undefined) newer[newPlace] = data;
      else newPlaces.set(data.id, newer.push(data) - 1);
    } else if (event === "update") {
      const { status, ms, outcome } = data;
      const change = Object.fromEntries(Object.entries({ status, ms, outcome }).filter(([, v]) => v !== undefined));
      if (place !== undefined) rows[place] = { ...rows[place], ...change };
      else if (newPlace !== undefined) newer[newPlace] = { ...newer[newPlace], ...change };
    }
  }
  const all = newer.length ? [...newer.reverse(), ...rows] : rows;
  const isOver = all.length > MAX_ROWS;
  return { ...list, rows: isOver ? all.slice(0, MAX_ROWS) : all, more: list.more || isOver };
}

export function without(list, id) {
  return { ...list, rows: list.rows.filter((row) => row.id !== id) };
}

/** How many of `rows` were answered 400 or above. */
export function failures(rows) {
  return rows.filter((row) => row.status >= 400).length;
}

const BUCKETS = 30;

/** Requests over time for the sparkline: {seconds of all buckets, counts} that end at `now`. Grows with what is there. */
export function activity(rows, now) {
  const oldest = rows.length ? rows.at(-1).received_at : now;
  const spans = [60, 300, 900, 3600, 21600, 86400];
  const seconds = spans.find((span) => now - oldest <= span) ?? spans.at(-1);
  const counts = new Array(BUCKETS).fill(0);
  for (const row of rows) {
    const place = BUCKETS - 1 - Math.floor(((now - row.received_at) / seconds) * BUCKETS);
    if (place >= 0) counts[Math.min(place, BUCKETS - 1)]++;
  }
  return { seconds, counts };
}

/** The nearest older request with the same method and path as that at `place`, or null. */
export function previousLike(rows, place) {
  const { method, path } = rows[place];
  return rows.slice(place + 1).find((row) => row.method === method && row.path === path) ?? null;
}
