// The colours of points: a payload field's values or bins, on a light ground and on a dark one.

/** The code of a point whose payload lacks the field. */
export const NO_VALUE = 255;

// Ten hues that lie apart, each as [on a light ground, on a dark one].
const CATEGORIES = [
  ["#2f6fd0", "#6ea8ff"],
  ["#d1640a", "#ffa24d"],
  ["#1a8a4b", "#55cf8b"],
  ["#b3267b", "#f57fc0"],
  ["#7a5bd0", "#b79cff"],
  ["#8a6a00", "#e3c044"],
  ["#0b8a94", "#4fd3dd"],
  ["#b52f2f", "#ff8078"],
  ["#5d7a12", "#b0d44f"],
  ["#7b4b2a", "#d3a078"],
];
// From few to much: lightness goes one way, so that it is an order for every eye.
const RAMP = [
  ["#f0a030", "#6a4fd8"],
  ["#ea8038", "#8f52dd"],
  ["#dd5f4b", "#b558d4"],
  ["#c94464", "#d662ba"],
  ["#ac2f7c", "#ec7397"],
  ["#87218c", "#f78d70"],
  ["#5c1a92", "#fbae52"],
  ["#2c1280", "#f7d54a"],
];
const PLAIN = ["#2f6fd0", "#6ea8ff"];
export const REST = ["#7d8996", "#8593a3"];
export const LIT = ["#c01f6d", "#ffd24a"];

/** Whether the page is dark just now, by the person's choice or the system's. */
export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Red, green and blue of a colour. */
export function bytesOf(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/** The colour of each code, as hex. */
export function palette(colours, dark) {
  const shade = dark ? 1 : 0;
  if (!colours) return [PLAIN[shade]];
  if (colours.kind === "number") {
    const last = Math.max(1, colours.labels.length - 1);
    return colours.labels.map((_, at) => RAMP[Math.round((at / last) * (RAMP.length - 1))][shade]);
  }
  return colours.labels.map((each, at) => (each.rest ? REST : CATEGORIES[at % CATEGORIES.length])[shade]);
}

/** Four bytes for each point. What is not looked at stays as a shadow of the whole. */
export function painted(points, colours, only, lit, dark) {
  const shades = palette(colours, dark).map(bytesOf);
  const rest = bytesOf(REST[dark ? 1 : 0]);
  const out = new Uint8Array(4 * points.count);
  const isCrowd = points.count > 20000;
  const codes = colours?.version === points.version ? colours.codes : null;
  const strong = isCrowd ? (codes ? 165 : 120) : 205;
  const faint = isCrowd ? 24 : 40;
  for (let row = 0; row < points.count; row += 1) {
    const code = codes ? codes[row] : 0;
    const [red, green, blue] = code === NO_VALUE || !shades[code] ? rest : shades[code];
    out[4 * row] = red;
    out[4 * row + 1] = green;
    out[4 * row + 2] = blue;
    out[4 * row + 3] = lit || (only !== null && code !== only) ? faint : code === NO_VALUE ? 110 : strong;
  }
  for (const row of lit ?? []) out[4 * row + 3] = 255;
  return out;
}
