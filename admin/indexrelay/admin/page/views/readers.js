// Readers: who serves what, as a matrix of reader and component.
//
// A cell is a colour, a shape and a word. Only the rows in sight are drawn, so that two hundred readers
// with thirty components stay quick. One cell can be reached with Tab, the others from there with the
// arrow keys; what is under the pointer or has the focus is described below the matrix. What is not well
// stands above it once more, as a table in words.

import {
  Age, Badge, bytes, clean, Clip, counted, Empty, html, Icon, Id, look, memo, number, PageHead, Panel,
  State, Table, Text, useCallback, useLayoutEffect, useMemo, useRef, useState,
} from "../parts.js";
import { ComponentLink } from "./condition.js";
import { Problems } from "./problems.js";

const STATES = {
  refused: "did not take the released version, and serves its last good one",
  missing: "serves nothing of it",
  gone: "ended, or not heard of for too long",
  behind: "serves an earlier version, and follows",
  starting: "loads its first version",
  serving: "serves what the newest release names",
};
/** The worst first. */
const RANKS = Object.keys(STATES);
/** With so few components there is room for the word in each cell. */
const WORDS_UP_TO = 6;
/** So many rows are drawn whole; of more, those in sight and a few beside them. */
const ALL_ROWS_UP_TO = 40;
const SPARE_ROWS = 6;
const MOST_TROUBLES = 20;
/** Columns behind the components. */
const FACTS = [
  ["Memory", (reader) => bytes(reader.memory_bytes)],
  ["Last seen", (reader) => html`<${Age} at=${reader.last_seen_at} />`],
];

// web-9 before web-10.
const order = new Intl.Collator("en", { numeric: true });
const rankOf = (state) => (state in STATES ? RANKS.indexOf(state) : 0);
const nameOf = (reader) => reader.label || reader.id;

export function ReadersView({ state, route }) {
  const { items, live, converged, left_out: leftOut = 0 } = state.readers;
  const sorted = useMemo(() => [...items].sort(byTrouble), [items]);
  const names = useMemo(() => namesOf(state.components, items), [state.components, items]);
  const problems = state.problems.filter((each) => /^(no_)?reader|component_not_served|^member|foreign/.test(each.code));
  const release = state.release?.number;
  const lead =
    items.length > 0 &&
    (release ? `${number(converged)} of ${counted(live, "live reader")} serve all of release ${number(release)}.` : `${counted(live, "live reader")}; nothing was released yet.`);
  return html`
    <${PageHead} title="Readers" lead=${lead} />
    ${items.length === 0 && problems.length === 0
      ? html`<${Empty} title="No reader is running" hint="A reader serves what is released. Start one with: indexrelay reader" icon="grid" />`
      : html`<${Troubles} readers=${sorted} problems=${problems} />`}
    ${items.length > 0 && html`<${Matrix} key=${route.path[0]} asked=${route.path[0] ?? ""} readers=${sorted} names=${names} leftOut=${leftOut} />`}
  `;
}

/** Declared components, and whatever else a reader has. */
function namesOf(components, readers) {
  const names = new Set(components.map((each) => each.name));
  for (const reader of readers) for (const name of Object.keys(reader.components)) names.add(name);
  return [...names].sort();
}

function worst(reader) {
  const cells = Object.values(reader.components).map((each) => (stateOf(each) ? rankOf(each.state) : RANKS.length));
  return Math.min(rankOf(reader.state), ...cells);
}

function byTrouble(one, other) {
  const key = (each) => `${nameOf(each)} ${each.id}`;
  return worst(one) - worst(other) || order.compare(key(one), key(other));
}

// ---- in words ------------------------------------------------------------------------------

