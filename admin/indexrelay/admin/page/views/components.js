// Components: whether each is current, and what it holds. The page of one is component.js.
//
// What needs somebody comes first; within that the order is that of the names, so that nothing moves
// while it is read.

import {
  Age, bytes, Clip, Empty, html, millis, number, PageHead, percent, Table, Text, useMemo, useState,
} from "../parts.js";
import { Action } from "./action.js";
import { ComponentPage } from "./component.js";
import { Building, ComponentLink, Condition, Covers, isCalm, kindOf } from "./condition.js";

const NARROWED = [
  { key: "all", title: "All", keeps: () => true },
  { key: "attention", title: "Need attention", keeps: (each) => !isCalm(each) },
  { key: "building", title: "Building", keeps: (each) => each.building },
  { key: "held", title: "Held", keeps: (each) => each.held },
  { key: "paused", title: "Paused", keeps: (each) => each.paused },
];

// Kinds without it have an empty cell, which is left out where a row is a card.
const isKnown = (value) => typeof value === "number";

const COLUMNS = [
  {
    key: "name",
    title: "Component",
    sort: (each) => each.name,
    cell: (each) => html`
      <${ComponentLink} name=${each.name} />
      <small><${Text} value=${each.group ? `${kindOf(each.kind)}, group ${each.group}` : kindOf(each.kind)} limit=${80} /></small>
    `,
  },
  {
    key: "condition",
    title: "Condition",
    wide: true,
    sort: (each) => (isCalm(each) ? `1 ${each.condition}` : `0 ${each.condition}`),
    cell: (each) => html`
      <${Condition} component=${each} />
      ${each.building && html`<${Building} building=${each.building} />`}
      ${whyOf(each) && html`<p class="why"><${Clip} value=${whyOf(each)} /></p>`}
    `,
  },
  { key: "covers", title: "Covers", cell: (each) => html`<${Covers} collections=${each.collections} />` },
  { key: "entries", title: "Entries", align: "end", sort: (each) => each.entries, cell: (each) => html`${number(each.entries)}<small>${bytes(each.bytes)}</small>` },
  {
    key: "tombstones_ratio",
    title: "Tombstones",
    align: "end",
    sort: (each) => each.tombstones_ratio,
    cell: (each) => isKnown(each.tombstones_ratio) && percent(each.tombstones_ratio),
  },
  { key: "recall", title: "Recall", align: "end", sort: (each) => each.recall, cell: (each) => isKnown(each.recall) && number(each.recall, 3) },
  {
    key: "latency_p50_ms",
    title: "Latency",
    align: "end",
    sort: (each) => each.latency_p50_ms,
    cell: (each) =>
      isKnown(each.latency_p50_ms) &&
      html`${millis(each.latency_p50_ms)}${isKnown(each.latency_p99_ms) && html`<small>p99 ${millis(each.latency_p99_ms)}</small>`}`,
  },
  {
    key: "last_rebuild_at",
    title: "Built",
    sort: (each) => each.last_rebuild_at,
    cell: (each) => each.last_rebuild_at && html`<${Age} at=${each.last_rebuild_at} />`,
  },
];

function whyOf(component) {
  return component.error || (isCalm(component) ? null : component.sentence);
}

export function ComponentsView({ state, me, route }) {
  const [name, ...rest] = route.path;
  if (name) return html`<${ComponentPage} key=${name} state=${state} me=${me} name=${name} rest=${rest} />`;
  return html`<${ComponentList} me=${me} components=${state.components} />`;
}

function ComponentList({ me, components }) {
  const [narrowed, narrow] = useState("all");
  const rows = useMemo(() => {
    const { keeps } = NARROWED.find((each) => each.key === narrowed);
    return components.filter(keeps).sort((a, b) => isCalm(a) - isCalm(b) || (a.name < b.name ? -1 : 1));
  }, [components, narrowed]);
  const calm = components.filter(isCalm).length;
  const held = components.filter((each) => each.held);
  return html`
    <${PageHead}
      title="Components"
      actions=${held.length > 1 && html`<${LiftAll} me=${me} held=${held} />`}
      lead=${components.length > 0 &&
      (calm === components.length ? `All ${number(calm)} are as they should be.` : `${number(components.length - calm)} of ${number(components.length)} need attention.`)}
    />
    ${components.length > 0 &&
    html`<div class="chips" role="group" aria-label="Which components">
      ${NARROWED.map(
        ({ key, title, keeps }) => html`<button
          key=${key}
          type="button"
          class="chip"
          aria-pressed=${key === narrowed ? "true" : "false"}
          onClick=${() => narrow(key)}
        >
          ${title} <span class="count">${number(components.filter(keeps).length)}</span>
        </button>`,
      )}
    </div>`}
    <${Table}
      caption="Components"
      columns=${COLUMNS}
      rows=${rows}
      rowKey=${(each) => each.name}
      filter=${(each) => `${each.name} ${each.kind} ${each.group ?? ""}`}
      empty=${components.length > 0
        ? html`<${Empty} title="No component is like this" icon="check" />`
        : html`<${Empty}
            title="No component is declared"
            hint="A component is a table [components.NAME] of the settings: a vector index, a text index, a map. Nothing is built or served before there is one."
            icon="cube"
          />`}
    />
  `;
}

/** After a rollback of everything the way forward is one step, too. */
function LiftAll({ me, held }) {
  const names = held.map((each) => each.name);
  const refused = held.filter((each) => each.held.automatic).map((each) => each.name);
  const listed = (some) => html`<${Text} value=${some.join(", ")} limit=${400} />`;
  return html`<${Action}
    me=${me}
    label=${`Lift ${number(names.length)} holds`}
    title=${`Lift ${number(names.length)} holds?`}
    what=${[
      html`One release is made that holds these no longer: ${listed(names)}.`,
      "Each is rebuilt if it is due, and replaces what is served once it has passed its gates.",
      refused.length > 0 && html`Readers refused what came after of ${listed(refused)}: lift these only once the cause is mended.`,
    ].filter(Boolean)}
    verb="Lift"
    path="lift"
    body=${() => ({ components: names })}
    done=${({ lifted }) => `${number(lifted.length)} follow their sources again.`}
  />`;
}
