// Names and values in two columns: headers, query, form.

import { html } from "../vendor/htm-preact-3.1.1.js";
import { visible } from "../format.js";
import { Icon } from "../parts.js";

/** `onFilter(name, value)`, if it is given, shows only requests with the same. */
export function Pairs({ pairs, label, onFilter }) {
  if (!pairs.length) return html`<p class="nothing">None.</p>`;
  return html`<table class="pairs" aria-label=${label}>
    <tbody>
      ${pairs.map(
        ([name, value], i) => html`<tr key=${i}>
          <th scope="row">${visible(name)}</th>
          <td>
            <span>${visible(value)}</span>
            ${onFilter &&
            html`<button
              type="button"
              class="button quiet icon-only"
              aria-label="Show only requests with this ${visible(name)}"
              title="Show only requests with the same"
              onClick=${() => onFilter(name, value)}
            >
              <${Icon} name="filter" />
            </button>`}
          </td>
        </tr>`,
      )}
    </tbody>
  </table>`;
}