const TROUBLES = [
  { key: "reader", title: "Reader", cell: ({ reader }) => html`<${Text} value=${nameOf(reader)} limit=${80} /> <small><${Text} value=${reader.host ?? ""} limit=${80} /></small>` },
  { key: "name", title: "Component", cell: ({ name }) => (name ? html`<${ComponentLink} name=${name} />` : "all") },
  { key: "state", title: "State", cell: ({ state }) => html`<${State} value=${state} />` },
  { key: "error", title: "Why", wide: true, cell: whyOf },
  { key: "seen", title: "Last seen", cell: ({ reader }) => html`<${Age} at=${reader.last_seen_at} />` },
];

function whyOf({ reader, state, error }) {
  if (state === "gone") return html`it ended, or was not heard of for too long; if it is to run, start it again on <${Text} value=${reader.host || "its host"} limit=${80} />`;
  return html`<${Clip} value=${error || STATES[state]} />`;
}

function troublesOf(reader) {
  if (reader.state === "gone") return [{ key: reader.id, reader, state: "gone" }];
  const cells = Object.entries(reader.components)
    .filter(([, cell]) => cell.error || cell.state === "refused" || (stateOf(cell) === "missing" && reader.state !== "starting"))
    .map(([name, { state, error }]) => ({ key: `${reader.id} ${name}`, reader, name, state, error }));
  return cells.length || reader.state === "serving" || reader.state === "starting" ? cells : [{ key: reader.id, reader, state: reader.state }];
}

const TOLD = new Set(["reader_load_failed", "reader_behind", "reader_not_ready"]);

function Troubles({ readers, problems }) {
  // What the judge says of a reader is said once; its processes share a label, by which it names them.
  const told = JSON.stringify(problems.filter((each) => TOLD.has(each.code)).map((each) => each.subject));
  const rows = useMemo(() => {
    const labels = new Set(JSON.parse(told));
    return readers.flatMap((each) => (each.state !== "gone" && labels.has(each.label) ? [] : troublesOf(each)));
  }, [readers, told]);
  if (!rows.length && !problems.length) return null;
  return html`<${Panel} title="What is not well" flush>
    ${problems.length > 0 && html`<${Problems} problems=${problems} here />`}
    ${rows.length > 0 && html`<${Table} caption="Readers that need a look" columns=${TROUBLES} rows=${rows.slice(0, MOST_TROUBLES)} rowKey=${(each) => each.key} />`}
    ${rows.length > MOST_TROUBLES && html`<p class="note inset">And ${number(rows.length - MOST_TROUBLES)} more, in the matrix.</p>`}
  <//>`;
}

// ---- the matrix ----------------------------------------------------------------------------

