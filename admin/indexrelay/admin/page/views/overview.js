// Everything at a glance: is it well, what is not, how fresh it is, and the button that rebuilds.

import {
  Age,
  Button,
  Check,
  Confirm,
  Duration,
  Elapsed,
  Empty,
  ErrorNote,
  Field,
  Icon,
  PageHead,
  Panel,
  Progress,
  State,
  Table,
  Text,
  api,
  bytes,
  canOperate,
  clean,
  counted,
  duration,
  html,
  kept,
  link,
  none,
  number,
  percent,
  sentence,
  toast,
  useEffect,
  useMemo,
  useRef,
  useState,
  verdictLook,
} from "../parts.js";
import { FOR_OPERATORS } from "./action.js";
import { Problems, condensed } from "./problems.js";

export function OverviewView({ state, me }) {
  const [asking, setAsking] = useState(false);
  const rebuild = useRebuild(state.rebuild, state.number);
  const running = state.rebuild.state === "running";
  const why = !canOperate(me) ? FOR_OPERATORS : running ? "one is running" : null;
  const action = html`<${Button}
    tone="primary"
    icon="again"
    title=${why}
    aria-disabled=${why ? "true" : null}
    aria-haspopup="dialog"
    onClick=${() => why || setAsking(true)}
  >${running ? "Rebuilding…" : "Rebuild…"}${why && html`<span class="unseen"> (${why})</span>`}<//>`;
  return html`<${PageHead} title="Overview" actions=${action} />
    <${VerdictCard} state=${state} />
    <${Tiles} state=${state} />
    <div class="beside">
      <${ProblemsPanel} problems=${state.problems} />
      <${RebuildPanel} summary=${state.rebuild} rebuild=${rebuild} components=${state.components} />
    </div>
    <${Components} components=${state.components} />
    <${Collections} collections=${state.collections} />
    ${state.notes.length > 0 &&
    html`<${Panel} title="Good to know">
      <ul class="notes">
        ${state.notes.map((note) => html`<li key=${note}><${Text} value=${note} limit=${600} /></li>`)}
      </ul>
    <//>`}
    ${asking && html`<${RebuildDialog} components=${state.components} onClose=${() => setAsking(false)} />`}`;
}

// ---- the verdict ---------------------------------------------------------------------------

function VerdictCard({ state }) {
  const { tone, icon, word } = verdictLook(state);
  return html`<section class=${`verdict ${tone}`} aria-label="Verdict" data-testid="verdict">
    <${Icon} name=${icon} />
    <div>
      <p class="verdict-word">${word}</p>
      <p class="sentence"><${Text} value=${sentence(state.sentence)} limit=${600} /></p>
      <p class="note">Looked at <${Age} at=${state.at} /></p>
    </div>
  </section>`;
}

function Tile({ label, hint, tone, children }) {
  return html`<div class=${`tile ${tone ?? ""}`}>
    <dt>${label}</dt>
    <dd>${children}</dd>
    <dd class="hint">${hint}</dd>
  </div>`;
}

function Tiles({ state }) {
  const { release, readers, rebuild } = state;
  const drift = worstDrift(state.collections);
  const alerts = state.alerts.length;
  const apart = readers.live - readers.converged;
  const gone = readers.items.filter((each) => each.state === "gone").length;
  return html`<dl class="tiles" data-testid="tiles">
    <${Tile}
      label="Release"
      hint=${release ? html`<${Age} at=${release.at} />${release.canary ? ", tried by canaries" : ""}` : "nothing is released yet"}
    >${release ? html`<a href=${link("releases", release.number)}>${number(release.number)}</a>` : none}<//>
    <${Tile}
      label="Freshness"
      hint=${freshnessHint(state.freshness_seconds)}
      tone=${state.freshness_seconds > 0 && state.status !== "healthy" ? "warn" : null}
    >${freshness(state.freshness_seconds)}<//>
    <${Tile}
      label="Last rebuild"
      hint=${rebuild.last_rebuild_at ? `${counted(rebuild.entries_at_rebuild, "entry", "entries")} then` : "none has succeeded yet"}
    ><${Age} at=${rebuild.last_rebuild_at} /><//>
    <${Tile} label="Drift" hint=${driftHint(drift)}>${drift ? percent(drift.changed_ratio) : none}<//>
    <${Tile}
      label="Readers converged"
      hint=${readersHint({ release, apart, gone })}
      tone=${apart + gone > 0 ? "warn" : readers.live === 0 ? "bad" : null}
    >${number(readers.converged)} of ${number(readers.live)}<//>
    <${Tile}
      label="Alerts"
      hint=${alerts ? html`<a href=${link("alerts")}>${alerts === 1 ? "it fires" : "they fire"} now</a>` : "none fires"}
      tone=${alerts ? "bad" : null}
    >${number(alerts)}<//>
  </dl>`;
}

function readersHint({ release, apart, gone }) {
  if (!release) return "nothing is released yet";
  const said = [apart > 0 && `${number(apart)} behind`, gone > 0 && `${number(gone)} gone`].filter(Boolean);
  return said.length > 0 ? html`<a href=${link("readers")}>${said.join(", ")}</a>` : "on the newest release";
}

function freshness(seconds) {
  if (seconds === null || seconds === undefined) return none;
  return seconds === 0 ? "Up to date" : duration(seconds);
}

function freshnessHint(seconds) {
  if (seconds === null || seconds === undefined) return "not known";
  return seconds === 0 ? "every commit is served" : "age of the oldest commit that is not served";
}

function worstDrift(collections) {
  const drifts = collections.filter((each) => each.drift).map((each) => ({ ...each.drift, name: each.name }));
  return drifts.sort((one, other) => (other.changed_ratio ?? 0) - (one.changed_ratio ?? 0))[0] ?? null;
}

function driftHint(drift) {
  if (!drift) return "not known";
  const moved =
    typeof drift.centroid_shift === "number" ? `, centroid moved ${number(drift.centroid_shift, 3)}` : "";
  return `of ${clean(drift.name, 40)} changed since the release${moved}`;
}

// ---- the rebuild ---------------------------------------------------------------------------

/** The rebuild that runs or ran last, with each of its components; asked again as the state moves on. */
function useRebuild(summary, number) {
  const [rebuild, setRebuild] = useState(null);
  const { id } = summary;
  const beat = summary.state === "running" ? number : summary.state;
  const [turn, setTurn] = useState(0);
  const question = useRef({ open: false, missed: false });
  useEffect(() => {
    const asked = question.current;
    // One question at a time: a slow answer is waited for, and then the newest is asked for.
    asked.missed = asked.open;
    if (id === null || asked.open) return;
    asked.open = true;
    api
      .get(`rebuilds/${encodeURIComponent(id)}`)
      .then((fresh) => setRebuild((before) => kept(before, fresh)), () => undefined)
      .finally(() => {
        asked.open = false;
        if (asked.missed) setTurn((value) => value + 1);
      });
  }, [id, beat, turn]);
  return rebuild?.id === id ? rebuild : null;
}

/** The rebuilds that were asked for here: of their end one is told, of others one sees it. */
const mine = new Set();

function RebuildPanel({ summary, rebuild, components }) {
  const running = summary.state === "running";
  const rows = running && !rebuild ? buildingRows(components) : buildRows(rebuild?.components);
  const told = useRef(null);
  useEffect(() => {
    if (told.current === "running" && mine.has(summary.id)) {
      if (summary.state === "complete") toast("The rebuild is complete.");
      else if (summary.state === "failed") toast("The rebuild failed.", "bad");
    }
    told.current = summary.state;
  }, [summary.state]);
  const since = rebuild?.started_at ?? summary.started_at;
  const until = rebuild?.finished_at ?? summary.finished_at;
  const seconds = since && until ? (Date.parse(until) - Date.parse(since)) / 1000 : null;
  return html`<${Panel} title="Rebuild" flush testid="rebuild" actions=${html`<${State} value=${summary.state} />`}>
    <div class="build-head">
      ${running && html`<p>${since ? html`Running for <${Elapsed} at=${since} />` : "Asked for; a rebuilder takes it up."}</p>`}
      ${!running && until && html`<p>Ended <${Age} at=${until} />${seconds !== null && html`, took <${Duration} seconds=${seconds} />`}.</p>`}
      ${summary.state === "idle" && html`<p>There was none yet. Search goes on while one runs.</p>`}
      ${rebuild?.requested_by && html`<p class="note">Asked for by <${Text} value=${rebuild.requested_by} limit=${60} />${rebuild.reason && html`: “<${Text} value=${rebuild.reason} limit=${120} />”`}</p>`}
      ${!running && !summary.error && summary.message && html`<p class="note"><${Text} value=${summary.message} limit=${400} /></p>`}
      ${!running && summary.error && html`<${ErrorNote} error=${{ message: summary.error }} />`}
    </div>
    ${rows.length > 0 && html`<ul class="build-list">${rows.map((row) => html`<${BuildRow} key=${row.name} row=${row} />`)}</ul>`}
  <//>`;
}

