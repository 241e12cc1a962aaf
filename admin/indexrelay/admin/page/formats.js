// How values are written: numbers, sizes, times, and text that somebody else wrote.

const LOCALE = "en-GB";
const whole = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 0 });
const NOTHING = "–";

/** What a value that is not known looks like. */
export const none = NOTHING;

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** A count or a measure: thousands are grouped, three significant digits below 1,000. */
export function number(value, digits) {
  if (!isNumber(value)) return NOTHING;
  if (digits === undefined && (Number.isInteger(value) || Math.abs(value) >= 1000)) {
    return whole.format(value);
  }
  const fixed = digits ?? (Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);
  return value.toLocaleString(LOCALE, {
    minimumFractionDigits: fixed,
    maximumFractionDigits: fixed,
  });
}

/** A size in bytes, in powers of 1,024. */
export function bytes(value) {
  if (!isNumber(value)) return NOTHING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  let size = value;
  while (Math.abs(size) >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(size) >= 100 ? 0 : 1;
  return `${size.toFixed(digits)} ${units[unit]}`;
}

/** A length of time, given in seconds. */
export function duration(seconds) {
  if (!isNumber(seconds)) return NOTHING;
  if (seconds < 0) return `−${duration(-seconds)}`;
  if (seconds === 0) return "0 s";
  if (seconds < 0.001) return `${Math.max(1, Math.round(seconds * 1e6))} µs`;
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return joined(minutes, "min", Math.floor(seconds % 60), "s");
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return joined(hours, "h", minutes % 60, "min");
  return joined(Math.floor(hours / 24), "d", hours % 24, "h");
}

/** A length of time that is counted while it lasts: whole seconds, so that its width is calm. */
export function elapsed(seconds) {
  if (!isNumber(seconds)) return NOTHING;
  const all = Math.max(0, Math.floor(seconds));
  const pad = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(all / 3600);
  const rest = `${pad(Math.floor(all / 60) % 60)}:${pad(all % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
}

function joined(large, largeUnit, small, smallUnit) {
  return small ? `${large} ${largeUnit} ${small} ${smallUnit}` : `${large} ${largeUnit}`;
}

/** A search's time, given in milliseconds. */
export function millis(value) {
  return isNumber(value) ? duration(value / 1000) : NOTHING;
}

/** A share of 1, in per cent. */
export function percent(share, digits) {
  if (!isNumber(share)) return NOTHING;
  const value = share * 100;
  const fixed = digits ?? (value === 0 || value >= 10 ? 0 : value >= 1 ? 1 : 2);
  // What is nearly all is not all.
  const shown = value < 100 && Number(value.toFixed(fixed)) >= 100 ? 99.9 : value;
  return `${shown.toFixed(shown === 99.9 ? 1 : fixed)} %`;
}

/** The beginning of a digest or of a long id: enough to tell two apart. */
export function shortId(id, length = 10) {
  if (id === null || id === undefined) return NOTHING;
  const text = clean(id, 200);
  return text.length > length + 2 ? `${text.slice(0, length)}…` : text;
}

/** "1 reader", "3 readers". */
export function counted(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

// The server's clock is the one that counts: a browser's may be wrong by minutes.
let ahead = 0;
const NOTHING_MS = 3000;

/** Tell the page what time it is on the server, as the header Date of an answer says it. */
export function setServerTime(date) {
  const away = Date.parse(date) - Date.now();
  // The header has whole seconds, and the answer was on its way: less than that is no difference.
  if (Number.isFinite(away)) ahead = Math.abs(away) < NOTHING_MS ? 0 : away;
}

/** The server's time, in milliseconds. */
export function now() {
  return Date.now() + ahead;
}

/** How long ago, in seconds; null where there is no such time. */
export function secondsSince(iso) {
  const at = Date.parse(iso ?? "");
  return Number.isFinite(at) ? (now() - at) / 1000 : null;
}

/** How long ago or how far ahead, in one rounded unit. */
export function age(iso) {
  const seconds = secondsSince(iso);
  if (seconds === null) return NOTHING;
  const away = Math.abs(seconds);
  if (away < 2) return "just now";
  const text =
    away < 60
      ? `${Math.floor(away)} s`
      : away < 3600
        ? `${Math.floor(away / 60)} min`
        : away < 172800
          ? `${Math.floor(away / 3600)} h`
          : `${Math.floor(away / 86400)} d`;
  return seconds < 0 ? `in ${text}` : `${text} ago`;
}

const day = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short" });
const minute = new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

const second = new Intl.DateTimeFormat(LOCALE, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

/** A point of a time axis, in seconds since 1970: the day, or within a day the minute. */
export function axisTime(seconds, step) {
  const at = new Date(seconds * 1000);
  const midnight = at.getHours() === 0 && at.getMinutes() === 0 && at.getSeconds() === 0;
  return (step >= 86_400 || midnight ? day : step < 60 ? second : minute).format(at);
}

/** A length of time on an axis: in one unit. */
export function axisDuration(seconds) {
  if (!isNumber(seconds)) return NOTHING;
  const shown = (value) => Number(value.toPrecision(3)).toString();
  if (seconds === 0 || (seconds >= 1 && (seconds < 60 || seconds % 60 !== 0) && seconds < 300)) return `${shown(seconds)} s`;
  if (seconds < 0.001) return `${shown(seconds * 1e6)} µs`;
  if (seconds < 1) return `${shown(seconds * 1000)} ms`;
  return seconds < 7200 ? `${shown(seconds / 60)} min` : `${shown(seconds / 3600)} h`;
}

const dayAndTime = new Intl.DateTimeFormat(LOCALE, {
  year: "numeric",
  month: "short",
  day: "2-digit",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

/** A point in time, where the person is. */
export function stamp(iso) {
  const at = Date.parse(iso ?? "");
  return Number.isFinite(at) ? dayAndTime.format(at) : NOTHING;
}

// Signs that change how the text around them reads, or that nobody sees.
const INVISIBLE =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff]/gu;

function visible(sign) {
  return `⟨U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/**
 * Text of unknown origin, fit to be shown: cut at `limit` characters, and with signs that nobody
 * sees or that turn the direction of writing made visible. Line ends stay where `lines` is true.
 */
export function clean(value, limit = 300, lines = false) {
  let text;
  if (typeof value === "string") text = value;
  else if (value === null || value === undefined) return NOTHING;
  else if (typeof value === "object") text = asJson(value);
  else text = String(value);
  const cut = text.length > limit;
  const head = cut ? text.slice(0, limit) : text;
  const shown = head.replace(INVISIBLE, (sign) =>
    lines && (sign === "\n" || sign === "\t") ? sign : visible(sign),
  );
  return cut ? `${shown}… (${whole.format(text.length - limit)} more characters)` : shown;
}

function asJson(value) {
  try {
    return JSON.stringify(value);
  } catch {
    return String(value);
  }
}
