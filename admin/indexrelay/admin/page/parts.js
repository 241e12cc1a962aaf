// The pieces that every view is made of. A view imports all that it needs from here.
//
// Text that comes from outside goes through `Text` (or `clean`): it becomes a text node, cut at a
// length, with control characters visible. Nothing here sets markup from a string.

import htm from "./vendor/htm.js";
import { Component, createContext, h, render } from "./vendor/preact.js";
import {
  useCallback,
  useContext,
  useEffect,
  useId,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "./vendor/hooks.js";
import { age, clean, duration, elapsed, none, now, number, percent, secondsSince, stamp } from "./formats.js";

export * from "./formats.js";
export { ApiError, api } from "./api.js";
export { kept, onEvent } from "./stream.js";
export {
  Component,
  createContext,
  h,
  render,
  useCallback,
  useContext,
  useEffect,
  useId,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
};

export const html = htm.bind(h);

/** Drawn again only when one of its properties is another value. */
export function memo(draw) {
  return class extends Component {
    shouldComponentUpdate(next) {
      const keys = new Set([...Object.keys(next), ...Object.keys(this.props)]);
      for (const key of keys) if (!Object.is(next[key], this.props[key])) return true;
      return false;
    }
    render(props) {
      return draw(props);
    }
  };
}

// ---- addresses -----------------------------------------------------------------------------

/** The address of a view: `link("components", "tracks", {version: "ab"})`. */
export function link(...parts) {
  const query = typeof parts.at(-1) === "object" ? parts.pop() : null;
  const path = parts.map((each) => encodeURIComponent(each)).join("/");
  const pairs = Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined);
  const search = new URLSearchParams(pairs).toString();
  return `#/${path}${search ? `?${search}` : ""}`;
}

/** Go to the address of a view. */
export function go(...parts) {
  location.hash = link(...parts);
}

/** Whether this person may change something. */
export function canOperate(me) {
  return me?.role === "operator";
}

// ---- signs ---------------------------------------------------------------------------------