function buildRows(components) {
  const order = ["building", "verifying", "failed", "waiting", "released", "skipped", "unchanged"];
  return Object.entries(components ?? {})
    .map(([name, each]) => ({ name, ...each }))
    .sort((one, other) => order.indexOf(one.state) - order.indexOf(other.state));
}

// A component is counted among those that are built while it still waits for its turn.
const WORDS = { waiting: "waiting", verifying: "verifying", storing: "verifying", releasing: "verifying" };

function buildingRows(components) {
  return components
    .filter((each) => each.building)
    .map(({ name, building }) => ({ ...building, name, state: WORDS[building.step] ?? "building", seconds: null }));
}

// The way of a build; each step is a fifth of the bar, however long it takes.
const STEPS = ["reading", "building", "verifying", "storing", "releasing"];

function stepOf({ step, share }) {
  const place = STEPS.indexOf(step);
  if (place < 0) return { whole: null, words: step ? clean(step, 80) : "" };
  const known = typeof share === "number";
  const words = `${step}${known ? ` ${percent(share)}` : ""}, step ${place + 1} of ${STEPS.length}`;
  return { whole: (place + (known ? share : 0)) / STEPS.length, words };
}

function BuildRow({ row }) {
  const busy = row.state === "building" || row.state === "verifying";
  const { whole, words } = stepOf(row);
  return html`<li>
    <a class="name" href=${link("components", row.name)}>${clean(row.name, 80)}</a>
    <span><${State} value=${row.state} /></span>
    <span class="time figure">
      ${busy && row.started_at ? html`<${Elapsed} at=${row.started_at} />` : row.seconds === null || row.seconds === undefined ? "" : duration(row.seconds)}
    </span>
    ${busy &&
    html`<div class="bar-cell">
      <${Progress} share=${whole} label=${`${clean(row.name, 60)}: ${words || row.state}`} />
      <span class="note">${words}</span>
    </div>`}
    ${row.error && html`<p class="error"><${Text} value=${row.error} limit=${800} lines /></p>`}
  </li>`;
}

