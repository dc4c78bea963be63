// What stands above the list: counts, a sparkline of the last minutes or hours, and what a check of signatures found.

import { html, useEffect, useState } from "./vendor/htm-preact-3.1.1.js";
import { count } from "./format.js";
import { Icon } from "./parts.js";
import { activity, failures } from "./requests.js";

const SPAN_NAMES = { 60: "1 min", 300: "5 min", 900: "15 min", 3600: "1 h", 21600: "6 h", 86400: "24 h" };
const REFRESH_MS = 5000;

export function Overview({ rows, more, isFiltered }) {
  const [now, setNow] = useState(Date.now() / 1000);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now() / 1000), REFRESH_MS);
    return () => clearInterval(timer);
  }, []);
  const failed = failures(rows);
  const { seconds, counts } = activity(rows, Math.max(now, rows[0]?.received_at ?? 0));
  return html`<div class="overview">
    <span><strong>${rows.length.toLocaleString("en")}${more ? "+" : ""}</strong> ${isFiltered ? "matching" : rows.length === 1 ? "request" : "requests"}</span>
    <span class=${failed ? "failed" : "muted"}><strong>${failed.toLocaleString("en")}</strong> failed</span>
    <${Sparkline} counts=${counts} span=${SPAN_NAMES[seconds]} />
  </div>`;
}

function Sparkline({ counts, span }) {
  const most = Math.max(...counts, 1);
  const total = counts.reduce((sum, n) => sum + n, 0);
  return html`<span class="sparkline">
    <svg viewBox="0 0 ${counts.length * 4} 20" role="img" aria-label="${count(total, "request")} in the last ${span}">
      ${counts.map((n, i) => {
        const height = n ? Math.max(2, Math.round((n / most) * 20)) : 1;
        return html`<rect class=${n ? "" : "none"} x=${i * 4} y=${20 - height} width="3" height=${height} rx="0.5" />`;
      })}
    </svg>
    <span class="muted">${span}</span>
  </span>`;
}

const LABELS = { valid: "valid", wrong: "wrong", late: "late", missing: "without" };

/** `shown` is the verdict that the list is narrowed to, or "". */
export function Verdicts({ verdicts, shown, onShow, onClear }) {
  const counts = {};
  for (const verdict of verdicts.values()) counts[verdict] = (counts[verdict] ?? 0) + 1;
  return html`<div class="verdicts">
    <span class="muted">Signatures</span>
    <div class="segments" role="group" aria-label="Signatures">
      <button type="button" aria-pressed=${shown === ""} onClick=${() => onShow("")}>All</button>
      ${Object.entries(LABELS)
        .filter(([verdict]) => counts[verdict])
        .map(
          ([verdict, label]) => html`<button type="button" class="verdict ${verdict}" aria-pressed=${shown === verdict} onClick=${() => onShow(verdict)}>
            <strong>${counts[verdict]}</strong> ${label}
          </button>`,
        )}
    </div>
    ${onClear &&
    html`<span class="grow"></span>
      <button type="button" class="button quiet icon-only" aria-label="Forget the check" title="Forget the check" onClick=${onClear}><${Icon} name="close" /></button>`}
  </div>`;
}
