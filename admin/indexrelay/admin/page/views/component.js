// The page of one component: what is wrong with it, what it holds, why its index is what it is, what
// its gates measured, and its versions, of which two can be compared and one served again.
//
// What changes from second to second comes with the state; the rest is asked for again when the
// released version or a decision about it changes.

import {
  Age, api, Badge, Button, bytes, Check, clean, Clip, counted, duration, Empty, Facts, go, html, Id,
  link, Loaded, millis, number, PageHead, Panel, percent, shortId, Stamp, State, Table, Text, useLoad,
  useMemo, useState,
} from "../parts.js";
import { Action } from "./action.js";
import { Building, Checked, Condition, Covers, isCalm, kindOf } from "./condition.js";
import { Front } from "./front.js";
import { Problems } from "./problems.js";
import { RollBack } from "./rollback.js";

const BACK = { href: link("components"), text: "Components" };
const pathOf = (name, ...rest) => ["components", encodeURIComponent(name), ...rest].join("/");

export function ComponentPage({ state, me, name, rest }) {
  if (rest[0] === "compare" && rest.length === 3) return html`<${Comparison} key=${`${rest[1]} ${rest[2]}`} name=${name} a=${rest[1]} b=${rest[2]} />`;
  return html`<${Page} state=${state} me=${me} name=${name} />`;
}

function Page({ state, me, name }) {
  const live = state.components.find((each) => each.name === name);
  const changing = JSON.stringify([live?.version, live?.condition, live?.held, live?.paused, live?.error]);
  const load = useLoad((signal) => api.get(pathOf(name), { signal }), [changing], name);
  const problems = state.problems.filter((each) => each.subject === name);
  return html`
    <${PageHead}
      back=${BACK}
      title=${html`<${Text} value=${name} limit=${120} />`}
      lead=${live && html`<${Text} value=${live.group ? `${kindOf(live.kind)}, flips with group ${live.group}` : kindOf(live.kind)} limit=${160} />`}
      actions=${live && html`<${Actions} me=${me} live=${live} rebuilders=${state.rebuilders.length} />`}
    />
    ${live &&
    html`<div class="now">
      <${Condition} component=${live} />
      ${isCalm(live) || problems.length > 0 || html`<${Text} value=${live.sentence} />`}
      ${live.building && html`<${Building} building=${live.building} />`}
    </div>`}
    <${Loaded} load=${load}>
      ${(page) => html`
        <${Trouble} problems=${problems} page=${page} />
        <${Released} one=${{ ...page, ...live }} page=${page} />
        <${Front} page=${page} />
        <${Checks} checks=${page.checks} />
        <${Versions} me=${me} name=${name} versions=${page.versions} />
        <${Definition} page=${page} />
      `}
    <//>
  `;
}

function Actions({ me, live, rebuilders }) {
  const { name, paused, held, version } = live;
  return html`
    <${Rebuild} me=${me} live=${live} rebuilders=${rebuilders} />
    ${paused
      ? html`<${Action}
          me=${me}
          label="Resume"
          title=${`Resume ${name}?`}
          what=${["It is built again whenever it is due, at once if it is due now."]}
          verb="Resume"
          path=${pathOf(name, "resume")}
          done=${`${name} is built again when it is due.`}
        />`
      : html`<${Action}
          me=${me}
          label="Pause"
          icon="pause"
          title=${`Pause ${name}?`}
          what=${[
            "It is not built until it is resumed.",
            "What is served stays, and falls behind what is committed.",
            "A rebuild that names it builds it all the same.",
          ]}
          verb="Pause"
          reason
          path=${pathOf(name, "pause")}
          body=${(reason) => ({ reason })}
          done=${`${name} is paused.`}
        />`}
    ${held
      ? html`<${Action}
          me=${me}
          label="Lift the hold"
          title=${`Lift the hold on ${name}?`}
          what=${[
            "A new release is made without the hold.",
            "It is rebuilt if it is due, and the new version replaces what is served now, once it has passed its gates.",
          ]}
          verb="Lift"
          path=${pathOf(name, "lift")}
          done=${`${name} follows its source again.`}
        />`
      : html`<${Action}
          me=${me}
          label="Hold"
          icon="lock"
          blocked=${version ? null : "nothing of it is released yet"}
          title=${`Hold ${name} at what is served?`}
          what=${[
            "A new release is made that holds it.",
            "It is not built, and nothing replaces the version that is served now, until the hold is lifted or its definition changes.",
          ]}
          verb="Hold"
          reason
          path=${pathOf(name, "hold")}
          body=${(reason) => ({ reason })}
          done=${`${name} is held.`}
        />`}
  `;
}

