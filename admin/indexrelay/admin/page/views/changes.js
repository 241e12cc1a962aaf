// What two releases have different, or what a rollback would change: component by component.

import { Age, Badge, bytes, clean, html, Id, none, number, Table, Text, useMemo } from "../parts.js";
import { ComponentLink } from "./condition.js";

const SIGNS = { added: ["ok", "+ Added"], removed: ["bad", "− Removed"], changed: ["info", "~ Changed"] };

const COLUMNS = [
  { key: "name", title: "Component", sort: (each) => each.name, cell: (each) => html`<${ComponentLink} name=${each.name} />` },
  {
    key: "change",
    title: "Change",
    cell: ({ change, redefined, back }) => html`<${Badge} tone=${SIGNS[change]?.[0]}>${SIGNS[change]?.[1] ?? clean(change, 40)}<//>
      ${redefined && html`<small>other settings</small>`}${back && html`<small>an earlier version</small>`}`,
  },
  {
    key: "entries",
    title: "Entries",
    align: "end",
    cell: ({ before, after }) => html`${moved(before?.entries, after?.entries, number)}<small>${moved(before?.bytes, after?.bytes, bytes)}</small>`,
  },
  { key: "covers", title: "Covers", cell: ({ before, after }) => html`<${CoversMoved} before=${before?.covers ?? {}} after=${after?.covers ?? {}} />` },
  {
    key: "version",
    title: "Version",
    cell: ({ before, after }) => html`<span>${before && html`<${Id} value=${before.version} />`}${before && after && " → "}${after && html`<${Id} value=${after.version} />`}</span>
      ${after?.built_at && html`<small>built <${Age} at=${after.built_at} /></small>`}`,
  },
];

function moved(from, to, shown) {
  if (typeof from !== "number" || typeof to !== "number" || from === to) return shown(to ?? from);
  return `${shown(from)} → ${shown(to)}`;
}

/** For each collection from which generation to which; the way back is said in words. */
function CoversMoved({ before, after }) {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  if (!names.length) return none;
  return html`<ul class="bare-list">
    ${names.map((name) => {
      const [from, to] = [before[name], after[name]];
      return html`<li key=${name}>
        <${Text} value=${name} limit=${60} /> <span class="figure">${moved(from, to, number)}</span>
        ${from > to && html` <span class="away">${number(from - to)} back</span>`}
      </li>`;
    })}
  </ul>`;
}

/** Names of components, each a link. */
export function Names({ names }) {
  return names.map((name, place) => html`<span key=${name}>${place > 0 && ", "}<${ComponentLink} name=${name} /></span>`);
}

/** @param changes {before, after, components, same, held, lifted, regrouped}; `holds`: whether those that came are named. */
export function Changes({ changes, holds = true }) {
  const rows = useMemo(() => Object.entries(changes.components ?? {}).map(([name, each]) => ({ name, ...each })), [changes]);
  const held = holds ? Object.entries(changes.held ?? {}) : [];
  const regrouped = Object.entries(changes.regrouped ?? {});
  const { lifted = [], same = [] } = changes;
  return html`
    ${rows.length > 0 && html`<${Table} caption="What is different, by component" columns=${COLUMNS} rows=${rows} rowKey=${(each) => each.name} />`}
    ${rows.length + held.length + lifted.length + regrouped.length === 0 && html`<p>Nothing is different.</p>`}
    <ul class="sentences">
      ${held.map(([name, hold]) => html`<li key=${name}><${Text} value=${name} limit=${60} /> is held${hold?.reason && html`: <${Text} value=${hold.reason} />`}</li>`)}
      ${lifted.length > 0 && html`<li>No longer held: <${Names} names=${lifted} /></li>`}
      ${regrouped.map(([name, [from, to]]) => html`<li key=${name}><${Text} value=${name} limit=${60} />: group <${Text} value=${from ?? "none"} limit=${60} /> → <${Text} value=${to ?? "none"} limit=${60} /></li>`)}
      ${same.length > 0 && html`<li class="note">Unchanged: <${Names} names=${same} /></li>`}
    </ul>
  `;
}
