// One thing that a person may have done: its button, the dialog that says what it will do, and how it
// ended.
//
// Nothing is sent before the dialog was confirmed. A viewer sees the button and why it does not work:
// it keeps its place in the order of Tab, so that the reason can be read there.

import { api, Button, canOperate, Confirm, html, toast, useState } from "../parts.js";

export const FOR_OPERATORS = "only an operator may do this";

/**
 * @param {string} label what the button says; `about` what it is about, for who hears it alone.
 * @param {string | null} blocked why it cannot be done now.
 * @param {boolean} danger whether what it does cannot simply be undone; `small`: in a row of a table.
 * @param {(why: string | null) => object} body what is posted to `path`.
 * @param {string | ((answer) => string)} done what is said when it is done.
 * The others are those of `Confirm`.
 */
export function Action({ me, label, about, blocked, danger = false, small = false, icon, path, body, done, onDone, ...asked }) {
  const [open, setOpen] = useState(false);
  const why = canOperate(me) ? blocked : FOR_OPERATORS;
  const act = async (reason) => {
    const answer = await api.post(path, body ? body(reason) : {});
    toast(typeof done === "function" ? done(answer) : done);
    onDone?.(answer);
  };
  return html`
    <${Button}
      tone=${small ? "plain small" : "plain"}
      icon=${icon}
      title=${why || undefined}
      aria-disabled=${why ? "true" : null}
      aria-haspopup="dialog"
      onClick=${() => why || setOpen(true)}
    >
      ${label}${about && html`<span class="unseen"> ${about}</span>`}${why && html`<span class="unseen"> (${why})</span>`}
    <//>
    ${open && html`<${Confirm} danger=${danger} ...${asked} onConfirm=${act} onClose=${() => setOpen(false)} />`}
  `;
}
