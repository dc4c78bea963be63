// Parts of the page that are loaded when they are first used, so that the list is there sooner.

import { html, useEffect, useState } from "./vendor/htm-preact-3.1.1.js";

const loaders = {
  CopyDialog: () => import("./copy-dialog.js"),
  Diff: () => import("./views/diff.js"),
  EditDialog: () => import("./edit-dialog.js"),
};
const loaded = {};

/** The part `name` with the other properties. `onFailure(error)` is called if the relay does not answer. */
export function Lazy({ name, onFailure, ...properties }) {
  const [, refresh] = useState(0);
  useEffect(() => {
    if (loaded[name]) return;
    loaders[name]().then(
      (module) => {
        loaded[name] = module[name];
        refresh(1);
      },
      () => onFailure(new Error("The relay does not answer.")),
    );
  }, [name]);
  return loaded[name] ? html`<${loaded[name]} ...${properties} />` : null;
}