const DUE = "due";
const ALL = "all";
const CHOSEN = "chosen";

function RebuildDialog({ components, onClose }) {
  const free = components.filter((each) => !each.held && !each.paused && each.condition !== "undeclared");
  const due = free.filter((each) => !["current", "deferred"].includes(each.condition));
  const [which, setWhich] = useState(due.length > 0 ? DUE : ALL);
  const [chosen, setChosen] = useState(() => new Set());
  const [full, setFull] = useState(false);
  const [force, setForce] = useState(false);
  const [reason, setReason] = useState("");
  const kept = components.length - free.length;
  const count = { [DUE]: due.length, [ALL]: free.length, [CHOSEN]: chosen.size }[which];
  const toggle = (name, on) => {
    const next = new Set(chosen);
    if (on) next.add(name);
    else next.delete(name);
    setChosen(next);
  };
  const start = async () => {
    try {
      const asked = await api.post("rebuilds", { components: which === CHOSEN ? [...chosen] : [], all: which === ALL, full, force, reason: reason.trim() });
      mine.add(asked?.id);
    } catch (error) {
      if (error.status === 409) error.title = "A rebuild is running already";
      throw error;
    }
    toast("The rebuild is asked for.", "info");
  };
  const option = (value, label, hint) => html`<${Radio}
    name="which"
    label=${label}
    hint=${hint}
    checked=${which === value}
    onChoose=${() => setWhich(value)}
  />`;
  const ready = which === DUE || count > 0;
  const nothing = {
    [DUE]: "Nothing is due now: the rebuilder looks, and ends at once.",
    [ALL]: "Every component is held, paused or undeclared: lift that first.",
    [CHOSEN]: "Choose at least one component.",
  };
  const what = [
    count === 0
      ? nothing[which]
      : `${counted(count, "component is", "components are")} built${full ? " from scratch" : ""}, and what is made from them after that.`,
    count > 0 && "Readers go on serving the release that they have. The new one replaces it after it has passed its checks.",
    force && "A version is released even if it lost more entries than max_shrink allows.",
  ].filter(Boolean);
  return html`<${Confirm} title="Rebuild" verb="Rebuild" ready=${ready} onConfirm=${start} onClose=${onClose}>
    <fieldset class="choices">
      <legend>What to build</legend>
      ${option(DUE, "What is due", due.length ? `${counted(due.length, "component")}: ${clean(due.map((each) => each.name).join(", "), 120)}` : "nothing is, just now")}
      ${option(ALL, "Everything", `${counted(free.length, "component")}${kept ? `; ${kept} held, paused or undeclared stay as they are` : ""}`)}
      ${option(CHOSEN, "Chosen components")}
    </fieldset>
    ${which === CHOSEN &&
    html`<fieldset class="choices scrolled">
      <legend>Components</legend>
      <div>
        ${components.map(
          (each) => html`<${Check}
            key=${each.name}
            label=${clean(each.name, 80)}
            hint=${each.held ? "held: lift the hold first" : each.paused ? "paused: resume it first" : null}
            disabled=${Boolean(each.held || each.paused)}
            checked=${chosen.has(each.name)}
            onChange=${(on) => toggle(each.name, on)}
          />`,
        )}
      </div>
    </fieldset>`}
    <div class="choices">
      <${Check} label="From scratch" hint="Build in full and check every file again, instead of continuing the last version. It takes longer." checked=${full} onChange=${setFull} />
      <${Check} label="Allow it to shrink" hint="Release it even if more entries went than max_shrink allows." checked=${force} onChange=${setForce} />
    </div>
    <${Field} label="Reason (optional)" hint="It is kept with the rebuild and in the audit log.">
      ${(control) => html`<input ...${control} maxlength="300" autocomplete="off" value=${reason} onInput=${(event) => setReason(event.currentTarget.value)} />`}
    <//>
    <section class="outcome" aria-live="polite">
      <h3>What happens</h3>
      <ul class="will">${what.map((each) => html`<li key=${each}>${each}</li>`)}</ul>
    </section>
  <//>`;
}