// Sixteen by sixteen, drawn with strokes.
const SHAPES = {
  check: "M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 0 1 0-13M5 8.2l2.1 2.1L11 6",
  warn: "M8 2L14.7 13.7H1.3zM8 6.2v3.6M8 11.6v.3",
  bad: "M5.2 1.5h5.6l3.7 3.7v5.6l-3.7 3.7H5.2l-3.7-3.7V5.2zM5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4",
  info: "M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 0 1 0-13M8 7.2v4M8 4.8v.3",
  clock: "M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 0 1 0-13M8 4.2V8l2.6 1.6",
  gone: "M4 8h8M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 0 1 0-13",
  refused: "M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 0 1 0-13M3.5 12.5l9-9",
  empty: "M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 0 1 0-13",
  dots: "M3 8h.4M7.8 8h.4M12.6 8h.4",
  work: "M8 1.5v3M8 11.5v3M1.5 8h3M11.5 8h3M3.4 3.4l2.1 2.1M10.5 10.5l2.1 2.1M12.6 3.4l-2.1 2.1M5.5 10.5l-2.1 2.1",
  pause: "M5.5 3v10M10.5 3v10",
  lock: "M3.5 7h9v7h-9zM5.5 7V4.8a2.5 2.5 0 0 1 5 0V7",
  skip: "M3 4l5 4l-5 4zM8.5 4l5 4l-5 4z",
  gauge: "M2.2 12.5a6.5 6.5 0 1 1 11.6 0zM8 10l2.8-3.6",
  cube: "M8 1.5l5.8 3.2v6.6L8 14.5l-5.8-3.2V4.7zM2.2 4.7L8 8l5.8-3.3M8 8v6.5",
  grid: "M2 2h5v5H2zM9 2h5v5H9zM2 9h5v5H2zM9 9h5v5H9z",
  tag: "M2 2h6l6 6l-6 6l-6-6zM5 5v.2",
  points: "M2.45 11.5a1.05 1.05 0 1 0 2.1 0a1.05 1.05 0 1 0 -2.1 0M3.55 5.2a1.05 1.05 0 1 0 2.1 0a1.05 1.05 0 1 0 -2.1 0M7.15 9.2a1.05 1.05 0 1 0 2.1 0a1.05 1.05 0 1 0 -2.1 0M10.55 3.8a1.05 1.05 0 1 0 2.1 0a1.05 1.05 0 1 0 -2.1 0M11.55 10.8a1.05 1.05 0 1 0 2.1 0a1.05 1.05 0 1 0 -2.1 0M6.95 14a1.05 1.05 0 1 0 2.1 0a1.05 1.05 0 1 0 -2.1 0",
  search: "M7 2a5 5 0 1 1 0 10a5 5 0 0 1 0-10M10.8 10.8L14.3 14.3",
  chart: "M2 2v12h12M4.5 11l3-4l2.4 2.2L13.5 4",
  letter: "M1.8 3.5h12.4v9H1.8zM1.8 4l6.2 5l6.2-5",
  calendar: "M2 3.5h12v10.5H2zM2 6.8h12M5 1.8v3M11 1.8v3",
  box: "M1.8 3h12.4v3.2H1.8zM2.8 6.2V13.5h10.4V6.2M6.3 9h3.4",
  bell: "M3.2 11.5h9.6c-1-1.2-1.3-2-1.3-4.7a3.5 3.5 0 0 0-7 0c0 2.7-.3 3.5-1.3 4.7M6.6 13.7h2.8",
  list: "M5.5 4h8.5M5.5 8h8.5M5.5 12h8.5M2 4h.3M2 8h.3M2 12h.3",
  sun: "M8 5a3 3 0 1 1 0 6a3 3 0 0 1 0-6M8 1v1.4M8 13.6V15M1 8h1.4M13.6 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1",
  moon: "M13.5 9.6A6 6 0 0 1 6.4 2.5a6 6 0 1 0 7.1 7.1",
  screen: "M1.8 2.8h12.4v8.4H1.8zM5.5 14h5M8 11.2V14",
  menu: "M2 4h12M2 8h12M2 12h12",
  close: "M3.5 3.5l9 9M12.5 3.5l-9 9",
  out: "M9.5 2H3v12h6.5M6.5 8h8M11.8 5.2L14.6 8l-2.8 2.8",
  up: "M3.5 10L8 5.5l4.5 4.5",
  down: "M3.5 6L8 10.5L12.5 6",
  plus: "M8 3v10M3 8h10",
  minus: "M3 8h10",
  fit: "M2 5.5V2h3.5M10.5 2H14v3.5M14 10.5V14h-3.5M5.5 14H2v-3.5",
  lasso: "M8 2.2c3.6 0 6 1.7 6 4s-2.4 4.2-6 4.2-6-1.8-6-4.2 2.4-4 6-4M5 10.2c-1.6.6-2.3 2-1.2 2.8 1 .7 2.2-.2 1.6-1.4M4.4 13.2c-.4.6-1 1-1.8 1.2",
  again: "M13.5 8a5.5 5.5 0 1 1-1.6-3.9M13.8 1.8v3h-3",
};

/** A sign. Without a `title` it is decoration, and a word stands beside it. */
export function Icon({ name, title, className = "" }) {
  return html`<svg
    class=${`icon ${className}`}
    viewBox="0 0 16 16"
    role=${title ? "img" : null}
    aria-label=${title ?? null}
    aria-hidden=${title ? null : "true"}
    focusable="false"
  ><path d=${SHAPES[name] ?? SHAPES.empty} /></svg>`;
}

// Each word that a state may be: how it looks (colour and shape), and how it is written.
const STATES = {
  healthy: ["ok", "check"],
  current: ["ok", "check"],
  serving: ["ok", "check"],
  complete: ["ok", "check"],
  released: ["ok", "check"],
  succeeded: ["ok", "check"],
  success: ["ok", "check"],
  passed: ["ok", "check"],
  verified: ["ok", "check"],
  resolved: ["ok", "check"],
  intact: ["ok", "check"],
  ok: ["ok", "check"],
  warning: ["warn", "warn"],
  behind: ["warn", "clock"],
  partial_success: ["warn", "warn", "partial success"],
  changed: ["warn", "clock"],
  undeclared: ["warn", "warn"],
  pending: ["warn", "clock"],
  overdue: ["warn", "clock"],
  critical: ["bad", "bad"],
  failed: ["bad", "bad"],
  failure: ["bad", "bad", "failed"],
  corrupt: ["bad", "bad"],
  missing: ["bad", "empty"],
  outrun: ["bad", "bad"],
  refused: ["bad", "refused"],
  firing: ["bad", "bell"],
  error: ["bad", "bad"],
  gone: ["quiet", "gone"],
  running: ["info", "work"],
  building: ["info", "work"],
  verifying: ["info", "work"],
  improving: ["info", "work"],
  starting: ["info", "clock"],
  info: ["info", "info"],
  deferred: ["info", "clock"],
  held: ["info", "lock"],
  paused: ["info", "pause"],
  waiting: ["quiet", "dots"],
  idle: ["quiet", "empty"],
  unchanged: ["quiet", "check"],
  skipped: ["quiet", "skip"],
  superseded: ["quiet", "skip"],
  unknown: ["quiet", "empty"],
};

