// Notifications of new requests, for those who ask for them, and a count in the title while the page is not seen.

import { useEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.js";

const KEY = "socket2me.notify";
const TITLE = "socket2me inspector";

export function useNotifications() {
  const isPossible = "Notification" in globalThis && globalThis.isSecureContext;
  const [isOn, setOn] = useState(isPossible && localStorage.getItem(KEY) === "on" && Notification.permission === "granted");
  const unseen = useRef(0);

  useEffect(() => {
    const onSeen = () => {
      if (document.hidden) return;
      unseen.current = 0;
      document.title = TITLE;
    };
    document.addEventListener("visibilitychange", onSeen);
    return () => document.removeEventListener("visibilitychange", onSeen);
  }, []);

  const toggle = async () => {
    const wanted = !isOn && (await Notification.requestPermission()) === "granted";
    localStorage.setItem(KEY, wanted ? "on" : "off");
    setOn(wanted);
  };
  const onEvents = (events) => {
    const fresh = events.filter(([event]) => event === "request");
    if (!document.hidden || !fresh.length) return;
    unseen.current += fresh.length;
    document.title = `(${unseen.current}) ${TITLE}`;
    if (!isOn) return;
    const [, { method, path }] = fresh.at(-1);
    // One notification that is replaced: a burst of requests is no burst of notifications.
    new Notification(`${method} ${path || "/"}`, { body: `${unseen.current} new`, tag: "socket2me" });
  };
  return { isPossible, isOn, toggle, onEvents };
}