function Rebuild({ me, live, rebuilders }) {
  const [full, setFull] = useState(false);
  const [force, setForce] = useState(false);
  const { name, building, paused, held } = live;
  return html`<${Action}
    me=${me}
    label="Rebuild"
    icon="again"
    blocked=${building ? "it is being built now" : null}
    title=${`Rebuild ${name}?`}
    what=${[
      paused ? "It is built now although it is paused, and stays paused." : "It is built now, due or not.",
      held
        ? "It is held: nothing replaces what is served until the hold is lifted."
        : "The new version replaces what is served once it has passed its gates. Searches go on meanwhile.",
      ...(rebuilders ? [] : ["No rebuilder runs: the request waits until one is started."]),
    ]}
    verb="Rebuild"
    path="rebuilds"
    body=${() => ({ components: [name], full, force, reason: "" })}
    done=${`A rebuild of ${name} was asked for.`}
  >
    <${Check} label="From scratch" hint="Nothing of the last version is continued, and every file is checked again. It takes longer." checked=${full} onChange=${setFull} />
    <${Check} label="Allow it to shrink" hint="Release it even if more entries went than max_shrink allows." checked=${force} onChange=${setForce} />
  <//>`;
}

/** What is wrong, since when, and what comes next; what a person decided, and why; what ends by itself. */
function Trouble({ problems, page }) {
  const { error, failures, held, paused } = page;
  if (!problems.length && !error && !held && !paused) return null;
  const asked = held || paused || problems.some((each) => each.asked);
  const wrong = error || problems.some((each) => each.severity !== "info");
  const facts = [
    failures > 0 && { label: "Builds failed in a row", value: number(failures) },
    page.failing_since && { label: "Failing since", value: html`<${Stamp} at=${page.failing_since} />` },
    page.failed_at && { label: "Failed last", value: html`<${Stamp} at=${page.failed_at} />` },
    failures > 0 && { label: "Tried again by itself", value: page.retry_at ? html`<${Age} at=${page.retry_at} />` : "no: rebuild it once the cause is mended" },
    held && decided(held.automatic ? "Held, since readers refused what came after" : "Held", held),
    paused && decided("Paused", paused),
  ].filter(Boolean);
  return html`<${Panel} title=${wrong ? "What is wrong" : asked ? "Decided by a person" : "Ends by itself"} flush>
    ${problems.length > 0 && html`<${Problems} problems=${problems} here />`}
    ${error &&
    html`<figure class="error-text">
      <figcaption>The error</figcaption>
      <pre tabindex="0"><${Text} value=${error} limit=${8000} lines /></pre>
    </figure>`}
    ${facts.length > 0 && html`<div class="inset"><${Facts} items=${facts} /></div>`}
  <//>`;
}

function decided(label, { reason, since }) {
  return { label, value: html`<${Age} at=${since} />`, hint: html`<${Text} value=${reason || "no reason given"} />` };
}

function Released({ one, page }) {
  const graves = page.tombstones;
  if (!one.version)
    return html`<${Panel} title="What is released">
      <${Empty} title="Nothing of it is released yet" hint="It is built once what it is made from has entries, it is due, and a rebuilder runs." icon="cube" />
    <//>`;
  return html`<${Panel} title="What is released">
    <${Facts}
      items=${[
        { label: "Covers", value: html`<${Covers} collections=${one.collections} />` },
        { label: "Entries", value: number(one.entries) },
        { label: "Size", value: bytes(one.bytes) },
        { label: "Built", value: html`<${Age} at=${one.last_rebuild_at} />` },
        typeof one.recall === "number" && { label: "Recall at 10", value: number(one.recall, 4) },
        typeof one.latency_p50_ms === "number" && {
          label: "Latency of a query",
          value: millis(one.latency_p50_ms),
          hint: typeof one.latency_p99_ms === "number" && `${millis(one.latency_p99_ms)} at p99`,
        },
        graves && {
          label: "Tombstones",
          value: html`<meter
              min="0"
              max=${Math.max(graves.limit * 1.25, graves.share)}
              high=${graves.limit}
              value=${graves.share}
            >${percent(graves.share)}</meter> ${percent(graves.share)}`,
          hint: `${number(graves.rows)} rows of its base; built in full above ${percent(graves.limit)}`,
        },
        { label: "Version", value: html`<${Id} value=${one.version} />` },
      ]}
    />
  <//>`;
}

