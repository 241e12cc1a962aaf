// How it went: rebuilds, freshness and search over time, and what each release changed.

import {
  Duration,
  Empty,
  Facts,
  Loaded,
  PageHead,
  Panel,
  Stamp,
  State,
  Table,
  Tabs,
  Text,
  api,
  axisDuration,
  clean,
  duration,
  go,
  html,
  link,
  millis,
  none,
  now,
  number,
  onEvent,
  percent,
  useEffect,
  useLoad,
  useMemo,
} from "../parts.js";
import { Chart } from "../charts.js";

const RANGES = [
  { key: "day", title: "24 hours", seconds: 86_400 },
  { key: "week", title: "7 days", seconds: 604_800 },
  { key: "month", title: "30 days", seconds: 2_592_000 },
  { key: "all", title: "All", seconds: null },
];
/** Rebuilds, and releases, that are asked for: all that are kept. */
const MOST = 10_000;
const WHOLE = [0, 1];
/** Steps of an axis of seconds: such as a clock has. */
const SECONDS = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200,
  14_400, 21_600, 43_200, 86_400, 172_800, 432_000, 864_000, 2_592_000,
];
/** So much time a chart shows at least. */
const LEAST_SECONDS = 600;
/** Of many rebuilds in a row, the page asks again once. */
const SETTLE_MS = 3000;

export function HistoryView({ route }) {
  const range = RANGES.find((each) => each.key === route.query.get("range")) ?? RANGES[1];
  const tab = route.query.get("list") === "releases" ? "releases" : "rebuilds";
  const load = useLoad(
    (signal) => {
      const since = range.seconds === null ? null : new Date(now() - range.seconds * 1000).toISOString();
      const asked = new URLSearchParams({ limit: MOST, ...(since && { since }) });
      return api.get(`history?${asked}`, { signal });
    },
    [],
    range.key,
  );
  useEffect(() => {
    let timer = null;
    const soon = () => {
      clearTimeout(timer);
      timer = setTimeout(load.reload, SETTLE_MS);
    };
    const ended = (rebuild) => rebuild?.state !== "running" && soon();
    const stops = [onEvent("release", soon), onEvent("rebuild", ended)];
    return () => {
      clearTimeout(timer);
      for (const stop of stops) stop();
    };
  }, [load.reload]);
  const actions = html`<div class="segments" role="group" aria-label="Time shown">
    ${RANGES.map(
      (each) => html`<button
        key=${each.key}
        type="button"
        aria-pressed=${each.key === range.key ? "true" : "false"}
        onClick=${() => go("history", { range: each.key, list: tab })}
      >${each.title}</button>`,
    )}
  </div>`;
  return html`<${PageHead}
      title="History"
      lead="How rebuilds, freshness and search went over time, and what each release changed."
      actions=${actions}
    />
    <${Loaded} load=${load} rows=${12}>
      ${(history) => html`<${Drawn} history=${history} range=${range} tab=${tab} />`}
    <//>`;
}

