// The keys of the page. They are off while something is typed and while a dialog is open.

export const KEYS = [
  ["j", "next request"],
  ["k", "previous request"],
  ["r", "replay"],
  ["e", "edit and replay"],
  ["c", "copy as curl, HTTPie, Python, pytest"],
  ["d", "compare with another request"],
  ["/", "filter"],
  ["Esc", "end the comparison, close the request"],
  ["?", "this help"],
];

/** Call `actions[key]` for keys that are pressed anywhere but in a field. Returns what ends that. */
export function listenToKeys(actions) {
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest?.("input, textarea, select, dialog[open]") || document.querySelector("dialog[open]")) return;
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  };
  document.addEventListener("keydown", onKey);
  return () => document.removeEventListener("keydown", onKey);
}
