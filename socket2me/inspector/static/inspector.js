// The inspector of one token: list, request, comparison, dialogs and keys together.

import { html, useCallback, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { Detail, NoDetail } from "./detail.js";
import { addTerm, FilterField, term } from "./filter.js";
import { formatTime, visible } from "./format.js";
import { Header } from "./header.js";
import { HelpDialog, listenToKeys } from "./keys.js";
import { RequestList } from "./list.js";
import { Lazy } from "./lazy.js";
import { useLive } from "./live.js";
import { useNotifications } from "./notifications.js";
import { Overview, Verdicts } from "./overview.js";
import { Dialog, Notice, save, State } from "./parts.js";
import { previousLike, without } from "./requests.js";
import { checkMany, MAX_CHECKED } from "./signature.js";
import { Empty, FirstSteps } from "./start.js";
import { Signature } from "./views/signature.js";

const TOAST_MS = 4000;
const MAX_CHECKED_ARRIVED = 20;
const REFETCH_MS = 150;
const isNarrow = () => matchMedia("(max-width: 800px)").matches;
const NO_SIGNING = { secret: "", scheme: "", header: "", hash: "SHA-256" };

export function Inspector({ api, server, place, move, onLeave, onWrongSecret }) {
  const [info, setInfo] = useState(null);
  const [toast, setToast] = useState(null);
  const [dialog, setDialog] = useState(null);
  const [tab, setTab] = useState("Body");
  const [base, setBase] = useState(null);
  const [signing, setSigning] = useState(NO_SIGNING);
  const [verdicts, setVerdicts] = useState(new Map());
  const [progress, setProgress] = useState(null);
  const [onlyVerdict, setOnlyVerdict] = useState("");

  const checked = useRef(null); // how the list was checked: what arrives later is checked in the same way
  const checkArrived = (events) => {
    if (verdicts.size === 0) return;
    const { signing: used, generic } = checked.current;
    const arrived = events.filter(([event]) => event === "request").map(([, row]) => row);
    const merge = (found) => setVerdicts((now) => (now.size ? new Map([...now, ...found]) : now));
    checkMany(api, arrived.slice(0, MAX_CHECKED_ARRIVED), used, generic, () => {}).then(merge, () => {});
  };

  const notifications = useNotifications();
  const shown = useRequest(api, place.request);
  const compared = useRequest(api, base ?? "");
  const { list, setList, state, error, loadMore, loadUpTo, retry } = useLive(api, place.filter, (events) => {
    notifications.onEvents(events);
    checkArrived(events);
    if (events.some(([, data]) => data.id === place.request)) shown.refetch();
  });
  const rows = useMemo(
    () => (onlyVerdict ? list.rows.filter((row) => verdicts.get(row.id) === onlyVerdict) : list.rows),
    [list.rows, onlyVerdict, verdicts],
  );

  // Whether an app is connected, and until when the URL lives, may be another after a break.
  useEffect(() => void api.info().then(setInfo, () => {}), [api, state]);
  useEffect(() => {
    if (error?.status === 401) onWrongSecret();
  }, [error]);
  useEffect(() => {
    if (!toast) return undefined;
    const timer = setTimeout(() => setToast(null), TOAST_MS);
    return () => clearTimeout(timer);
  }, [toast]);

  const url = info?.url ?? new URL(`v1/go/${api.token}`, document.baseURI).href;
  const say = (text, kind = "info") => setToast({ text, kind });
  const select = useCallback((id) => move({ request: id }, id !== "" && place.request === ""), [move, place.request]);
  // A dialog tells that it was closed a little later: then another may be open.
  const end = (name) => setDialog((now) => (now === name ? null : now));
  const failed = (failure) => {
    setDialog(null);
    say(failure.message, "error");
  };
  const guard = (action) => action().catch((failure) => say(failure.message, "error"));
  const step = (by) => {
    const at = rows.findIndex((row) => row.id === place.request);
    const next = rows[at < 0 ? 0 : Math.min(Math.max(at + by, 0), rows.length - 1)];
    if (next) select(next.id);
    if (at + by >= rows.length - 1 && list.more) loadMore();
  };
  const replay = (changes) =>
    api.replay(place.request, changes).then((id) => {
      setOnlyVerdict("");
      say(changes ? "The edited request was sent." : "The request was sent again.");
      select(id);
    });
  const compare = () => {
    const at = list.rows.findIndex((row) => row.id === place.request);
    if (at < 0) return;
    const other = previousLike(list.rows, at) ?? list.rows[at + 1] ?? list.rows[at - 1];
    setBase(other ? other.id : place.request);
  };
  const close = () => (base ? setBase(null) : select(""));
  const remove = () =>
    guard(async () => {
      const { id } = shown.request;
      await api.remove(id);
      const at = rows.findIndex((row) => row.id === id);
      setList((now) => without(now, id));
      select((rows[at + 1] ?? rows[at - 1])?.id ?? "");
      say("The request was deleted.");
    });
  const clear = () =>
    guard(async () => {
      await api.clear();
      setDialog(null);
      setBase(null);
      setList((now) => ({ ...now, rows: [], more: false }));
      select("");
      say("All requests were deleted.");
    });
  const checkAll = (generic) =>
    guard(async () => {
      setProgress(0);
      try {
        const all = list.more ? await loadUpTo(MAX_CHECKED) : list.rows;
        setVerdicts(await checkMany(api, all.slice(0, MAX_CHECKED), signing, generic, setProgress));
        checked.current = { signing, generic };
      } finally {
        setProgress(null);
      }
    });

  const has = (action) => () => shown.request && action();
  const actions = {
    replay: () => guard(() => replay(null)),
    edit: () => setDialog("edit"),
    copy: () => setDialog("copy"),
    compare,
    remove: () => setDialog("remove"),
    close,
    open: select,
  };
  const keyActions = {
    j: () => step(1),
    k: () => step(-1),
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    r: has(actions.replay),
    e: has(actions.edit),
    c: has(actions.copy),
    d: has(compare),
    "/": () => document.getElementById("filter").focus(),
    "?": () => setDialog("help"),
    Escape: close,
  };
  const keys = useRef(keyActions);
  keys.current = keyActions;
  useEffect(
    () => listenToKeys(new Proxy({}, { get: (_, key) => (Object.hasOwn(keys.current, key) ? keys.current[key] : undefined) })),
    [],
  );

  const filterError = error?.status === 400 ? error : null;
  const isEnded = state === "ended" && !filterError;
  const isEmpty = list.loaded && list.rows.length === 0;
  const isOff = error?.details?.code === "no_history" || info?.inspect === false;
  const isGone = isEnded && error?.status === 404;
  const isFirst = (isEmpty && !place.filter && !place.request) || isOff || (isGone && !list.loaded);
  const replayLabel = server.replay?.includes("client") ? "Replay to the app" : "Replay";

  let pane;
  if (isOff || (isGone && !list.loaded)) pane = html`<${Unavailable} isOff=${isOff} onLeave=${onLeave} />`;
  else if (!list.loaded) pane = html`<${Loading} error=${error} state=${state} retry=${retry} />`;
  else if (isEmpty && !place.request) pane = html`<${Empty} url=${url} secret=${api.secret} filter=${place.filter} clear=${() => move({ filter: "" })} info=${info} kind=${server.kind} />`;
  const isSplit = list.loaded && !(isEmpty && !place.request) && !isOff;

  return html`<div class="page ${place.request ? "has-request" : ""}">
    <${Header}
      url=${url}
      state=${filterError ? "paused" : state}
      retry=${retry}
      notifications=${notifications}
      onHelp=${() => setDialog("help")}
      onSteps=${() => setDialog("steps")}
      onClear=${() => setDialog("clear")}
      onHar=${() => guard(async () => save(await api.har(place.filter), `${api.token}.har`))}
      onLeave=${onLeave}
      kind=${server.kind}
    />
    ${isGone && list.loaded && html`<${Notice} kind="warning">This URL has expired or was deleted. What is listed here stays until you close the page. <button type="button" class="link" onClick=${onLeave}>Make a URL</button><//>`}
    <main class="panes">
      <section class="list-pane" aria-label="Requests">
        ${!isFirst && html`<${FilterField} filter=${place.filter} error=${filterError} onFilter=${(filter) => move({ filter })} />`}
        ${list.loaded && !isFirst && html`<${Overview} rows=${list.rows} more=${list.more} isFiltered=${place.filter !== ""} />`}
        ${verdicts.size > 0 && html`<${Verdicts} verdicts=${verdicts} shown=${onlyVerdict} onShow=${setOnlyVerdict} onClear=${() => (setVerdicts(new Map()), setOnlyVerdict(""))} />`}
        ${isSplit && rows.length === 0 && html`<p class="nothing list-empty" role="status">${isEmpty && place.filter ? "No request matches." : "No requests."} ${place.filter && html`<button type="button" class="link" onClick=${() => move({ filter: "" })}>Clear the filter</button>`}</p>`}
        ${isSplit
          ? html`<${RequestList} rows=${rows} more=${list.more && !onlyVerdict} selected=${place.request} base=${base} verdicts=${verdicts} onSelect=${select} onMore=${loadMore} />`
          : pane}
      </section>
      ${isSplit &&
      html`<section class="detail-pane" aria-label="Request">
        ${base && html`<${Comparison} before=${compared} after=${shown} rows=${list.rows} setBase=${setBase} onFailure=${failed} />`}
        ${!base &&
        (shown.request
          ? html`<${Detail}
              key=${shown.request.id}
              request=${shown.request}
              actions=${actions}
              replayLabel=${replayLabel}
              kind=${server.kind}
              download=${(id) => api.body(id)}
              onFilter=${(name, value) => move({ filter: addTerm(place.filter, term(name, value)) })}
              tab=${tab}
              setTab=${setTab}
              signature=${html`<${Signature}
                request=${shown.request}
                signing=${signing}
                setSigning=${setSigning}
                rowCount=${list.more ? null : Math.min(list.rows.length, MAX_CHECKED)}
                checkAll=${checkAll}
                progress=${progress}
                summary=${verdicts.size > 0 && html`<${Verdicts} verdicts=${verdicts} shown=${onlyVerdict} onShow=${(verdict) => (setOnlyVerdict(verdict), isNarrow() && select(""))} />`}
              />`}
            />`
          : html`<${NoDetail} error=${shown.error} isLoading=${place.request !== ""} />`)}
      </section>`}
    </main>
    <div class="toasts" role="status">${toast && html`<p class="toast ${toast.kind}">${toast.text}</p>`}</div>
    ${dialog === "steps" &&
    html`<${Dialog} title="Commands to copy" class="wide" onClose=${() => end("steps")}>
      <${FirstSteps} url=${url} secret=${api.secret} info=${info} kind=${server.kind} />
    <//>`}
    ${dialog === "help" && html`<${HelpDialog} onClose=${() => end("help")} />`}
    ${dialog === "copy" && shown.request && html`<${Lazy} name="CopyDialog" onFailure=${failed} request=${shown.request} url=${url} onClose=${() => end("copy")} />`}
    ${dialog === "edit" &&
    shown.request &&
    html`<${Lazy} name="EditDialog" onFailure=${failed} request=${shown.request} secret=${signing.secret} onSend=${(changes) => replay(changes).then(() => setDialog(null))} onClose=${() => end("edit")} />`}
    ${dialog === "remove" && shown.request && html`<${Confirm} title="Delete this request?" text="It is taken out of the history. Nothing is undone that it did." action="Delete" onConfirm=${() => (setDialog(null), remove())} onClose=${() => end("remove")} />`}
    ${dialog === "clear" && html`<${Confirm} title="Delete all requests?" text="The history of this URL becomes empty. The URL stays." action="Delete all" onConfirm=${clear} onClose=${() => end("clear")} />`}
  </div>`;
}

/** The request `id` of the relay as {request, error, refetch}; nothing for "". */
function useRequest(api, id) {
  const [found, setFound] = useState({ request: null, error: null });
  const timer = useRef(null);
  const current = useRef(id);
  current.current = id;
  const load = async () => {
    const wanted = current.current;
    if (!wanted) return;
    try {
      const request = await api.request(wanted);
      if (current.current === wanted) setFound({ request, error: null });
    } catch (failure) {
      const error = failure.status === 404 ? "This request is no longer kept." : failure.message;
      if (current.current === wanted) setFound({ request: null, error });
    }
  };
  useEffect(() => {
    setFound({ request: null, error: null });
    load();
    return () => clearTimeout(timer.current);
  }, [api, id]);
  const refetch = () => {
    clearTimeout(timer.current);
    timer.current = setTimeout(load, REFETCH_MS);
  };
  return { ...found, refetch };
}

function Comparison({ before, after, rows, setBase, onFailure }) {
  const error = before.error ?? after.error;
  const name = (row) => `${formatTime(row.received_at)} ${row.method} ${visible(row.path || "/")}`;
  const isSame = before.request && before.request.id === after.request?.id;
  return html`<article class="detail" aria-label="Comparison">
    <header class="detail-head">
      <div class="title"><h2>Compare</h2></div>
      <div class="compared">
        <label class="field">
          <span>Before</span>
          <select value=${before.request?.id ?? ""} onChange=${(event) => setBase(event.currentTarget.value)}>
            ${before.request && !rows.slice(0, 200).some((row) => row.id === before.request.id) && html`<option value=${before.request.id}>${name(before.request)}</option>`}
            ${rows.slice(0, 200).map((row) => html`<option key=${row.id} value=${row.id}>${name(row)}</option>`)}
          </select>
        </label>
        <p class="field"><span>After</span><span class="after-name">${after.request && name(after.request)}</span></p>
        <button type="button" class="button" onClick=${() => setBase(null)}>End</button>
      </div>
      <p class="muted hint">Select another request in the list, or with j and k, to compare that one.</p>
    </header>
    <div class="panel">
      ${error && html`<${Notice} kind="warning">${error}<//>`}
      ${isSame && html`<${Notice}>This is the same request. Select another one.<//>`}
      ${!isSame && before.request && after.request && html`<${Lazy} name="Diff" onFailure=${onFailure} before=${before.request} after=${after.request} />`}
    </div>
  </article>`;
}

function Confirm({ title, text, action, onConfirm, onClose }) {
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <p>${text}</p>
    <footer>
      <button type="button" class="button" onClick=${onClose}>Cancel</button>
      <button type="button" class="button danger" onClick=${onConfirm}>${action}</button>
    </footer>
  <//>`;
}

function Loading({ error, state, retry }) {
  if (error?.status === 400) return html`<div class="state placeholder"><p class="muted">? shows what a filter can say.</p></div>`;
  if (!error) return html`<div class="state placeholder"><p class="muted">Loading …</p></div>`;
  return html`<${State} title=${error.status === 0 ? "The relay does not answer" : "The relay refused"}>
    <p>${error.status === 0 ? "It may be restarting, or your network is off." : error.message}</p>
    ${state === "reconnecting" && html`<p class="muted">It is tried again every few seconds.</p><button type="button" class="button" onClick=${retry}>Try now</button>`}
  <//>`;
}

function Unavailable({ isOff, onLeave }) {
  return html`<${State} title=${isOff ? "This URL keeps no history" : "This URL has expired or was deleted"}>
    ${isOff
      ? html`<p>Requests to it are passed on, and not kept. A URL that is made here, or by <code>POST /v1/new</code> with <code>{"inspect": true}</code>, keeps them.</p>`
      : html`<p>What it received is no longer kept.</p>`}
    <button type="button" class="button primary" onClick=${onLeave}>${isOff ? "Make a URL with history" : "Make a new URL"}</button>
  <//>`;
}
