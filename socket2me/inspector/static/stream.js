// The live stream: server-sent events as the HTML standard has them, but from a fetch, since `EventSource` sends no Bearer.

import { errorOf } from "./api.js";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

// The relay sends something at least every 25 s.
const SILENCE_MS = 60_000;

/** A parser of server-sent events: `push` takes text in any pieces and calls `onEvent({event, id, data})`. */
export function eventParser(onEvent) {
  let rest = "";
  let event = "";
  let data = [];
  let id = "";
  const take = (line) => {
    if (line === "") {
      if (data.length) onEvent({ event: event || "message", id, data: data.join("\n") });
      event = "";
      data = [];
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") event = value;
    else if (field === "data") data.push(value);
    else if (field === "id" && !value.includes("\0")) id = value;
  };
  return (text) => {
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    lines.forEach(take);
  };
}

/**
 * Follow the stream of `api` until `stop()` is called on what this returns. Calls
 * - `onState("connecting" | "live" | "reconnecting")`,
 * - `onOpen(resumed)` when it is connected; without `resumed`, earlier requests have to be asked for,
 * - `onEvent(event, data)` for `request`, `update` and `reset`,
 * - `onEnd(error)` when the relay refuses for good: a wrong secret, or a token that has expired.
 */
export function follow(api, filter, { onState, onOpen, onEvent, onEnd }, pauseMs = FIRST_PAUSE_MS) {
  let last = "";
  let stopped = false;
  let controller = null;
  let wake = null;
  let isHurried = false;
  let pause = pauseMs;

  const connect = async () => {
    controller = new AbortController();
    let silence = null;
    const listen = () => {
      clearTimeout(silence);
      silence = setTimeout(() => controller.abort(), SILENCE_MS);
    };
    try {
      listen();
      const response = await api.stream({ after: last, filter, signal: controller.signal });
      if (!response.ok) {
        const error = await errorOf(response);
        if ([400, 401, 403, 404].includes(error.status)) {
          stopped = true;
          onEnd(error);
        }
        return;
      }
      isHurried = false;
      onState("live");
      onOpen(last !== "");
      const parse = eventParser(({ event, id, data }) => {
        if (id) last = id;
        if (event === "reset") last = "";
        onEvent(event, data ? JSON.parse(data) : null);
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done || stopped) return;
        pause = pauseMs;
        listen();
        parse(value);
      }
    } catch {
      // The connection was cut, or was silent for too long: it is made again.
    } finally {
      clearTimeout(silence);
      controller.abort();
    }
  };

  const run = async () => {
    onState("connecting");
    while (!stopped) {
      await connect();
      if (stopped) return;
      onState("reconnecting");
      if (!isHurried) {
        let timer = null;
        await new Promise((resolve) => {
          wake = resolve;
          timer = setTimeout(resolve, pause * (0.5 + Math.random() / 2));
        });
        clearTimeout(timer);
      }
      isHurried = false;
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  };

  // Also while an attempt is under way: if it fails, the next follows without a pause.
  const hurry = () => {
    isHurried = true;
    wake?.();
  };
  globalThis.addEventListener?.("online", hurry);
  run();
  return {
    stop() {
      stopped = true;
      globalThis.removeEventListener?.("online", hurry);
      controller?.abort();
      wake?.();
    },
    retry: hurry,
  };
}