function Drawn({ history, range, tab }) {
  const { rebuilds, samples, releases } = history;
  const built = useMemo(() => rebuilds.filter(didSomething), [rebuilds]);
  const rebuildSeries = useMemo(() => rebuildPoints(built), [built]);
  const span = useMemo(() => spanOf(built, samples), [built, samples]);
  const sampled = useMemo(() => sampleLines(samples), [samples]);
  return html`<${Panel} title="Rebuilds at a glance">
      <${Facts} items=${totals(built)} />
    <//>
    <div class="two">
      <${Panel} title="Rebuild durations" note="One dot for each rebuild.">
        <${Chart} title="Rebuild durations" ...${rebuildSeries} span=${span} format=${duration} onAxis=${axisDuration} steps=${SECONDS} empty="No rebuild ended in this time." />
      <//>
      <${Panel} title="Success rate" note="Of the rebuilds of the 24 hours before.">
        <${Chart} title="Success rate" ...${sampled.success} span=${span} format=${percent} range=${WHOLE} />
      <//>
      <${Panel} title="Freshness" note="Age of the oldest commit that was not served.">
        <${Chart} title="Freshness" ...${sampled.freshness} span=${span} format=${duration} onAxis=${axisDuration} steps=${SECONDS} />
      <//>
      <${Panel} title="Search latency" note="As the gates measured the slowest released index.">
        <${Chart} title="Search latency" ...${sampled.latency} span=${span} format=${millis} onAxis=${(value) => axisDuration(value / 1000)} />
      <//>
    </div>
    <${Panel} title="Rebuilds and releases" flush>
      <div class="tabs-in-panel">
        <${Tabs}
          label="Lists"
          items=${[
            { key: "rebuilds", title: "Rebuilds", count: rebuilds.length },
            { key: "releases", title: "Releases", count: releases.length },
          ]}
          open=${tab}
          onOpen=${(key) => go("history", { range: range.key, list: key })}
        >
          ${tab === "rebuilds" ? html`<${Rebuilds} rows=${rebuilds} />` : html`<${Releases} rows=${releases} />`}
        <//>
      </div>
    <//>`;
}

/** A pass that found nothing due says nothing about how long a rebuild takes. */
function didSomething(rebuild) {
  return rebuild.components?.length > 0 || rebuild.failed?.length > 0 || isFailure(rebuild.status);
}

/** The time from the first of all to now, the same for every chart. */
function spanOf(rebuilds, samples) {
  const begins = [...rebuilds, ...samples].map((each) => seconds(each.at)).filter(Number.isFinite);
  const end = now() / 1000;
  const first = begins.reduce((one, other) => Math.min(one, other), end);
  return [Math.min(first, end - LEAST_SECONDS), end];
}

// ---- what the charts show ------------------------------------------------------------------

function seconds(iso) {
  return Date.parse(iso) / 1000;
}

function ascending(rows) {
  return [...rows].sort((one, other) => (one.at < other.at ? -1 : one.at > other.at ? 1 : 0));
}

function isFailure(status) {
  return /^fail/i.test(status);
}

function isPartial(status) {
  return /^partial/i.test(status);
}

function rebuildPoints(rebuilds) {
  const rows = ascending(rebuilds);
  const values = (wanted) => rows.map((row) => (wanted(row.status) ? row.seconds : null));
  return {
    times: rows.map((row) => seconds(row.at)),
    series: [
      { label: "Complete", tone: "--accent", points: "full", values: values((status) => !isFailure(status) && !isPartial(status)) },
      { label: "Partial", tone: "--warn", points: "hollow", values: values(isPartial) },
      { label: "Failed", tone: "--bad", points: "hollow", values: values(isFailure) },
    ],
  };
}

function sampleLines(samples) {
  const rows = ascending(samples);
  const times = rows.map((row) => seconds(row.at));
  const line = (label, tone, key) => ({ label, tone, values: rows.map((row) => row[key] ?? null) });
  return {
    success: { times, series: [line("Succeeded", "--ok", "success_ratio")] },
    freshness: { times, series: [line("Oldest commit not served", "--accent", "freshness_seconds")] },
    latency: { times, series: [line("Median", "--accent", "p50_ms"), line("99th percentile", "--warn", "p99_ms")] },
  };
}

function totals(rebuilds) {
  const lengths = rebuilds
    .map((each) => each.seconds)
    .filter((value) => typeof value === "number")
    .sort((one, other) => one - other);
  const failed = rebuilds.filter((each) => isFailure(each.status)).length;
  const partial = rebuilds.filter((each) => isPartial(each.status)).length;
  const at = (share) => lengths[Math.min(lengths.length - 1, Math.floor(share * lengths.length))];
  return [
    { label: "Rebuilds", value: number(rebuilds.length) },
    { label: "Complete", value: rebuilds.length ? percent((rebuilds.length - failed - partial) / rebuilds.length) : none },
    { label: "Failed", value: number(failed), hint: partial ? `${number(partial)} in part` : null },
    { label: "Median", value: duration(at(0.5)) },
    { label: "95th percentile", value: duration(at(0.95)) },
    { label: "Longest", value: duration(lengths.at(-1)) },
  ];
}

