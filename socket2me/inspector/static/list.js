// The list of requests. Only the rows in sight, and a few around them, are in the document.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { formatTime, statusKind, visible } from "./format.js";
import { Icon } from "./parts.js";

const ROW_PIXELS = 40;
const ROWS_AROUND = 12;

const VERDICTS = { valid: "signature valid", late: "signature late", wrong: "wrong signature", missing: "no signature" };

export function RequestList({ rows, more, selected, base, verdicts, onSelect, onMore }) {
  const ref = useRef(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  const first = Math.max(0, Math.floor(view.top / ROW_PIXELS) - ROWS_AROUND);
  const last = Math.min(rows.length, Math.ceil((view.top + view.height) / ROW_PIXELS) + ROWS_AROUND);
  const place = rows.findIndex((row) => row.id === selected);

  const measure = () => setView({ top: ref.current.scrollTop, height: ref.current.clientHeight });
  useEffect(() => {
    const observer = new ResizeObserver(measure);
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);

  // Rows that arrive above what is being read do not move it.
  const top = useRef(null);
  useLayoutEffect(() => {
    const list = ref.current;
    const before = top.current;
    top.current = rows[0]?.id ?? null;
    if (list.scrollTop === 0 || before === null) return;
    const arrived = rows.findIndex((row) => row.id === before);
    if (arrived > 0) list.scrollTop += arrived * ROW_PIXELS;
  }, [rows]);

  useLayoutEffect(() => {
    if (place < 0) return;
    const list = ref.current;
    const start = place * ROW_PIXELS;
    if (start < list.scrollTop) list.scrollTop = start;
    else if (start + ROW_PIXELS > list.scrollTop + list.clientHeight) list.scrollTop = start + ROW_PIXELS - list.clientHeight;
  }, [selected]);

  const isNearEnd = more && last >= rows.length - ROWS_AROUND;
  useEffect(() => {
    if (isNearEnd) onMore();
  }, [isNearEnd, rows.length]);

  const now = new Date();
  const isLong = rows.length > 0 && formatTime(rows.at(-1).received_at, now).length > 8;
  return html`<div
    class="list ${isLong ? "with-days" : ""}"
    ref=${ref}
    role="listbox"
    tabindex="0"
    aria-label="Requests"
    aria-activedescendant=${place >= first && place < last ? `row-${selected}` : undefined}
    onScroll=${measure}
  >
    <div class="rows" role="presentation" style=${{ height: `${rows.length * ROW_PIXELS}px` }}>
      ${rows.slice(first, last).map(
        (row, i) => html`<${Row}
          key=${row.id}
          row=${row}
          place=${first + i}
          size=${more ? -1 : rows.length}
          isSelected=${row.id === selected}
          isBase=${row.id === base}
          verdict=${verdicts.get(row.id)}
          time=${formatTime(row.received_at, now)}
          onSelect=${onSelect}
        />`,
      )}
    </div>
  </div>`;
}

function Row({ row, place, size, isSelected, isBase, verdict, time, onSelect }) {
  const path = visible(row.path || "/") + (row.query ? `?${visible(row.query)}` : "");
  return html`<div
    id="row-${row.id}"
    class="row ${isSelected ? "selected" : ""} ${isBase ? "base" : ""}"
    role="option"
    aria-selected=${isSelected}
    aria-posinset=${place + 1}
    aria-setsize=${size}
    style=${{ transform: `translateY(${place * ROW_PIXELS}px)` }}
    onClick=${() => onSelect(row.id)}
  >
    <span class="method">${visible(row.method)}</span>
    <span class="path" title=${path}>${path}</span>
    <span class="marks">
      ${isBase && html`<span class="mark">compared</span>`}
      ${row.replay_of && html`<span class="mark" title="A replay"><${Icon} name="replay" /><span class="hidden">replay</span></span>`}
      ${verdict &&
      html`<span class="mark verdict ${verdict}" title=${VERDICTS[verdict]}>
        <${Icon} name=${verdict === "valid" ? "check" : "cross"} />
        <span class=${verdict === "valid" ? "hidden" : ""}>${VERDICTS[verdict]}</span>
      </span>`}
    </span>
    <span class="status ${statusKind(row.status)}">
      ${row.status ?? html`<span class="waiting-dots" title="The caller waits">•••</span>`}
    </span>
    <time>${time}</time>
  </div>`;
}
