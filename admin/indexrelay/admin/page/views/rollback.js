// The way back: a button, and a dialog that asks what exactly would change before anything is done.
//
// A rollback is a new release that serves what an earlier one served, and holds it. Components can be
// left out; the dialog then asks again.

import {
  api, Button, canOperate, Check, clean, Confirm, counted, ErrorNote, html, onEvent, Skeleton, toast,
  useEffect, useState,
} from "../parts.js";
import { FOR_OPERATORS } from "./action.js";
import { Changes } from "./changes.js";

const MOST_NAMED = 6;

/** @param {string[]} components those that go back; none: all that the release names. */
export function RollBack({ me, release, components = null, label, small = false }) {
  const [open, setOpen] = useState(false);
  const why = canOperate(me) ? null : FOR_OPERATORS;
  return html`
    <${Button}
      tone=${small ? "plain small" : "plain"}
      title=${why || undefined}
      aria-disabled=${why ? "true" : null}
      aria-haspopup="dialog"
      onClick=${() => why || setOpen(true)}
    >
      ${label}<span class="unseen"> ${components ? `${clean(components.join(", "), 80)} of` : "to"} release ${release}${why && ` (${why})`}</span>
    <//>
    ${open && html`<${RollBackDialog} release=${release} components=${components} onClose=${() => setOpen(false)} />`}
  `;
}

function RollBackDialog({ release, components, onClose }) {
  const [chosen, choose] = useState(components);
  const [all, setAll] = useState(null);
  const [plan, setPlan] = useState(null);
  const [error, setError] = useState(null);
  const [turn, setTurn] = useState(0);
  const path = `releases/${release}/rollback`;
  const asked = chosen ? { components: chosen } : {};

  // What would change follows from the newest release: a new one meanwhile is asked about again.
  useEffect(() => onEvent("release", () => setTurn((before) => before + 1)), []);
  useEffect(() => {
    const stopped = new AbortController();
    setError(null);
    setPlan((before) => before && { ...before, old: true });
    api.post(path, { ...asked, reason: "", dry_run: true }, { signal: stopped.signal }).then(
      (found) => {
        if (stopped.signal.aborted) return;
        setPlan(found);
        setAll((before) => before ?? Object.keys(found.components));
      },
      (raised) => stopped.signal.aborted || setError(raised),
    );
    return () => stopped.abort();
  }, [release, chosen, turn]);

  const going = chosen ?? all ?? [];
  const goes = (name) => going.includes(name) || Object.hasOwn(plan?.components ?? {}, name);
  const toggle = (name) => choose(going.includes(name) ? going.filter((each) => each !== name) : [...going, name]);
  return html`<${Confirm}
    title=${components ? `Serve ${clean(components.join(", "), 80)} as in release ${release}?` : `Roll back to release ${release}?`}
    verb=${components ? "Serve again" : "Roll back"}
    danger
    wide
    reason
    ready=${plan !== null && !plan.old}
    what=${plan && sentencesOf(plan, release)}
    onConfirm=${async (reason) => {
      // Where another release was made since, what was shown is not what would happen.
      const made = await api.post(path, { ...asked, reason, newest: plan.before, dry_run: false });
      toast(`Release ${made.release} serves again what release ${release} served.`);
    }}
    onClose=${onClose}
  >
    ${error && html`<${ErrorNote} error=${error} />`}
    ${!plan && !error && html`<${Skeleton} rows=${3} />`}
    ${!components &&
    all?.length > 1 &&
    html`<fieldset class="choices abreast">
      <legend>What goes back</legend>
      ${all.map(
        (name) => html`<${Check}
          key=${name}
          label=${clean(name, 80)}
          hint=${!going.includes(name) && goes(name) && "It goes back with its group."}
          checked=${goes(name)}
          disabled=${(going.length === 1 && going.includes(name)) || (!going.includes(name) && goes(name))}
          onChange=${() => toggle(name)}
        />`,
      )}
    </fieldset>`}
    ${plan && html`<${Changes} changes=${plan} holds=${false} />`}
  <//>`;
}

function sentencesOf(plan, release) {
  const many = Object.keys(plan.components).length;
  const held = [...Object.keys(plan.held), ...plan.stays_held];
  const named = held.length <= MOST_NAMED ? clean(held.join(", "), 400) : counted(held.length, "component");
  return [
    many
      ? `Release ${plan.after} is made. It serves ${counted(many, "component")} as release ${release} did; the table shows which.`
      : `Release ${plan.after} is made. It serves what is served now, since nothing has changed since release ${release}.`,
    held.length > 0 && `It holds ${named}: nothing newer of it is built or served until the hold is lifted.`,
    many > 0 && "Entries that were committed since stay in the catalog, and are not found until then.",
    many > 0 && plan.readers > 0 && `${counted(plan.readers, "reader loads", "readers load")} the earlier versions. Searches go on meanwhile.`,
  ].filter(Boolean);
}
