// Lines and points over time, drawn by uPlot, which is loaded with the first chart.

import {
  ErrorNote,
  axisTime,
  clean,
  colour,
  html,
  none,
  stamp,
  useEffect,
  useMemo,
  useRef,
  useState,
  useTheme,
} from "./parts.js";

const HEIGHT = 220;
/** A line is broken where so many times the usual distance lies between two values. */
const GAP = 4;
/** So few values are drawn as dots, too: one alone makes no line. */
const FEW = 40;

let library = null;

function loadLibrary() {
  library ??= new Promise((resolve, reject) => {
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.href = "vendor/uplot.css";
    document.head.append(sheet);
    import("./vendor/uplot.js").then((module) => resolve(module.default), reject);
  }).catch((error) => {
    library = null;
    throw error;
  });
  return library;
}

/** The times and values with an empty place wherever nothing was measured for long. */
function withGaps(times, columns) {
  if (times.length < 3) return [times, ...columns];
  const steps = times.slice(1).map((time, place) => time - times[place]);
  const usual = [...steps].sort((one, other) => one - other)[steps.length >> 1];
  const spaced = [[], ...columns.map(() => [])];
  times.forEach((time, place) => {
    if (place > 0 && time - times[place - 1] > usual * GAP) {
      spaced[0].push(times[place - 1] + usual);
      for (const column of spaced.slice(1)) column.push(null);
    }
    spaced[0].push(time);
    columns.forEach((column, which) => spaced[which + 1].push(column[place]));
  });
  return spaced;
}

function known(values) {
  return values.filter((value) => typeof value === "number" && Number.isFinite(value));
}

/** What a screen reader hears instead of the picture. */
function summary(title, series, format) {
  const said = series.map(({ label, values }) => {
    const numbers = known(values);
    if (numbers.length === 0) return `${label}: no value`;
    const highest = numbers.reduce((one, other) => Math.max(one, other));
    const lowest = numbers.reduce((one, other) => Math.min(one, other));
    return `${label}: last ${format(numbers.at(-1))}, lowest ${format(lowest)}, highest ${format(highest)}`;
  });
  return `${title}. ${said.join(". ")}.`;
}

function logarithmic(series) {
  const numbers = series.flatMap(({ values }) => known(values)).filter((value) => value > 0);
  if (numbers.length === 0) return false;
  const highest = numbers.reduce((one, other) => Math.max(one, other));
  const lowest = numbers.reduce((one, other) => Math.min(one, other));
  return highest / lowest > 200;
}

