// Releases: each that is kept, what is in one, what two have different, and the way back.

import {
  Age, api, Badge, bytes, clean, Clip, Empty, Facts, html, Icon, Id, link, Loaded, number, PageHead,
  Panel, Stamp, State, Table, Text, useLoad, useMemo,
} from "../parts.js";
import { Changes, Names } from "./changes.js";
import { Checked, ComponentLink } from "./condition.js";
import { More, usePages } from "./pages.js";
import { Problems } from "./problems.js";
import { RollBack } from "./rollback.js";

const BACK = { href: link("releases"), text: "Releases" };
const SHOWN_NAMES = 8;

export function ReleasesView({ state, me, route }) {
  const [first, second] = route.path;
  if (second) return html`<${Difference} key=${`${first} ${second}`} before=${first} after=${second} />`;
  if (first) return html`<${OneRelease} key=${first} state=${state} me=${me} number=${first} />`;
  return html`<${ReleaseList} state=${state} me=${me} />`;
}

function ReleaseList({ state, me }) {
  const pages = usePages({ path: "releases", field: "releases", key: "number", events: ["release"] });
  const newest = state.release?.number;
  const canary = state.release?.canary;
  const problems = state.problems.filter((each) => /^(release|canary)/.test(each.code));
  const columns = useMemo(
    () => [
      {
        key: "number",
        title: "Release",
        cell: (each) => html`<a href=${link("releases", each.number)}>${number(each.number)}</a>
          ${each.number === newest && html` <${Newest} canary=${canary} />`}
          ${each.unreadable && html` <${State} value="corrupt" />`}`,
      },
      { key: "made_at", title: "Made", cell: (each) => html`<${Age} at=${each.made_at} />` },
      { key: "changed", title: "What it changed", wide: true, cell: (each) => html`<${Changed} release=${each} />` },
      { key: "holds", title: "Holds", cell: ({ holds }) => holds.length > 0 && html`<span><${Names} names=${holds} /></span>` },
      {
        key: "reason",
        title: "Why",
        wide: true,
        cell: (each) => html`<${Clip} value=${each.reason} />
          ${each.by && html`<small>by <${Text} value=${each.by} limit=${60} /></small>`}`,
      },
      {
        key: "act",
        title: "Action",
        cell: (each) => each.number !== newest && !each.unreadable && html`<${RollBack} me=${me} release=${each.number} label="Roll back" small />`,
      },
    ],
    [me, newest, canary],
  );
  return html`
    <${PageHead} title="Releases" lead="Each is the whole of what readers should serve. To go back is a new release, too." />
    ${canary &&
    html`<div class="banner info">
      <${Icon} name="work" />
      <p>
        Release ${number(newest)} is tried by <${Text} value=${canary.readers.join(", ")} limit=${120} /> since <${Age} at=${canary.since} />.
        The others serve ${canary.components.length > 0 ? html`earlier versions of <${Names} names=${canary.components} />` : "what they did"} until it has proved itself, and nothing is built meanwhile.
      </p>
    </div>`}
    ${problems.length > 0 && html`<${Panel} title="What is wrong" flush><${Problems} problems=${problems} here /><//>`}
    <${Loaded}
      load=${pages}
      empty=${html`<${Empty} title="Nothing was released yet" hint="The first release is made when a component was built and has passed its gates: commit a batch while a rebuilder runs." icon="tag" />`}
    >
      ${(rows) => html`
        <${Table} caption="Releases that are kept, the newest first" columns=${columns} rows=${rows} rowKey=${(each) => each.number} />
        <${More} pages=${pages} label="Show older releases" />
      `}
    <//>
  `;
}

function Newest({ canary }) {
  if (canary) return html`<${Badge} tone="info" icon="work" title="some readers try it first">On trial<//>`;
  return html`<${Badge} tone="ok" icon="check">Newest<//>`;
}

const SIGNS = { added: "+", changed: "~", removed: "−" };

/** The names, each with a sign of what happened to it: read aloud it is a word. */
function Changed({ release }) {
  const all = Object.keys(SIGNS).flatMap((how) => release[how].map((name) => [how, name]));
  if (!all.length) return html`<span class="note">${release.unreadable ? "unknown" : "only what is held"}</span>`;
  return html`<ul class="deltas">
    ${all.slice(0, SHOWN_NAMES).map(
      ([how, name]) => html`<li key=${how + name} class=${how}><span aria-hidden="true">${SIGNS[how]}</span><span class="unseen">${how}: </span><${Text} value=${name} limit=${40} /></li>`,
    )}
    ${all.length > SHOWN_NAMES && html`<li class="note">and ${number(all.length - SHOWN_NAMES)} more</li>`}
  </ul>`;
}