/** @param {string} asked a reader that the address names: the others are filtered out. */
function Matrix({ asked, readers, names, leftOut }) {
  const box = useRef(null);
  const wanted = useRef(false);
  const [words, setWords] = useState(asked);
  const [active, setActive] = useState({ id: null, column: 0 });
  const [near, setNear] = useState(null);
  const [rowHeight, setRowHeight] = useState(34);
  const [sight, setSight] = useState({ first: 0, last: ALL_ROWS_UP_TO });

  const shown = useMemo(() => {
    const needle = words.trim().toLowerCase();
    return needle ? readers.filter((each) => `${each.label} ${each.id} ${each.host} ${each.state}`.toLowerCase().includes(needle)) : readers;
  }, [readers, words]);
  const columns = names.length + 1 + FACTS.length;
  const column = Math.min(active.column, columns - 1);
  const windowed = shown.length > ALL_ROWS_UP_TO;
  const first = windowed ? Math.min(sight.first, Math.max(0, shown.length - ALL_ROWS_UP_TO)) : 0;
  const last = windowed ? Math.min(sight.last, shown.length) : shown.length;
  const place = shown.findIndex((each) => each.id === active.id);
  // Where the active row is out of sight, Tab reaches the first that is drawn.
  const tabbed = place >= first && place < last ? place : first;

  const lookAt = useCallback(() => {
    const { scrollTop, clientHeight } = box.current;
    const from = Math.max(0, Math.floor(scrollTop / rowHeight) - SPARE_ROWS);
    const to = from + Math.ceil(clientHeight / rowHeight) + 2 * SPARE_ROWS;
    setSight((before) => (before.first === from && before.last === to ? before : { first: from, last: to }));
  }, [rowHeight]);

  useLayoutEffect(() => {
    const height = box.current.querySelector("tbody tr[aria-rowindex]")?.offsetHeight;
    if (height && height !== rowHeight) setRowHeight(height);
    if (windowed) lookAt();
  }, [windowed, lookAt, shown.length]);

  // Before anything else happens: the row that had the focus may be out of sight now, and gone.
  useLayoutEffect(() => {
    if (!wanted.current) return;
    wanted.current = false;
    box.current.querySelector('tbody [tabindex="0"]')?.focus();
  });

  const move = (event) => {
    const page = Math.max(1, Math.floor(box.current.clientHeight / rowHeight) - 2);
    const edge = event.ctrlKey || event.metaKey;
    const goes = {
      ArrowDown: [tabbed + 1, column],
      ArrowUp: [tabbed - 1, column],
      ArrowRight: [tabbed, column + 1],
      ArrowLeft: [tabbed, column - 1],
      PageDown: [tabbed + page, column],
      PageUp: [tabbed - page, column],
      Home: [edge ? 0 : tabbed, 0],
      End: [edge ? shown.length - 1 : tabbed, columns - 1],
    }[event.key];
    if (!goes || event.altKey) return;
    event.preventDefault();
    const row = Math.max(0, Math.min(shown.length - 1, goes[0]));
    if (windowed && (row < first || row >= last)) {
      box.current.scrollTop = row * rowHeight;
      lookAt();
    }
    wanted.current = true;
    setActive({ id: shown[row].id, column: Math.max(0, Math.min(columns - 1, goes[1])) });
  };

  const told = near ?? { id: active.id, name: names[column - 1] };
  return html`<${Panel}
    title="Who serves what"
    flush
    note=${leftOut > 0 && `${counted(leftOut, "more reader")} are registered than are looked at.`}
    actions=${(readers.length > 8 || words) &&
    html`<input
      type="search"
      class="filter"
      placeholder="Filter"
      aria-label="Filter: readers by name, host or state"
      value=${words}
      onInput=${(event) => setWords(event.currentTarget.value)}
    />`}
  >
    <ul class="legend" aria-label="What the signs mean">
      ${RANKS.toReversed().map((word) => html`<li key=${word} title=${STATES[word]}><${Sign} state=${word} /> ${look(word).word}</li>`)}
    </ul>
    <div ref=${box} class=${`matrix-frame ${windowed ? "windowed" : ""}`} onScroll=${windowed ? lookAt : null}>
      <table
        class=${`matrix ${names.length <= WORDS_UP_TO ? "worded" : ""}`}
        role="grid"
        aria-rowcount=${shown.length + 1}
        aria-colcount=${columns}
        onKeyDown=${move}
      >
        <caption class="unseen">What each of ${counted(shown.length, "reader")} serves of ${counted(names.length, "component")}; move with the arrow keys</caption>
        <thead>
          <tr aria-rowindex="1">
            <th scope="col" class="corner">Reader</th>
            ${names.map((name) => html`<th key=${`of ${name}`} scope="col" title=${clean(name, 200)}><span class="upright"><${Text} value=${name} limit=${60} /></span></th>`)}
            ${FACTS.map(([title]) => html`<th key=${title} scope="col">${title}</th>`)}
          </tr>
        </thead>
        <tbody onMouseLeave=${() => setNear(null)}>
          ${first > 0 && html`<tr key="above" aria-hidden="true"><td colspan=${columns} height=${first * rowHeight}></td></tr>`}
          ${shown.slice(first, last).map(
            (reader, at) => html`<${Row}
              key=${reader.id}
              reader=${reader}
              names=${names}
              index=${first + at}
              tab=${first + at === tabbed ? column : -1}
              setActive=${setActive}
              setNear=${setNear}
            />`,
          )}
          ${last < shown.length && html`<tr key="below" aria-hidden="true"><td colspan=${columns} height=${(shown.length - last) * rowHeight}></td></tr>`}
        </tbody>
      </table>
    </div>
    ${shown.length === 0 && html`<p class="note table-none">Nothing matches “${clean(words, 60)}”.</p>`}
    <${Described} reader=${readers.find((each) => each.id === told.id)} name=${told.name} />
  <//>`;
}