const CHECKS = [
  { key: "name", title: "Check", cell: (each) => html`<${Text} value=${each.name} limit=${200} />` },
  { key: "passed", title: "Result", cell: passedOf },
  { key: "measured", title: "Measured", align: "end", cell: (each) => measured(each.name, each.measured) },
  { key: "limit", title: "Limit", align: "end", cell: (each) => measured(each.name, each.limit) },
  { key: "detail", title: "Detail", wide: true, cell: ({ detail, file }) => (detail || file ? html`<${Clip} value=${detail || file} />` : null) },
];

/** A row for each check, those not passed first; files, and checks without a figure, are one row together. */
function Checks({ checks }) {
  const rows = useMemo(() => {
    const whole = checks.filter((each) => each.name === "bytes" && each.passed);
    const plain = checks.filter((each) => each.passed && each.measured === null);
    const together = [
      whole.length > 0 && { name: `bytes of ${counted(whole.length, "file")}`, passed: true, detail: "read back as they were written" },
      plain.length > 0 && { name: [...new Set(plain.map((each) => each.name))].join(", "), passed: true },
    ].filter(Boolean);
    const others = checks.filter((each) => !whole.includes(each) && !plain.includes(each));
    return [...others.filter((each) => !each.passed), ...others.filter((each) => each.passed), ...together].map((each, place) => ({ ...each, place }));
  }, [checks]);
  if (!rows.length) return null;
  return html`<${Panel} title="Checks" note="What the gates measured before it was released." flush>
    <${Table} caption="Checks of what is released" columns=${CHECKS} rows=${rows} rowKey=${(each) => each.place} />
  <//>`;
}

function passedOf(check) {
  if (check.passed) return html`<${Badge} tone="ok" icon="check">Passed<//>`;
  return check.required === false
    ? html`<${Badge} tone="warn" icon="warn" title="The settings let a version be released that does not pass it">Let through<//>`
    : html`<${Badge} tone="bad" icon="bad">Not passed<//>`;
}

/** In the unit that the name of the check ends in; else a ratio or a count. */
function measured(name, value) {
  if (typeof value !== "number") return null;
  if (name.endsWith("_ms")) return millis(value);
  if (name.endsWith("bytes")) return bytes(value);
  if (name.endsWith("_seconds")) return duration(value);
  return number(value, Number.isInteger(value) ? undefined : 4);
}

function Versions({ me, name, versions }) {
  const [chosen, choose] = useState([]);
  const columns = useMemo(
    () => [
      {
        key: "id",
        title: "Version",
        cell: (each) => html`<${Id} value=${each.id} /> ${each.released && html`<${State} value="released" />`}
          <small>${releasesOf(each)}</small>`,
      },
      {
        key: "chosen",
        title: "Compare",
        cell: (each) => html`<input
          type="checkbox"
          aria-label=${`Compare version ${shortId(each.id)} of release ${each.last_release}`}
          checked=${each.chosen}
          onChange=${() => choose((before) => (each.chosen ? before.filter((key) => key !== each.key) : [...before, each.key].slice(-2)))}
        />`,
      },
      { key: "created_at", title: "Built", cell: (each) => html`<${Age} at=${each.created_at} /><small>in ${duration(each.build_seconds)}</small>` },
      { key: "entries", title: "Entries", align: "end", cell: (each) => html`${number(each.entries)}<small>${bytes(each.bytes)}</small>` },
      {
        key: "checks",
        title: "Checks",
        cell: (each) => html`<${Checked} below=${each.checks_failed} />`,
      },
      { key: "served_by", title: "Readers", align: "end", cell: (each) => number(each.served_by) },
      { key: "reason", title: "Why", cell: (each) => (each.reason ? html`<${Clip} value=${each.reason} />` : null) },
      {
        key: "act",
        title: "Action",
        cell: (each) =>
          !each.released &&
          each.last_release &&
          html`<${RollBack} me=${me} release=${each.last_release} components=${[name]} label="Serve again" small />`,
      },
    ],
    [me, name],
  );
  // One alone cannot be compared, and is what is served.
  const shown = useMemo(() => (versions.length > 1 ? columns : columns.filter(({ key }) => key !== "chosen" && key !== "act")), [columns, versions.length]);
  const rows = useMemo(() => versions.map((each) => ({ ...each, key: keyOf(each), chosen: chosen.includes(keyOf(each)) })), [versions, chosen]);
  // The older one is on the left, whichever was chosen first.
  const [newer, older] = rows.filter((each) => each.chosen);
  return html`<${Panel}
    title="Versions"
    note="Those that kept releases name, the newest first."
    flush
    actions=${versions.length > 1 &&
    html`<${Button}
      disabled=${!older || older.id === newer.id}
      onClick=${() => go("components", name, "compare", older.id, newer.id)}
    >${older ? "Compare the two" : "Choose two to compare"}<//>`}
  >
    <${Table} caption="Versions" columns=${shown} rows=${rows} rowKey=${keyOf} empty=${html`<${Empty} title="None was released yet" icon="cube" />`} />
  <//>`;
}

