// Alerts: what has not been as it should be for long enough, since when, and what to do.

import {
  Age, api, clean, duration, Empty, html, Loaded, PageHead, Panel, State, Table, Text, useLoad,
  useMemo,
} from "../parts.js";
import { ComponentLink } from "./condition.js";

const RULES = [
  { key: "name", title: "Rule", sort: (each) => each.name, cell: (each) => html`<${Text} value=${each.name} limit=${80} />` },
  { key: "severity", title: "Severity", sort: (each) => each.severity, cell: (each) => html`<${State} value=${each.severity} />` },
  { key: "for_seconds", title: "Fires after", align: "end", sort: (each) => each.for_seconds, cell: (each) => duration(each.for_seconds) },
  { key: "expression", title: "Holds where", wide: true, cell: (each) => html`<${Text} value=${each.expression} limit=${400} mono />` },
];

const COLUMNS = [
  { key: "name", title: "Alert", sort: (each) => each.name, cell: (each) => html`<${Text} value=${each.name} limit=${80} />` },
  { key: "state", title: "State", sort: (each) => each.state, cell: (each) => html`<${State} value=${each.state} /> <${State} value=${each.severity} />` },
  { key: "since", title: "Since", sort: (each) => each.since, cell: (each) => html`${each.at_least && "at least "}<${Age} at=${each.since} />` },
  {
    key: "sentence",
    title: "What, and what to do",
    wide: true,
    cell: (each) => html`<p><${Text} value=${each.sentence} limit=${600} /></p><p class="advice"><${Text} value=${each.advice} limit=${600} /></p>`,
  },
  { key: "labels", title: "About", cell: aboutOf },
];

/** What it is about; a component is a link to its page. */
function aboutOf({ labels }) {
  const { component, severity, namespace, ...others } = labels;
  const pairs = Object.entries(others);
  if (!component && !pairs.length) return null;
  return html`<ul class="bare-list">
    ${component && html`<li><${ComponentLink} name=${component} /></li>`}
    ${pairs.map(([label, value]) => html`<li key=${label}><span class="note">${clean(label, 40)}</span> <${Text} value=${value} limit=${80} /></li>`)}
  </ul>`;
}

export function AlertsView({ state }) {
  // The state says when an alert comes or goes; pending ones, and what to do, are asked for.
  const load = useLoad((signal) => api.get("alerts", { signal }), [state.alerts, state.problems]);
  const [firing, pending] = useMemo(() => {
    const all = load.data?.alerts ?? [];
    return [all.filter((each) => each.state === "firing"), all.filter((each) => each.state !== "firing")];
  }, [load.data]);
  return html`
    <${PageHead} title="Alerts" lead="What has not been as it should be for long enough. The same rules are there for Prometheus." />
    <${Loaded} load=${load}>
      ${(found) => html`
        <${Panel} title="Firing" flush note=${found.looked_at && html`As of the look <${Age} at=${found.looked_at} />.`}>
          <${Table} caption="Alerts that fire" columns=${COLUMNS} rows=${firing} rowKey=${keyOf} empty=${html`<${Empty} title="No alert fires" icon="check" />`} />
        <//>
        ${pending.length > 0 &&
        html`<${Panel} title="Pending" flush note="They hold, and fire if they go on to.">
          <${Table} caption="Alerts that are pending" columns=${COLUMNS} rows=${pending} rowKey=${keyOf} />
        <//>`}
        <${Panel} title="Rules" flush note="Their limits stand in [alerts] of the settings.">
          <${Table} caption="Rules of alerts" columns=${RULES} rows=${found.rules} rowKey=${(each) => each.name} />
        <//>
      `}
    <//>
  `;
}

function keyOf({ name, labels }) {
  return `${name} ${JSON.stringify(labels)}`;
}