function Sign({ state }) {
  const { tone, icon } = look(state);
  return html`<span class=${`sign ${tone}`}><${Icon} name=${icon} /></span>`;
}

/** What to show of a component; nothing where no version of it is there to be served. */
function stateOf(cell) {
  return cell && (cell.state !== "missing" || cell.wanted) ? cell.state : null;
}

function absenceOf(cell) {
  return cell ? "Not released" : "Not served here";
}

/** Drawn again only when its reader is another object, or the focus came or went. */
const Row = memo(({ reader, names, index, tab, setActive, setNear }) => {
  const of = (column) => ({
    tabindex: tab === column ? 0 : -1,
    onFocus: () => setActive({ id: reader.id, column }),
    onMouseEnter: () => setNear({ id: reader.id, name: names[column - 1] }),
  });
  return html`<tr aria-rowindex=${index + 2}>
    <th scope="row" role="rowheader" ...${of(0)}>
      <${Sign} state=${reader.state} /><span class="reader-name"><${Text} value=${nameOf(reader)} limit=${60} /></span><span class="unseen"> ${look(reader.state).word}</span>
    </th>
    ${names.map((name, at) => {
      const cell = reader.components[name];
      const state = stateOf(cell);
      return html`<td key=${`of ${name}`} role="gridcell" class=${cell?.error ? "marked" : null} ...${of(at + 1)}>
        ${state
          ? html`<${Sign} state=${state} /><span class="word">${look(state).word}${cell.error && html`<span class="unseen">: ${clean(cell.error, 200)}</span>`}</span>`
          : html`<span class="word none">${absenceOf(cell)}</span>`}
      </td>`;
    })}
    ${FACTS.map(([title, shown], at) => html`<td key=${title} role="gridcell" class="plain" ...${of(names.length + 1 + at)}>${shown(reader)}</td>`)}
  </tr>`;
});

/** What is pointed at or has the focus, in words: also for a touch, which gives the focus. */
function Described({ reader, name }) {
  if (!reader) return html`<p class="described note">Point at a cell, or move with the arrow keys, to see what is behind it.</p>`;
  const cell = name && reader.components[name];
  return html`<dl class="described facts" data-testid="described">
    <div><dt>Reader</dt><dd><${Text} value=${nameOf(reader)} limit=${120} /><small><${Text} value=${reader.host ?? ""} limit=${120} /> <${Id} value=${reader.id} length=${24} /></small></dd></div>
    <div><dt>State</dt><dd><${State} value=${reader.state} /><small>${STATES[reader.state]}</small></dd></div>
    <div><dt>Release</dt><dd>${reader.release ? number(reader.release) : "none yet"}</dd></div>
    <div><dt>Memory</dt><dd>${bytes(reader.memory_bytes)}</dd></div>
    <div><dt>Last seen</dt><dd><${Age} at=${reader.last_seen_at} /></dd></div>
    ${name &&
    html`<div><dt><${ComponentLink} name=${name} /></dt>
      <dd>${stateOf(cell) ? html`<${State} value=${cell.state} /><small>${cell.version ? html`version <${Id} value=${cell.version} />` : "no version of it"}</small>` : html`<${Badge}>${absenceOf(cell)}<//>`}</dd></div>`}
    ${cell?.error && html`<div class="whole"><dt>Error</dt><dd><${Text} value=${cell.error} limit=${4000} lines /></dd></div>`}
  </dl>`;
}