function Radio({ name, label, hint, checked, onChoose }) {
  return html`<label class="check">
    <input type="radio" name=${name} checked=${checked} onChange=${onChoose} />
    <span>${label}${hint && html`<span class="said"> – ${hint}</span>`}</span>
  </label>`;
}

// ---- what is not well ----------------------------------------------------------------------

function ProblemsPanel({ problems }) {
  const open = problems.filter((each) => each.severity !== "info").length;
  const note = problems.length === 0 ? null : open === 0 ? "None of it needs a person." : `${counted(open, "thing needs", "things need")} a person.`;
  return html`<${Panel} title="What is not well" note=${note} flush testid="problems">
    ${problems.length === 0
      ? html`<${Empty} icon="check" title="Everything is well" hint="Each component contains what it should, and every reader serves it." />`
      : html`<${Problems} problems=${condensed(problems)} />`}
  <//>`;
}

// ---- components and collections ------------------------------------------------------------

function coverage(component) {
  const pairs = Object.entries(component.collections ?? {});
  if (pairs.length === 0) return none;
  return pairs.map(
    ([name, each]) => html`<span key=${name} class="figure" title=${`${clean(name, 80)}: covers generation ${each.covers ?? 0} of ${each.current}`}>
      ${number(each.covers ?? 0)}${each.covers === each.current ? "" : ` of ${number(each.current)}`}
    </span>`,
  );
}