// ---- lists ---------------------------------------------------------------------------------

function names(list, limit = 4) {
  const all = Array.isArray(list) ? list : [];
  if (all.length === 0) return none;
  const shown = all.slice(0, limit).map((each) => clean(each, 60)).join(", ");
  return all.length > limit ? `${shown} and ${number(all.length - limit)} more` : shown;
}

function Built({ row }) {
  const failed = row.failed ?? [];
  const rebuilt = (row.components ?? []).filter((each) => !failed.includes(each));
  return html`${(rebuilt.length > 0 || failed.length === 0) && names(rebuilt)}
    ${failed.length > 0 && html`<small class="said">failed: ${names(failed)}</small>`}`;
}

const REBUILD_COLUMNS = [
  { key: "at", title: "Ended", sort: (row) => Date.parse(row.at), cell: (row) => html`<${Stamp} at=${row.at} />` },
  { key: "status", title: "Result", sort: (row) => row.status, cell: (row) => html`<${State} value=${row.status} />` },
  { key: "seconds", title: "Took", align: "end", sort: (row) => row.seconds, cell: (row) => html`<${Duration} seconds=${row.seconds} />` },
  { key: "components", title: "Components", cell: (row) => html`<${Built} row=${row} />` },
  { key: "trigger", title: "Cause", sort: (row) => row.trigger, cell: (row) => clean(row.trigger, 80) },
  {
    key: "release",
    title: "Release",
    align: "end",
    sort: (row) => row.release,
    cell: (row) => (row.release ? html`<a href=${link("releases", row.release)}>${number(row.release)}</a>` : none),
  },
  { key: "message", title: "Message", wide: true, cell: (row) => html`<${Text} value=${row.message} limit=${240} />` },
];

function Rebuilds({ rows }) {
  return html`<${Table}
    caption="Rebuilds"
    columns=${REBUILD_COLUMNS}
    rows=${rows}
    rowKey=${(row) => row.id}
    order=${["at", "desc"]}
    filter=${(row) => `${row.status} ${row.trigger} ${(row.components ?? []).join(" ")} ${row.message ?? ""}`}
    empty=${html`<${Empty} icon="chart" title="No rebuild in this time" hint="Choose a longer time above." />`}
  />`;
}

function Changes({ release }) {
  const parts = [
    ["added", release.added],
    ["changed", release.changed],
    ["removed", release.removed],
    ["held", Array.isArray(release.holds) ? release.holds : Object.keys(release.holds ?? {})],
  ].filter(([, list]) => list?.length > 0);
  if (parts.length === 0) return "nothing";
  return parts.map(
    ([word, list]) => html`<span key=${word} class="change"><span class="note">${word}</span> ${names(list, 6)}</span>`,
  );
}

const RELEASE_COLUMNS = [
  {
    key: "number",
    title: "Release",
    sort: (row) => row.number,
    cell: (row) => html`<a href=${link("releases", row.number)}>${number(row.number)}</a>`,
  },
  { key: "made_at", title: "Made", sort: (row) => Date.parse(row.made_at), cell: (row) => html`<${Stamp} at=${row.made_at} />` },
  { key: "what", title: "What it changed", wide: true, cell: (row) => html`<${Changes} release=${row} />` },
  { key: "by", title: "By", sort: (row) => row.by, cell: (row) => clean(row.by, 80) },
  { key: "reason", title: "Reason", cell: (row) => html`<${Text} value=${row.reason} limit=${200} />` },
];

function Releases({ rows }) {
  return html`<${Table}
    caption="Releases"
    columns=${RELEASE_COLUMNS}
    rows=${rows}
    rowKey=${(row) => row.number}
    order=${["number", "desc"]}
    empty=${html`<${Empty} icon="tag" title="No release in this time" hint="Choose a longer time above." />`}
  />`;
}
