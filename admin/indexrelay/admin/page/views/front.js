// Why an index is what it is: what `auto` tried, as a chart of recall over latency with a table beside.
//
// A point is an index. Its size follows the memory, a filled one is on the Pareto front (no other is
// better in everything), the ringed one was chosen. Row and point of one index light up together.

import {
  Badge, bytes, clean, duration, html, millis, none, number, Panel, Table, Text, useMemo, useState,
} from "../parts.js";

const WIDTH = 520;
const HEIGHT = 300;
const LEFT = 52;
const RIGHT = 16;
const TOP = 16;
const BOTTOM = 44;

export function Front({ page }) {
  const [near, setNear] = useState(null);
  const tried = page.pareto;
  const columns = useMemo(() => columnsOf(setNear), []);
  const rows = useMemo(
    () => [...tried].sort((one, other) => one.latency_us - other.latency_us).map((each) => ({ ...each, near: each.index === near })),
    [tried, near],
  );
  if (!page.index) return null;
  const limitOf = (pattern) => page.checks.find((each) => pattern.test(each.name))?.limit;
  const minRecall = limitOf(/(^|\.)recall_at_10$/) ?? page.parameters.min_recall;
  const maxLatency = limitOf(/(^|\.)latency_ms$/) ?? page.parameters.max_latency_ms;
  // One point says nothing that the table does not.
  const isChart = tried.length > 1 || page.trials.length > 1;
  const measured = tried.filter((each) => each.recall !== null && each.latency_us !== null);
  return html`<${Panel} title="Why this index" note="What was tried on its entries when it was built.">
    <p><strong><${Text} value=${page.index} limit=${80} /></strong>${page.index_reason && html`: <${Text} value=${page.index_reason} limit=${400} />`}</p>
    ${measured.length > 0 &&
    html`<div class=${isChart ? "front" : ""}>
      ${isChart && html`<figure>
        <${Scatter} tried=${measured} trials=${page.trials} near=${near} setNear=${setNear} minRecall=${minRecall} maxLatency=${maxLatency} />
        <figcaption class="note">The larger, the more memory. Filled: no other is better in everything. Ringed: chosen; its line is what more effort in a search buys. Dashed: the limit of its gate.</figcaption>
      </figure>`}
      <${Table} caption="Indexes that were tried, the fastest first" columns=${columns} rows=${rows} rowKey=${(each) => each.index} />
    </div>`}
  <//>`;
}

function columnsOf(setNear) {
  return [
    {
      key: "index",
      title: "Index",
      cell: (each) => html`<span
        class=${each.near ? "near" : ""}
        onMouseEnter=${() => setNear(each.index)}
        onMouseLeave=${() => setNear(null)}
        ><${Text} value=${each.index} limit=${80} /></span
      ><small>${standingOf(each)}</small>`,
    },
    { key: "recall", title: "Recall", align: "end", cell: (each) => number(each.recall, 4) },
    { key: "latency_us", title: "A query", align: "end", cell: (each) => foreseen(each, queryOf(each)) },
    { key: "bytes", title: "Memory", align: "end", cell: (each) => bytes(each.bytes) },
    { key: "build_seconds", title: "Built in", align: "end", cell: (each) => foreseen(each, duration(each.build_seconds)) },
  ];
}

const queryOf = ({ latency_us: micros }) => (micros === null ? none : millis(micros / 1000));

/** Figures that a part of the entries foretells, and nobody measured over all of them. */
function foreseen(each, shown) {
  return each.foreseen ? html`<span title="foreseen from a part of the entries">≈ ${shown}</span>` : shown;
}

const SHORT = { recall: "Too little recall", latency: "Too slow" };

function standingOf({ chosen, front, short_of: shortOf }) {
  if (chosen) return html`<${Badge} tone="ok" icon="check">Chosen<//>`;
  if (shortOf.length) return html`<${Badge} tone="warn" icon="warn">${shortOf.map((each) => SHORT[each] ?? clean(each, 40)).join(", ")}<//>`;
  return front ? html`<${Badge} tone="info" icon="info">On the front<//>` : html`<${Badge}>Another is better<//>`;
}

