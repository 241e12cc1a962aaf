// How one component is: its condition and what stands beside it, how far its build is, what it covers.

import { Badge, clean, duration, html, link, number, percent, Progress, State, Text } from "../parts.js";

const MEANINGS = {
  deferred: "behind on purpose, until its time comes",
  behind: "newer entries wait to be built",
  changed: "declared differently than it was built",
  missing: "declared, and never built",
  undeclared: "released, and not in the settings",
  failed: "its last build failed; the last good version serves",
  corrupt: "its files are damaged",
  outrun: "it covers more than is committed",
};

/** Whether nobody has to look at it. */
export function isCalm(component) {
  return component.condition === "current" || component.condition === "deferred";
}

/** Its condition, and beside it what a person decided and what is going on. */
export function Condition({ component }) {
  const { condition, held, paused, improving } = component;
  return html`<span class="badges">
    <${State} value=${condition} title=${MEANINGS[condition]} />
    ${held && html`<${State} value="held" title="nothing replaces what is served" />`}
    ${paused && html`<${State} value="paused" title="it is not built" />`}
    ${improving && html`<${State} value="improving" title="a better version is built behind it" />`}
  </span>`;
}

/** The name of a component, as a link to its page. */
export function ComponentLink({ name }) {
  return html`<a href=${link("components", name)}><${Text} value=${name} limit=${80} /></a>`;
}

/** What the gates of a version said: how many checks it was let through without; `null`: unknown. */
export function Checked({ below }) {
  if (below === null) return html`<${Badge} tone="bad" icon="bad">Cannot be read<//>`;
  if (below > 0) return html`<${Badge} tone="warn" icon="warn">${number(below)} let through<//>`;
  return html`<${Badge} tone="ok" icon="check">Passed<//>`;
}

/** How far a build is: the step, the share where it is known, and for how long. */
export function Building({ building }) {
  const known = typeof building.share === "number";
  const took = building.elapsed_seconds;
  return html`<span class="building">
    <${Progress} share=${building.share} label="Progress of the build" />
    <span class="figure">
      ${clean(building.step || "building", 60)}${known && ` ${percent(building.share)}`}${typeof took === "number" && `, ${duration(took)}`}
    </span>
  </span>`;
}

/** For each collection the generation that is covered, and by how much it is behind. */
export function Covers({ collections }) {
  const names = Object.keys(collections ?? {});
  if (!names.length) return html`<span class="note">nothing yet</span>`;
  return html`<ul class="bare-list">
    ${names.map((name) => {
      const { covers, current } = collections[name];
      const behind = (current ?? 0) - (covers ?? 0);
      return html`<li key=${name}>
        <${Text} value=${name} limit=${80} /> <span class="figure">${covers ? number(covers) : "nothing yet"}</span>
        ${behind > 0 && covers > 0 && html` <span class="away" title=${`of ${number(current)}`}>${number(behind)} behind</span>`}
        ${behind < 0 && html` <span class="away">${number(-behind)} too many</span>`}
      </li>`;
    })}
  </ul>`;
}

/** `package.module:Kind` is shown as `Kind`; a kind of ours as it is. */
export function kindOf(kind) {
  return String(kind ?? "unknown").split(":").pop();
}