/** The tone ("ok", "info", "warn", "bad", "quiet"), the sign and the word of a state. */
export function look(state) {
  const key = String(state ?? "unknown").toLowerCase();
  const [tone, icon, word] = STATES[key] ?? ["quiet", "empty"];
  const said = word ?? clean(key.replaceAll("_", " "), 40);
  return { tone, icon, word: said.charAt(0).toUpperCase() + said.slice(1) };
}

/**
 * How the whole installation is: as `look` of its state, but while something is not well that ends
 * by itself, it is not called healthy.
 */
export function verdictLook(state) {
  const settles = state.status === "healthy" && state.problems.some((each) => !each.asked);
  return settles ? { tone: "info", icon: "clock", word: "Catching up" } : look(state.status);
}

/** A sentence of the service, with a capital letter: it does not begin with a name. */
export function sentence(text) {
  const said = String(text ?? "");
  return said.charAt(0).toUpperCase() + said.slice(1);
}

export function Badge({ tone = "quiet", icon, title, children }) {
  return html`<span class=${`badge ${tone}`} title=${title ?? null}>
    ${icon && html`<${Icon} name=${icon} />`}<span>${children}</span>
  </span>`;
}

/** A state: colour, shape and word, so that none of them is needed alone. */
export function State({ value, title }) {
  const { tone, icon, word } = look(value);
  return html`<${Badge} tone=${tone} icon=${icon} title=${title}>${word}<//>`;
}

// ---- text and time -------------------------------------------------------------------------

/** Text that somebody else wrote. `lines` keeps line ends; `mono` is for ids and code. */
export function Text({ value, limit = 300, lines = false, mono = false }) {
  const names = [lines && "lines", mono && "mono", "foreign"].filter(Boolean).join(" ");
  return html`<span class=${names} dir="auto">${clean(value, limit, lines)}</span>`;
}

/** Text that may be long: a few lines of it, and the rest on demand. */
export function Clip({ value, limit = 4000, lines = false }) {
  const [open, setOpen] = useState(false);
  const text = clean(value, limit, lines);
  if (text.length <= CLIPPED) return html`<${Text} value=${value} limit=${limit} lines=${lines} />`;
  return html`<span class=${`clip ${open ? "open" : ""}`}>
    <${Text} value=${value} limit=${limit} lines=${lines} />
    <button type="button" class="more" aria-expanded=${open ? "true" : "false"} onClick=${() => setOpen(!open)}>
      ${open ? "Show less" : "Show all"}
    </button>
  </span>`;
}

const CLIPPED = 160;

/** A digest or a long id: its beginning, whole on hover and for who copies it. */
export function Id({ value, length = 10 }) {
  if (value === null || value === undefined) return none;
  const text = clean(value, 200);
  const short = text.length > length + 2 ? `${text.slice(0, length)}…` : text;
  return html`<code class="id" title=${text}>${short}</code>`;
}

const tickers = new Set();
let ticking = null;

/** Draw again every so many seconds; one timer serves the whole page. */
export function useTick(seconds = 1) {
  const [, again] = useState(0);
  useEffect(() => {
    let count = 0;
    const tick = () => {
      count += 1;
      if (count % seconds === 0) again((value) => value + 1);
    };
    tickers.add(tick);
    ticking ??= setInterval(() => {
      if (!document.hidden) for (const each of tickers) each();
    }, 1000);
    return () => {
      tickers.delete(tick);
      if (tickers.size === 0) {
        clearInterval(ticking);
        ticking = null;
      }
    };
  }, [seconds]);
}