const COMPONENT_COLUMNS = [
  {
    key: "name",
    title: "Component",
    sort: (row) => row.name,
    cell: (row) => html`<a href=${link("components", row.name)}>${clean(row.name, 80)}</a>`,
  },
  { key: "kind", title: "Kind", sort: (row) => row.kind, cell: (row) => clean(row.kind, 60) },
  {
    key: "condition",
    title: "Condition",
    sort: (row) => row.condition,
    cell: (row) => html`<${State} value=${row.condition} title=${clean(row.sentence, 300)} />
      ${row.held && html` <${State} value="held" />`}${row.paused && html` <${State} value="paused" />`}
      ${row.building && html` <${State} value=${WORDS[row.building.step] ?? "building"} />`}`,
  },
  { key: "covers", title: "Generation", align: "end", cell: coverage },
  { key: "entries", title: "Entries", align: "end", sort: (row) => row.entries, cell: (row) => number(row.entries) },
  { key: "bytes", title: "Size", align: "end", sort: (row) => row.bytes, cell: (row) => bytes(row.bytes) },
  {
    key: "built",
    title: "Last rebuild",
    align: "end",
    sort: (row) => row.last_rebuild_at,
    cell: (row) => html`<${Age} at=${row.last_rebuild_at} />`,
  },
];

function Components({ components }) {
  return html`<${Panel} title="Components" flush>
    <${Table}
      caption="Components"
      columns=${COMPONENT_COLUMNS}
      rows=${components}
      rowKey=${(row) => row.name}
      filter=${(row) => `${row.name} ${row.kind} ${row.condition}`}
      empty=${html`<${Empty} icon="cube" title="No component is declared" hint="Declare one in the settings: nothing is built until then." />`}
    />
  <//>`;
}

const COLLECTION_COLUMNS = [
  { key: "name", title: "Collection", sort: (row) => row.name, cell: (row) => clean(row.name, 80) },
  { key: "generation", title: "Generation", align: "end", sort: (row) => row.generation, cell: (row) => number(row.generation) },
  { key: "entries", title: "Entries", align: "end", sort: (row) => row.entries, cell: (row) => number(row.entries) },
  {
    key: "changed",
    title: "Changed since the release",
    align: "end",
    sort: (row) => row.drift?.changed_ratio,
    cell: (row) => percent(row.drift?.changed_ratio),
  },
  {
    key: "shift",
    title: "Centroid moved",
    align: "end",
    sort: (row) => row.drift?.centroid_shift,
    cell: (row) => (row.drift ? number(row.drift.centroid_shift, 3) : none),
  },
];

function Collections({ collections }) {
  const rows = useMemo(() => collections, [collections]);
  return html`<${Panel} title="Collections" note="How far the data have moved away from what is released." flush>
    <${Table}
      caption="Collections"
      columns=${COLLECTION_COLUMNS}
      rows=${rows}
      rowKey=${(row) => row.name}
      empty=${html`<${Empty} icon="box" title="No collection yet" hint="The first batch of a job makes one." />`}
    />
  <//>`;
}