/** A version that was served again is there twice. */
function keyOf({ id, first_release: first }) {
  return `${id} ${first}`;
}

function releasesOf({ first_release: first, last_release: last }) {
  return first === last ? `release ${number(last)}` : `releases ${number(first)} to ${number(last)}`;
}

function Comparison({ name, a, b }) {
  const query = new URLSearchParams({ a, b });
  const load = useLoad((signal) => api.get(`${pathOf(name, "compare")}?${query}`, { signal }), [], `${name}?${query}`);
  const [facts, checks] = useMemo(() => [comparedColumns("Fact", a, b), [...comparedColumns("Check", a, b), LIMIT]], [a, b]);
  return html`
    <${PageHead}
      back=${{ href: link("components", name), text: clean(name, 80) }}
      title="Two versions"
      lead=${html`<${Id} value=${a} /> beside <${Id} value=${b} />, the newer one on the right.`}
    />
    <${Loaded} load=${load}>
      ${(found) => html`
        <${Panel} title="What they hold" flush>
          <${Table} caption="What the two versions hold" columns=${facts} rows=${found.facts} rowKey=${(each) => each.name} />
        <//>
        <${Panel} title="What their gates measured" flush>
          <${Table}
            caption="What the gates of the two versions measured"
            columns=${checks}
            rows=${found.checks.filter((each) => each.a !== null || each.b !== null)}
            rowKey=${(each) => each.name}
            empty=${html`<${Empty} title="No check of either measures anything" />`}
          />
        <//>
      `}
    <//>
  `;
}

const LIMIT = { key: "limit", title: "Limit", align: "end", cell: (each) => measured(each.name, each.limit) };

function comparedColumns(title, a, b) {
  return [
    { key: "name", title, cell: (each) => html`<${Text} value=${each.name} limit=${120} />` },
    { key: "a", title: shortId(a), align: "end", cell: (each) => inUnit(each, each.a) },
    { key: "b", title: shortId(b), align: "end", cell: (each) => inUnit(each, each.b) },
    { key: "change", title: "Change", align: "end", cell: changeOf },
  ];
}

function inUnit({ name, unit }, value) {
  if (typeof value !== "number") return html`<${Text} value=${value} />`;
  if (unit === undefined) return measured(name, value);
  if (unit === "bytes") return bytes(value);
  if (unit === "seconds") return duration(value);
  if (unit === "milliseconds") return millis(value);
  return number(value);
}

function changeOf(fact) {
  const { a, b } = fact;
  if (a === b || fact.same) return html`<span class="note">same</span>`;
  if (typeof a !== "number" || typeof b !== "number") return "differs";
  const sign = b > a ? "+" : "−";
  return html`${sign}${inUnit(fact, Math.abs(b - a))}${a !== 0 && html` <small>${sign}${percent(Math.abs((b - a) / a))}</small>`}`;
}

const FILES = [
  { key: "name", title: "File", cell: (each) => html`<${Text} value=${each.name} limit=${160} />` },
  { key: "bytes", title: "Size", align: "end", cell: (each) => bytes(each.bytes) },
  { key: "sha256", title: "sha256", cell: (each) => html`<${Id} value=${each.sha256} length=${16} />` },
];

function Definition({ page }) {
  const { parameters, ...declared } = page.definition ?? {};
  const parts = [
    ["As the settings declare it", Object.entries({ ...declared, ...parameters })],
    ["As it was built", Object.entries(page.parameters)],
    ["What its build wrote down", Object.entries(page.details)],
  ].filter(([, facts]) => facts.length > 0);
  const { files } = page;
  if (!parts.length && !files.length) return null;
  return html`<${Panel} title="Definition and files">
    ${parts.map(
      ([title, facts]) => html`<details key=${title}>
        <summary>${title} <span class="count">${number(facts.length)}</span></summary>
        <${Facts} items=${facts.map(([label, value]) => ({ label: clean(label, 80), value: html`<${Text} value=${value} limit=${400} />` }))} />
      </details>`,
    )}
    ${files.length > 0 &&
    html`<details>
      <summary>Files <span class="count">${number(files.length)}</span></summary>
      <${Table} caption="Files of what is released" columns=${FILES} rows=${files} rowKey=${(each) => each.name} />
    </details>`}
  <//>`;
}