/** How long ago, kept up to date; the time itself on hover. */
export function Age({ at }) {
  useTick(1);
  if (!Number.isFinite(Date.parse(at ?? ""))) return none;
  return html`<time class="figure" datetime=${at} title=${stamp(at)}>${age(at)}</time>`;
}

/** How long something has lasted, kept up to date; when it began on hover. */
export function Lasting({ at }) {
  useTick(1);
  const seconds = secondsSince(at);
  if (seconds === null) return none;
  const rounded = seconds < 60 ? Math.max(0, Math.floor(seconds)) : Math.floor(seconds / 60) * 60;
  return html`<time class="figure" datetime=${at} title=${`since ${stamp(at)}`}>${duration(rounded)}</time>`;
}

/** A point in time. */
export function Stamp({ at }) {
  if (!Number.isFinite(Date.parse(at ?? ""))) return none;
  return html`<time class="figure" datetime=${at} title=${at}>${stamp(at)}</time>`;
}

/** A length of time. */
export function Duration({ seconds }) {
  return html`<span class="figure">${duration(seconds)}</span>`;
}

/** The time since `at`, counted while it lasts. */
export function Elapsed({ at }) {
  useTick(1);
  const began = Date.parse(at ?? "");
  if (!Number.isFinite(began)) return none;
  return html`<span class="figure" role="timer" aria-live="off">${elapsed((now() - began) / 1000)}</span>`;
}

/** A share of 1 as a bar; `null`: something is done, and nobody knows how much is left. */
export function Progress({ share, label }) {
  const known = typeof share === "number" && Number.isFinite(share);
  return html`<progress
    class="progress"
    max="1"
    value=${known ? Math.min(1, Math.max(0, share)) : null}
    aria-label=${label ?? "progress"}
  >${known ? percent(share) : ""}</progress>`;
}

// ---- frames --------------------------------------------------------------------------------

/** The head of a view: its one `h1`, and what one can do there. */
export function PageHead({ title, lead, actions, back }) {
  return html`<header class="page-head">
    <div>
      ${back && html`<a class="back" href=${back.href}>${back.text}</a>`}
      <h1 tabindex="-1">${title}</h1>
      ${lead && html`<p class="lead">${lead}</p>`}
    </div>
    ${actions && html`<div class="actions">${actions}</div>`}
  </header>`;
}

/** A part of a view with a title of its own. */
export function Panel({ title, note, actions, flush = false, testid, children }) {
  const id = useId();
  return html`<section class=${`panel ${flush ? "flush" : ""}`} aria-labelledby=${id} data-testid=${testid ?? null}>
    <header class="panel-head">
      <div>
        <h2 id=${id}>${title}</h2>
        ${note && html`<p class="note">${note}</p>`}
      </div>
      ${actions && html`<div class="actions">${actions}</div>`}
    </header>
    <div class="panel-body">${children}</div>
  </section>`;
}

/** Names with their values. */
export function Facts({ items }) {
  return html`<dl class="facts">
    ${items.filter(Boolean).map(
      ({ label, value, hint }) => html`<div key=${label}>
        <dt>${label}</dt>
        <dd>${value ?? none}${hint && html`<small>${hint}</small>`}</dd>
      </div>`,
    )}
  </dl>`;
}

/** A button. `busy`: what it began is not done, and it cannot be pressed again. */
export function Button({ tone = "plain", busy = false, disabled = false, icon, children, ...rest }) {
  return html`<button
    type="button"
    class=${`button ${tone}`}
    disabled=${disabled || busy}
    aria-busy=${busy ? "true" : null}
    ...${rest}
  >
    ${busy ? html`<${Icon} name="work" className="turning" />` : icon && html`<${Icon} name=${icon} />`}
    <span>${children}</span>
  </button>`;
}

/** A labelled control: `children` gets the id that the label names, and of what describes it. */
export function Field({ label, hint, error, children }) {
  const id = useId();
  const said = error || hint;
  return html`<div class=${`field ${error ? "wrong" : ""}`}>
    <label for=${id}>${label}</label>
    ${children({
      id,
      "aria-describedby": said ? `${id}-said` : null,
      "aria-invalid": error ? "true" : null,
    })}
    ${said && html`<p class="said" id=${`${id}-said`}>${said}</p>`}
  </div>`;
}