function look() {
  return {
    stroke: colour("--soft"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
    font: "12px system-ui, sans-serif",
    gap: 6,
  };
}

function timeAxis() {
  const values = (_, splits, __, ___, step) => splits.map((value) => axisTime(value, step));
  return { ...look(), size: 32, values };
}

function valueAxis(format, steps, isLogarithmic) {
  const values = (_, splits) => splits.map((value) => (value === null ? "" : format(value)));
  const drawn = { ...look(), size: 62, values };
  if (steps && !isLogarithmic) drawn.incrs = steps;
  // On a logarithmic scale only the powers of ten have a line, as they have a word.
  if (isLogarithmic) drawn.grid.filter = (_, splits) => splits.map((value) => (isPower(value) ? value : null));
  return drawn;
}

function isPower(value) {
  return Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;
}

function drawnSeries({ label, tone, points, values }) {
  const stroke = colour(tone);
  return {
    label,
    stroke,
    width: points ? 0 : 1.4,
    spanGaps: false,
    ...(points && { paths: () => null }),
    points: points
      ? { show: true, size: points === "hollow" ? 8 : 5, width: 1.8, stroke, fill: points === "hollow" ? colour("--surface") : stroke }
      : { show: values.length <= FEW, size: 5, stroke, fill: stroke },
  };
}

/**
 * A chart with its legend; values under the pointer stand in the legend.
 *
 * @param {number[]} times seconds since 1970, ascending.
 * @param {Array<{label, values, tone, points?}>} series `tone` names a colour of the stylesheet;
 *     `points`: "full" or "hollow" dots instead of a line.
 * @param {(value: number) => string} format how a value is written.
 * @param {(value: number) => string} onAxis the same beside the axis, if that is to be shorter.
 * @param {number[]} steps how far two lines of the axis may be apart; none: decimal numbers.
 * @param {[number, number]} span the times that are shown at first; none: those that there are.
 * @param {[number, number]} range what the scale shows at least; none: what the values need.
 */
export function Chart({ title, times, series, format, onAxis, steps, range = null, span = null, empty = "Nothing was measured in this time." }) {
  const frame = useRef(null);
  const [error, setError] = useState(null);
  const [place, setPlace] = useState(null);
  const theme = useTheme();
  const some = times.length > 0 && series.some(({ values }) => known(values).length > 0);
  const data = useMemo(() => {
    const columns = series.map(({ values }) => values);
    return series.some(({ points }) => points) ? [times, ...columns] : withGaps(times, columns);
  }, [times, series]);
  useEffect(() => {
    if (!some) return undefined;
    let chart = null;
    let stopped = false;
    const element = frame.current;
    const watch = new ResizeObserver(() => chart?.setSize({ width: element.clientWidth, height: HEIGHT }));
    loadLibrary().then(
      (Library) => {
        if (stopped) return;
        const isLogarithmic = logarithmic(series);
        const scale = isLogarithmic ? { distr: 3 } : { range: (_, low, high) => spanned(low, high, range) };
        const options = {
          width: element.clientWidth,
          height: HEIGHT,
          padding: [10, 14, 0, 0],
          legend: { show: false },
          cursor: { sync: { key: "time" }, points: { size: 7 }, drag: { x: true, y: false } },
          scales: { x: { time: true, ...(span && { range: (_, low, high) => zoomed(low, high, times, span) }) }, y: scale },
          axes: [timeAxis(), valueAxis(onAxis ?? format, steps, isLogarithmic)],
          series: [{}, ...series.map(drawnSeries)],
          hooks: { setCursor: [(drawn) => setPlace(drawn.cursor.idx ?? null)] },
        };
        chart = new Library(options, data, element);
        watch.observe(element);
      },
      () => setError(new Error("the chart could not be loaded; the service may be starting again")),
    );
    return () => {
      stopped = true;
      watch.disconnect();
      chart?.destroy();
    };
  }, [data, theme, some, span?.[0], span?.[1]]);
  if (error) return html`<${ErrorNote} error=${error} retry=${() => setError(null)} />`;
  if (!some) return html`<p class="note chart-none">${empty}</p>`;
  return html`<figure class="chart">
    <div class="chart-plot" ref=${frame} role="img" aria-label=${summary(title, series, format)}></div>
    <figcaption class="chart-legend">
      ${series.map((each, which) => {
        const value = place === null ? null : data[which + 1][place];
        return html`<span key=${each.label}>
          <span class=${`swatch ${each.tone.slice(2)} ${each.points ?? ""}`}></span>${clean(each.label, 60)}
          ${typeof value === "number" && html` <output>${format(value)}</output>`}
        </span>`;
      })}
      <span class="when">${place === null ? "" : when(data[0][place])}</span>
    </figcaption>
  </figure>`;
}

function when(seconds) {
  return typeof seconds === "number" ? stamp(new Date(seconds * 1000).toISOString()) : none;
}

/** The whole span, unless a person has zoomed in: then what they chose. */
function zoomed(low, high, times, span) {
  const isWhole = low === times[0] && high === times.at(-1);
  return isWhole || low === null ? span : [low, high];
}

function spanned(low, high, range) {
  const bottom = Math.min(range?.[0] ?? 0, low ?? 0);
  const top = Math.max(range?.[1] ?? 0, high ?? 0);
  return [bottom, top > bottom ? (range && top === range[1] ? top : top * 1.08) : bottom + 1];
}