const SERVED = [
  {
    key: "name",
    title: "Component",
    sort: (each) => each.name,
    cell: (each) => html`<${ComponentLink} name=${each.name} />
      ${each.group && html`<small>group <${Text} value=${each.group} limit=${60} /></small>`}`,
  },
  { key: "version", title: "Version", cell: (each) => html`<${Id} value=${each.version} />` },
  { key: "entries", title: "Entries", align: "end", sort: (each) => each.entries, cell: (each) => number(each.entries) },
  { key: "bytes", title: "Size", align: "end", sort: (each) => each.bytes, cell: (each) => bytes(each.bytes) },
  {
    key: "covers",
    title: "Covers",
    cell: (each) => html`<ul class="bare-list">
      ${Object.entries(each.covers ?? {}).map(
        ([name, generation]) => html`<li key=${name}>
          <${Text} value=${name} limit=${60} /> <span class="figure">${number(generation)}</span>
        </li>`,
      )}
    </ul>`,
  },
  {
    key: "checks_failed",
    title: "Checks",
    cell: (each) => html`<${Checked} below=${each.checks_failed} />`,
  },
  { key: "built_at", title: "Built", sort: (each) => each.built_at, cell: (each) => html`<${Age} at=${each.built_at} />` },
  { key: "held", title: "Held", cell: (each) => each.held && html`<${State} value="held" /> <small><${Text} value=${each.held.reason} limit=${120} /></small>` },
];

function OneRelease({ state, me, number: wanted }) {
  const newest = state.release?.number;
  const load = useLoad((signal) => api.get(`releases/${encodeURIComponent(wanted)}`, { signal }), [], wanted);
  const release = load.data;
  return html`
    <${PageHead}
      back=${BACK}
      title=${`Release ${clean(wanted, 20)}`}
      lead=${release && html`<${Text} value=${release.reason || "No reason is given."} limit=${400} />`}
      actions=${release &&
      html`
        ${release.previous > 0 && html`<a class="button plain" href=${link("releases", release.previous, release.number)}>What it changed</a>`}
        ${release.number !== newest &&
        html`${newest && html`<a class="button plain" href=${link("releases", release.number, newest)}>Compare with the newest</a>`}
          <${RollBack} me=${me} release=${release.number} label="Roll back" />`}
      `}
    />
    <${Loaded} load=${load}>${() => html`<${ReleasePage} release=${release} />`}<//>
  `;
}

function ReleasePage({ release }) {
  return html`
    <${Panel} title="Who made it, and when">
      <${Facts}
        items=${[
          { label: "Made", value: html`<${Stamp} at=${release.made_at} />` },
          { label: "By", value: html`<${Text} value=${release.by || "not given"} limit=${80} />` },
          {
            label: "Follows",
            value:
              release.previous > 0
                ? html`<a href=${link("releases", release.previous)}>release ${number(release.previous)}</a>`
                : "nothing: it is the first",
          },
          release.canary.length > 0 && { label: "Tried first by", value: html`<${Text} value=${release.canary.join(", ")} />` },
          { label: "Digest", value: html`<${Id} value=${release.digest} length=${16} />` },
        ]}
      />
    <//>
    <${Panel} title="What it serves" flush>
      <${Table}
        caption=${`Components of release ${release.number}`}
        columns=${SERVED}
        rows=${rowsOf(release)}
        rowKey=${(each) => each.name}
        empty=${html`<${Empty} title="It serves nothing" />`}
      />
    <//>
  `;
}

function rowsOf({ components }) {
  return Object.entries(components).map(([name, each]) => ({ ...each, name }));
}

function Difference({ before, after }) {
  const load = useLoad((signal) => api.get(`releases/${encodeURIComponent(before)}/diff/${encodeURIComponent(after)}`, { signal }), [], `${before}/${after}`);
  return html`
    <${PageHead}
      back=${BACK}
      title=${`Release ${before} to ${after}`}
      lead=${html`<a href=${link("releases", before)}>Release ${before}</a> and <a href=${link("releases", after)}>release ${after}</a> side by side.`}
    />
    <${Loaded} load=${load}>${(changes) => html`<${Panel} title="What is different" flush><${Changes} changes=${changes} /><//>`}<//>
  `;
}