/** A box to tick, with a word on what it does. */
export function Check({ label, hint, checked, disabled = false, onChange }) {
  const id = useId();
  return html`<div class="check">
    <input
      id=${id}
      type="checkbox"
      checked=${checked}
      disabled=${disabled}
      aria-describedby=${hint ? `${id}-said` : null}
      onChange=${(event) => onChange(event.currentTarget.checked)}
    />
    <div><label for=${id}>${label}</label>${hint && html`<p class="said" id=${`${id}-said`}>${hint}</p>`}</div>
  </div>`;
}

// ---- nothing, not yet, not at all -----------------------------------------------------------

/** There is nothing, and what would change that. */
export function Empty({ title, hint, action, icon = "empty" }) {
  return html`<div class="empty">
    <${Icon} name=${icon} />
    <p class="empty-title">${title}</p>
    ${hint && html`<p>${hint}</p>`}
    ${action}
  </div>`;
}

/** What an error says, and a way to try again. */
export function ErrorNote({ error, retry }) {
  if (!error) return null;
  const fields = error.fields ?? [];
  const message = error.message || String(error);
  return html`<div class="error-note" role="alert">
    <${Icon} name="bad" />
    <div>
      ${error.title && html`<p class="error-title"><${Text} value=${error.title} limit=${120} /></p>`}
      <p><${Text} value=${message} limit=${1000} lines /></p>
      ${fields.length > 0 &&
      html`<ul>
        ${fields.slice(0, 8).map(
          (each) => html`<li>
            <code>${clean(each.field ?? each.loc ?? "", 80)}</code> <${Text} value=${each.detail ?? each.msg} />
          </li>`,
        )}
      </ul>`}
      ${error.retryAfter && html`<p>Try again in ${duration(error.retryAfter)}.</p>`}
      ${retry && html`<${Button} icon="again" onClick=${retry}>Try again<//>`}
    </div>
  </div>`;
}

/** The place that something will have. */
export function Skeleton({ rows = 4 }) {
  return html`<div class="skeleton" role="status">
    <span class="unseen">Loading</span>
    ${Array.from({ length: rows }, (_, row) => html`<div key=${row} class="bone" />`)}
  </div>`;
}

/**
 * Ask for something, again whenever one of `keys` is another value.
 *
 * @param {string | number} of what is asked for. The answer about another one is not shown.
 * @returns {{data, error, loading, reload}} what was there stays while it is asked for again.
 */
export function useLoad(ask, keys = [], of = "") {
  const nothing = { of, data: null, error: null, loading: true };
  const [held, hold] = useState(nothing);
  const [turn, setTurn] = useState(0);
  const asked = useRef(ask);
  asked.current = ask;
  useEffect(() => {
    const stopped = new AbortController();
    hold((before) => (before.of === of ? { ...before, loading: true } : nothing));
    Promise.resolve()
      .then(() => asked.current(stopped.signal))
      .then(
        (data) => stopped.signal.aborted || hold({ of, data, error: null, loading: false }),
        (error) =>
          stopped.signal.aborted || hold((before) => ({ of, data: before.data, error, loading: false })),
      );
    return () => stopped.abort();
  }, [...keys, of, turn]);
  const reload = useCallback(() => setTurn((value) => value + 1), []);
  return { ...(held.of === of ? held : nothing), reload };
}

/** What was asked for, or why it is not here. `children` draws it. */
export function Loaded({ load, rows, empty, children }) {
  const { data, error, loading, reload } = load;
  if (data === null || data === undefined) {
    if (error) return html`<${ErrorNote} error=${error} retry=${reload} />`;
    return loading ? html`<${Skeleton} rows=${rows} />` : empty ?? null;
  }
  return html`${error && html`<${ErrorNote} error=${error} retry=${reload} />`}
  ${empty && Array.isArray(data) && data.length === 0 ? empty : children(data)}`;
}

// ---- tables --------------------------------------------------------------------------------

const FIRST_ROWS = 100;

const Row = memo(({ row, columns }) =>
  html`<tr role="row">
    ${columns.map((column, place) => {
      const names = [column.align === "end" && "end", column.wide && "wide"].filter(Boolean).join(" ");
      const shown = column.cell ? column.cell(row) : clean(row[column.key]);
      return place === 0 && column.head !== false
        ? html`<th key=${column.key} scope="row" role="rowheader" class=${names}>${shown}</th>`
        : html`<td key=${column.key} role="cell" class=${names} data-title=${column.title}>${shown}</td>`;
    })}
  </tr>`,
);

/**
 * A table. It shows a hundred rows and more on request; a row is drawn again only when its object
 * is another one, so keep `columns` the same between draws (a constant, or `useMemo`).
 *
 * @param {Array<{key, title, cell?, sort?, align?, wide?}>} columns `cell(row)` draws; `sort(row)`
 *     gives what to sort by. The first column is the row's name.
 * @param {(row) => string} rowKey a key that stays the row's own.
 * @param {(row) => string} filter text that the filter box looks in; none: no box.
 * @param {[string, "asc" | "desc"]} order how it is sorted at first; none: as given.
 */
export function Table({ caption, columns, rows, rowKey, empty, filter, order = null, footer, testid }) {
  const [sorted, setSorted] = useState(order);
  const [words, setWords] = useState("");
  const [shown, setShown] = useState(FIRST_ROWS);
  const found = useMemo(() => {
    const needle = words.trim().toLowerCase();
    const kept = needle && filter ? rows.filter((row) => filter(row).toLowerCase().includes(needle)) : rows;
    const by = sorted && columns.find((column) => column.key === sorted[0])?.sort;
    if (!by) return kept;
    const sign = sorted[1] === "desc" ? -1 : 1;
    return kept
      .map((row) => [by(row), row])
      .sort(([one], [other]) => sign * compared(one, other))
      .map(([, row]) => row);
  }, [rows, columns, sorted, words]);
  const [frame, scrolls] = useScrolls();
  if (rows.length === 0 && empty) return empty;
  const some = found.slice(0, shown);
  return html`<div class="table-frame" data-testid=${testid ?? null}>
    ${filter &&
    rows.length > 8 &&
    html`<div class="table-tools">
      <input
        type="search"
        class="filter"
        placeholder="Filter"
        aria-label=${`Filter: ${caption}`}
        value=${words}
        onInput=${(event) => {
          setWords(event.currentTarget.value);
          setShown(FIRST_ROWS);
        }}
      />
      <span class="note" role="status">${words ? `${number(found.length)} of ${number(rows.length)}` : ""}</span>
    </div>`}
    <div
      class="table-scroll"
      ref=${frame}
      tabindex=${scrolls ? 0 : null}
      role=${scrolls ? "region" : null}
      aria-label=${scrolls ? caption : null}
    >
      <table role="table">
        <caption class="unseen">${caption}</caption>
        <thead role="rowgroup">
          <tr role="row">
            ${columns.map(
              (column) => html`<${Heading} key=${column.key} column=${column} sorted=${sorted} onSort=${setSorted} />`,
            )}
          </tr>
        </thead>
        <tbody role="rowgroup">
          ${some.map((row) => html`<${Row} key=${rowKey(row)} row=${row} columns=${columns} />`)}
        </tbody>
      </table>
    </div>
    ${found.length === 0 && html`<p class="note table-none">Nothing matches “${clean(words, 60)}”.</p>`}
    ${found.length > some.length &&
    html`<div class="table-more">
      <${Button} onClick=${() => setShown(shown + FIRST_ROWS * 2)}>
        Show ${number(Math.min(FIRST_ROWS * 2, found.length - shown))} more
      <//>
      <span class="note">${number(some.length)} of ${number(found.length)} shown</span>
    </div>`}
    ${footer}
  </div>`;
}

/** Whether what a box holds is wider than the box: then the keyboard must be able to scroll it. */
function useScrolls() {
  const [scrolls, setScrolls] = useState(false);
  const watch = useRef(null);
  const frame = useCallback((element) => {
    watch.current?.disconnect();
    if (!element) return;
    const measure = () => setScrolls(element.scrollWidth > element.clientWidth + 1);
    watch.current = new ResizeObserver(measure);
    watch.current.observe(element);
    if (element.firstElementChild) watch.current.observe(element.firstElementChild);
  }, []);
  return [frame, scrolls];
}

function Heading({ column, sorted, onSort }) {
  const names = [column.align === "end" && "end", column.wide && "wide"].filter(Boolean).join(" ");
  if (!column.sort) return html`<th scope="col" role="columnheader" class=${names}>${column.title}</th>`;
  const mine = sorted?.[0] === column.key ? sorted[1] : null;
  const turned = mine === "asc" ? "desc" : "asc";
  return html`<th
    scope="col"
    role="columnheader"
    class=${names}
    aria-sort=${mine === null ? null : mine === "asc" ? "ascending" : "descending"}
  >
    <button type="button" class="sort" onClick=${() => onSort([column.key, turned])}>
      ${column.title}<${Icon} name=${mine === "desc" ? "down" : "up"} className=${mine ? "" : "faint"} />
    </button>
  </th>`;
}

const collator = new Intl.Collator(undefined, { numeric: true });

function compared(one, other) {
  const missing = (value) => value === null || value === undefined || Number.isNaN(value);
  if (missing(one) || missing(other)) return Number(missing(one)) - Number(missing(other));
  if (typeof one === "string" && typeof other === "string") {
    return collator.compare(one, other);
  }
  return one < other ? -1 : one > other ? 1 : 0;
}

// ---- tabs ----------------------------------------------------------------------------------

/** Tabs: `items` are {key, title, count}; `children` is the open one's content. */
export function Tabs({ label, items, open, onOpen, children }) {
  const id = useId();
  const strip = useRef(null);
  const move = (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const place = items.findIndex((each) => each.key === open);
    const last = items.length - 1;
    const next = Number.isFinite(step) ? (place + step + items.length) % items.length : step < 0 ? 0 : last;
    onOpen(items[next].key);
    strip.current.querySelectorAll('[role="tab"]')[next].focus();
  };
  return html`<div class="tabs">
    <div class="tab-strip" role="tablist" aria-label=${label} ref=${strip} onKeyDown=${move}>
      ${items.map(
        (each) => html`<button
          key=${each.key}
          type="button"
          role="tab"
          id=${`${id}-${each.key}`}
          aria-selected=${each.key === open ? "true" : "false"}
          aria-controls=${`${id}-panel`}
          tabindex=${each.key === open ? 0 : -1}
          onClick=${() => onOpen(each.key)}
        >${each.title}${typeof each.count === "number" && html`<span class="count">${number(each.count)}</span>`}</button>`,
      )}
    </div>
    <div role="tabpanel" id=${`${id}-panel`} aria-labelledby=${`${id}-${open}`} tabindex="0">${children}</div>
  </div>`;
}

// ---- dialogs -------------------------------------------------------------------------------

/** A dialog over the page; mount it to open it. Escape and the cross call `onClose`. */
export function Dialog({ title, onClose, busy = false, wide = false, actions, children, testid }) {
  const box = useRef(null);
  const leaving = useRef(false);
  const id = useId();
  useEffect(() => {
    const opener = document.activeElement;
    const dialog = box.current;
    dialog.showModal();
    const field = ".dialog-body :is(input, select, textarea):not(:disabled)";
    (dialog.querySelector(field) ?? dialog.querySelector(".dialog-foot button"))?.focus();
    return () => {
      leaving.current = true;
      dialog.close();
      if (opener instanceof HTMLElement && opener.isConnected) opener.focus();
    };
  }, []);
  return html`<dialog
    ref=${box}
    class=${wide ? "wide" : ""}
    aria-labelledby=${id}
    data-testid=${testid ?? null}
    onCancel=${(event) => {
      event.preventDefault();
      if (!busy) onClose();
    }}
    onClose=${() => {
      // A browser closes it at the second Escape in a row, whatever it was told at the first.
      if (leaving.current) return;
      if (busy) box.current.showModal();
      else onClose();
    }}
  >
    <header class="dialog-head">
      <h2 id=${id}>${title}</h2>
      <button type="button" class="bare" aria-label="Close" disabled=${busy} onClick=${onClose}>
        <${Icon} name="close" />
      </button>
    </header>
    <div class="dialog-body">${children}</div>
    ${actions && html`<footer class="dialog-foot">${actions}</footer>`}
  </dialog>`;
}

/**
 * Ask before something is done that cannot simply be undone.
 *
 * @param {Array} what sentences on what will happen, one a line: text or nodes.
 * @param {string} verb the word on the button: "Roll back", "Drop".
 * @param {boolean} reason whether one must say why; it goes to the audit log.
 * @param {boolean} ready whether it can be done already: what will happen may have to be asked for.
 * @param {(reason: string | null) => Promise} onConfirm an error is shown, and the dialog stays.
 */
export function Confirm({ title, what, verb, danger = false, reason = false, ready = true, wide, onConfirm, onClose, children }) {
  const [why, setWhy] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const form = useId();
  const act = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await onConfirm(reason ? why.trim() : null);
      onClose();
    } catch (raised) {
      setError(raised);
      setBusy(false);
    }
  };
  return html`<${Dialog}
    title=${title}
    busy=${busy}
    wide=${wide}
    onClose=${onClose}
    actions=${html`<${Button} disabled=${busy} onClick=${onClose}>Cancel<//>
      <${Button}
        type="submit"
        form=${form}
        tone=${danger ? "danger" : "primary"}
        busy=${busy}
        disabled=${!ready || (reason && why.trim() === "")}
      >${verb}<//>`}
  >
    <form id=${form} onSubmit=${act}>
      ${what?.length > 0 && html`<ul class="will">${what.map((each, place) => html`<li key=${place}>${each}</li>`)}</ul>`}
      ${children}
      ${reason &&
      html`<${Field} label="Reason" hint="It is kept in the audit log.">
        ${(control) => html`<input
          ...${control}
          required
          maxlength="300"
          autocomplete="off"
          value=${why}
          onInput=${(event) => setWhy(event.currentTarget.value)}
        />`}
      <//>`}
      <${ErrorNote} error=${error} />
    </form>
  <//>`;
}

