// The list of a token as it is now: the newest page, the stream, older pages when they are scrolled to.

import { useCallback, useEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { addEvents, addPage, EMPTY } from "./requests.js";
import { follow } from "./stream.js";

const FIRST_PAGE = 100;
const NEXT_PAGE = 500;

/**
 * Returns {list, setList, state, error, loadMore, loadUpTo, retry}. `state` is "connecting", "live", "reconnecting" or "ended"; `error`
 * is that of the last call that failed, or null. `onEvents(events)` is called with what arrives, a frame at a time.
 */
export function useLive(api, filter, onEvents) {
  const [list, setList] = useState(EMPTY);
  const [state, setState] = useState("connecting");
  const [error, setError] = useState(null);
  const stream = useRef(null);
  const loading = useRef(null);
  const isFresh = useRef(false); // whether the list is that of the filter
  const listener = useRef(onEvents);
  listener.current = onEvents;

  useEffect(() => {
    const controller = new AbortController();
    const { signal } = controller;
    let waiting = []; // events of this frame
    let early = null; // requests that arrive while the newest page is asked for
    let frame = null;
    let isLoaded = false;
    // The rows of the filter before stay until those of this one are there.
    setError(null);
    loading.current = null;
    isFresh.current = false;

    const flush = () => {
      frame = null;
      const events = waiting;
      waiting = [];
      setList((now) => addEvents(now, events));
      listener.current(events);
    };
    const load = async () => {
      const mine = (early = []);
      try {
        const page = await api.list({ limit: FIRST_PAGE, filter, signal });
        if (signal.aborted || early !== mine) return;
        const arrived = mine;
        early = null;
        isLoaded = isFresh.current = true;
        setError(null);
        setList(() => addEvents(addPage(EMPTY, page), arrived));
      } catch (failure) {
        if (failure.name === "AbortError" || early !== mine) return;
        early = null;
        setError(failure);
      }
    };
    stream.current = follow(api, filter, {
      onState: (now) => {
        setState(now);
        if (now === "reconnecting" && !isLoaded) load();
      },
      onOpen: (resumed) => resumed || load(),
      onEvent: (event, data) => {
        if (event === "reset") load();
        if (event !== "request" && event !== "update") return;
        early?.push([event, data]);
        waiting.push([event, data]);
        // Frames stand still in a tab that is not seen; notifications do not.
        frame ??= document.hidden ? setTimeout(flush, 250) : requestAnimationFrame(flush);
      },
      onEnd: (failure) => {
        setState("ended");
        setError(failure);
      },
    });
    return () => {
      controller.abort();
      stream.current.stop();
      cancelAnimationFrame(frame);
      clearTimeout(frame);
    };
  }, [api, filter]);

  const loadMore = useCallback(async () => {
    const before = list.rows.at(-1)?.id;
    if (!before || !isFresh.current || loading.current === before) return;
    loading.current = before;
    try {
      const page = await api.list({ limit: NEXT_PAGE, filter, before });
      if (loading.current === before) setList((now) => addPage(now, page));
    } catch (failure) {
      // The last row is no longer kept, and so none before it.
      if (failure.status === 404) setList((now) => ({ ...now, more: false }));
      else setError(failure);
    } finally {
      if (loading.current === before) loading.current = null;
    }
  }, [api, filter, list]);

  /** Load older pages until the list has `count` rows, or all. Returns the rows. */
  const loadUpTo = async (count) => {
    let now = list;
    while (now.more && now.rows.length < count) {
      const page = await api.list({ limit: NEXT_PAGE, filter, before: now.rows.at(-1).id });
      now = addPage(now, page);
      setList((shown) => addPage(shown, page));
    }
    return now.rows;
  };

  return { list, setList, state, error, loadMore, loadUpTo, retry: () => stream.current?.retry() };
}
