// Schedules: what is rebuilt by the clock, when next, and what came of the last time.

import {
  Age, api, Badge, Check, clean, Empty, Facts, html, Loaded, onEvent, PageHead, Panel, Stamp, State,
  Text, useEffect, useLoad, useState,
} from "../parts.js";
import { Action } from "./action.js";
import { Names } from "./changes.js";
import { Problems } from "./problems.js";

export function SchedulesView({ state, me }) {
  const problems = state.problems.filter((each) => each.code === "schedule_overdue");
  const load = useLoad((signal) => api.get("schedules", { signal }), [problems.map((each) => each.what).join()]);
  useEffect(() => onEvent("rebuild", load.reload), []);
  return html`
    <${PageHead} title="Schedules" lead="What is rebuilt by the clock. An operator (indexrelay operator) starts each at its time." />
    ${problems.length > 0 && html`<${Panel} title="What is wrong" flush><${Problems} problems=${problems} here /><//>`}
    <${Loaded} load=${load}>
      ${({ schedules }) =>
        schedules.length
          ? schedules.map((each) => html`<${Schedule} key=${each.name} me=${me} rebuilders=${state.rebuilders.length} schedule=${each} onDone=${load.reload} />`)
          : html`<${Empty} title="No schedule is declared" hint="A schedule is a table [schedules.NAME] of the settings, with a cron line. Without one, batches and people alone start rebuilds." icon="calendar" />`}
    <//>
  `;
}

function standing({ watched, overdue_since: overdue }) {
  if (overdue) return html`<${State} value="overdue" />`;
  if (watched) return html`<${Badge} tone="ok" icon="check">On time<//>`;
  return html`<${Badge} tone="warn" icon="warn" title="no operator has looked at it as it is declared">Not watched<//>`;
}

function Schedule({ me, rebuilders, schedule, onDone }) {
  const { name, cron, timezone, components, next, overdue_since: overdue, left_alone: leftAlone, missed } = schedule;
  const [first, ...later] = next;
  const alone = Object.entries(leftAlone);
  return html`<${Panel}
    title=${html`<${Text} value=${name} limit=${80} /> ${standing(schedule)}`}
    actions=${html`<${RunNow} me=${me} rebuilders=${rebuilders} schedule=${schedule} onDone=${onDone} />`}
  >
    <${Facts}
      items=${[
        { label: "When", value: html`<code><${Text} value=${cron} limit=${80} /></code>`, hint: clean(timezone, 60) },
        { label: "Rebuilds", value: components.length ? html`<${Names} names=${components} />` : "whatever is due" },
        overdue && { label: "Should have started", value: html`<${Age} at=${overdue} />`, hint: html`<${Stamp} at=${overdue} />` },
        first && {
          label: "Next start",
          value: html`<${Age} at=${first.start} />`,
          hint: html`<${Stamp} at=${first.start} />${first.start !== first.slot && html`, moved from <${Stamp} at=${first.slot} />`}`,
        },
        later.length > 0 && {
          label: "After that",
          value: html`<ul class="bare-list">
            ${later.slice(0, 3).map((each) => html`<li key=${each.slot}><${Stamp} at=${each.start} /></li>`)}
          </ul>`,
        },
        { label: "Last time", value: lastOf(schedule), hint: schedule.message && html`<${Text} value=${schedule.message} limit=${240} />` },
        missed && { label: "Missed, and not made up for", value: html`<${Stamp} at=${missed} />` },
      ]}
    />
    ${alone.length > 0 &&
    html`<ul class="sentences">
      ${alone.map(([component, why]) => html`<li key=${component}><${Names} names=${[component]} /> is left alone: <${Text} value=${why} /></li>`)}
    </ul>`}
  <//>`;
}

function lastOf({ slot, fired_at: fired, outcome }) {
  if (!slot) return "it has not run yet";
  return html`<${Age} at=${fired ?? slot} /> ${outcome ? html`<${State} value=${outcome} />` : html`<span class="note">its result is not known any more</span>`}`;
}

function RunNow({ me, rebuilders, schedule, onDone }) {
  const [force, setForce] = useState(false);
  const { name, components } = schedule;
  return html`<${Action}
    me=${me}
    label="Run now"
    about=${clean(name, 80)}
    title=${`Run ${clean(name, 80)} now?`}
    what=${[
      components.length ? html`A rebuild of <${Names} names=${components} /> is asked for at once.` : "A rebuild of whatever is due is asked for at once.",
      "Its next start stays as it is. Searches go on meanwhile.",
      ...(rebuilders ? [] : ["No rebuilder runs: the request waits until one is started."]),
    ]}
    verb="Run now"
    path=${`schedules/${encodeURIComponent(name)}/run`}
    body=${() => ({ force })}
    done=${({ left_alone: alone }) => `A rebuild was asked for.${Object.keys(alone).length ? ` Left alone: ${Object.keys(alone).join(", ")}.` : ""}`}
    onDone=${onDone}
  >
    <${Check} label="Also what is left alone" hint="What is paused or failed too often, and also if more entries went than max_shrink allows." checked=${force} onChange=${setForce} />
  <//>`;
}