function Scatter({ tried, trials, near, setNear, minRecall, maxLatency }) {
  const line = useMemo(() => trials.filter((each) => each.recall !== null && each.latency_us !== null), [trials]);
  const { x, y, r, ticksX, ticksY } = useMemo(() => scales(tried, line), [tried, line]);
  const best = tried.find((each) => each.chosen);
  const said = `Recall over latency of ${tried.length} indexes${best ? `; ${clean(best.index, 80)} was chosen` : ""}. The table beside it has the figures.`;
  return html`<svg class="scatter" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${said}>
    ${ticksX.map(
      (value) => html`<g key=${`x${value}`}>
        <line class="grid" x1=${x(value)} x2=${x(value)} y1=${TOP} y2=${HEIGHT - BOTTOM} />
        <text x=${x(value)} y=${HEIGHT - BOTTOM + 16} text-anchor="middle">${millis(value / 1000)}</text>
      </g>`,
    )}
    ${ticksY.map(
      (value) => html`<g key=${`y${value}`}>
        <line class="grid" x1=${LEFT} x2=${WIDTH - RIGHT} y1=${y(value)} y2=${y(value)} />
        <text x=${LEFT - 6} y=${y(value) + 4} text-anchor="end">${value.toFixed(ticksY.digits)}</text>
      </g>`,
    )}
    <text x=${(LEFT + WIDTH - RIGHT) / 2} y=${HEIGHT - 8} text-anchor="middle">a query, on a logarithmic scale</text>
    <text x=${LEFT - 6} y=${TOP - 4} text-anchor="end">recall</text>
    ${typeof minRecall === "number" &&
    y(minRecall) >= TOP &&
    y(minRecall) <= HEIGHT - BOTTOM &&
    html`<line class="limit" x1=${LEFT} x2=${WIDTH - RIGHT} y1=${y(minRecall)} y2=${y(minRecall)}><title>min_recall ${minRecall}</title></line>`}
    ${typeof maxLatency === "number" &&
    x(maxLatency * 1000) >= LEFT &&
    x(maxLatency * 1000) <= WIDTH - RIGHT &&
    html`<line class="limit" x1=${x(maxLatency * 1000)} x2=${x(maxLatency * 1000)} y1=${TOP} y2=${HEIGHT - BOTTOM}><title>max_latency_ms ${maxLatency}</title></line>`}
    ${line.length > 1 && html`<polyline class="effort" points=${line.map((each) => `${x(each.latency_us)},${y(each.recall)}`).join(" ")} />`}
    ${line.map(
      (each) => html`<circle key=${JSON.stringify(each.effort)} class=${`effort ${each.chosen ? "chosen" : ""}`} cx=${x(each.latency_us)} cy=${y(each.recall)} r="3">
        <title>${`${clean(each.effort, 80)}: recall ${number(each.recall, 4)}, ${queryOf(each)}`}</title>
      </circle>`,
    )}
    ${[...tried]
      .sort((a, b) => b.bytes - a.bytes)
      .map(
        (each) => html`<g
          key=${each.index}
          class=${`point ${each.front ? "on-front" : ""} ${each.chosen ? "chosen" : ""} ${each.short_of?.length ? "short" : ""} ${each.index === near ? "near" : ""}`}
          onMouseEnter=${() => setNear(each.index)}
          onMouseLeave=${() => setNear(null)}
        >
          ${each.chosen && html`<circle class="ring" cx=${x(each.latency_us)} cy=${y(each.recall)} r=${r(each.bytes) + 4} />`}
          <circle cx=${x(each.latency_us)} cy=${y(each.recall)} r=${r(each.bytes)}>
            <title>${`${clean(each.index, 80)}: recall ${number(each.recall, 4)}, ${millis(each.latency_us / 1000)}, ${bytes(each.bytes)}`}</title>
          </circle>
          ${(each.chosen || each.index === near) &&
          html`<text
            class="label"
            x=${x(each.latency_us) + (x(each.latency_us) > WIDTH * 0.6 ? -1 : 1) * (r(each.bytes) + 8)}
            y=${y(each.recall) + 4}
            text-anchor=${x(each.latency_us) > WIDTH * 0.6 ? "end" : "start"}
          >
            ${clean(each.index, 40)}
          </text>`}
        </g>`,
      )}
  </svg>`;
}

/** From figures to pixels: latency by its logarithm, recall as it is, memory by the area of a disc. */
function scales(tried, line) {
  const all = [...tried, ...line];
  const logs = all.map((each) => Math.log10(Math.max(each.latency_us, 0.01)));
  const low = Math.min(...logs) - 0.15;
  const high = Math.max(...logs, low + 0.5) + 0.15;
  const least = Math.min(...all.map((each) => each.recall));
  const bottom = Math.max(0, least - Math.max(0.05 * (1 - least), 0.002));
  const most = Math.max(...tried.map((each) => each.bytes), 1);
  const x = (latency) => LEFT + ((Math.log10(Math.max(latency, 0.01)) - low) / (high - low)) * (WIDTH - LEFT - RIGHT);
  const y = (recall) => HEIGHT - BOTTOM - ((recall - bottom) / (1.002 - bottom)) * (HEIGHT - BOTTOM - TOP);
  const r = (size) => 4 + 10 * Math.sqrt(size / most);
  const ticksX = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1)
    for (const lead of high - low > 2 ? [1] : [1, 2, 5]) {
      const value = lead * 10 ** power;
      if (Math.log10(value) > low && Math.log10(value) < high) ticksX.push(value);
    }
  const step = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2].find((each) => (1 - bottom) / each <= 6) ?? 0.25;
  const ticksY = [];
  for (let value = 1; value >= bottom - 1e-9; value -= step) ticksY.push(value);
  ticksY.digits = step < 0.01 ? 3 : 2;
  return { x, y, r, ticksX, ticksY };
}