// ---- messages that come and go ----------------------------------------------------------------

const toasts = new Set();
let toastNumber = 0;

/** Say something in passing, for eyes and for screen readers. Tones as of badges. */
export function toast(text, tone = "ok") {
  toastNumber += 1;
  for (const each of toasts) each({ id: toastNumber, text: clean(text, 300), tone });
}

const TOAST_MS = 7000;

/** The place where `toast` shows; once in the page. */
export function Toasts() {
  const [shown, setShown] = useState([]);
  const drop = (message) => setShown((before) => before.filter((each) => each.id !== message.id));
  useEffect(() => {
    const add = (message) => {
      setShown((before) => [...before.slice(-3), message]);
      // What went wrong stays until it was read.
      if (message.tone !== "bad") setTimeout(() => drop(message), TOAST_MS);
    };
    toasts.add(add);
    return () => toasts.delete(add);
  }, []);
  const icons = { ok: "check", warn: "warn", bad: "bad", info: "info", quiet: "info" };
  return html`<div class="toasts" role="status" aria-live="polite">
    ${shown.map(
      (each) => html`<div key=${each.id} class=${`toast ${each.tone}`}>
        <${Icon} name=${icons[each.tone] ?? "info"} /><span>${each.text}</span>
        ${each.tone === "bad" &&
        html`<button type="button" class="bare" aria-label="Dismiss" onClick=${() => drop(each)}><${Icon} name="close" /></button>`}
      </div>`,
    )}
  </div>`;
}

/** What a colour of the stylesheet is just now, for what is drawn on a canvas: `colour("--accent")`. */
export function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** Counts up whenever the colours change: draw a canvas again then. */
export function useTheme() {
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const changed = () => setTurn((value) => value + 1);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", changed);
    addEventListener("themechange", changed);
    return () => {
      dark.removeEventListener("change", changed);
      removeEventListener("themechange", changed);
    };
  }, []);
  return turn;
}

// ---- libraries -----------------------------------------------------------------------------

const scripts = new Map();

/** Load a script that is no module (deck.gl), once; resolves when it has run. */
export function classicScript(path) {
  const address = new URL(path, document.baseURI).href;
  if (!scripts.has(address)) {
    const loading = new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.src = address;
      element.onload = () => resolve();
      element.onerror = () => {
        scripts.delete(address);
        element.remove();
        reject(new Error(`${path} could not be loaded; the service may be starting again`));
      };
      document.head.append(element);
    });
    scripts.set(address, loading);
  }
  return scripts.get(address);
}
