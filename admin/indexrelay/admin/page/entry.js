// One entry, as the map and the lab show it: a name, its text, and the fields of its payload.

import { Text, bytes, clean, html, number } from "./parts.js";

const NAMES = ["title", "name", "label", "heading", "subject"];
const MOST_FIELDS = 12;
const SHORT_FIELDS = 4;

function fieldsOf(entry) {
  const { payload } = entry;
  if (payload === null || payload === undefined) return [];
  return typeof payload === "object" && !Array.isArray(payload) ? Object.entries(payload) : [["payload", payload]];
}

/** What people would call it: a title among its fields, the beginning of its text, or its id. */
export function titleOf(entry) {
  const fields = new Map(fieldsOf(entry));
  for (const name of NAMES) {
    const value = fields.get(name);
    if (typeof value === "string" && value.trim() !== "") return value;
  }
  const text = entry.text?.trim();
  return text ? clean(text.split(/\n/, 1)[0], 120) : entry.id;
}

function written(value) {
  if (typeof value === "string") return value;
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : number(value);
  try {
    return JSON.stringify(value);
  } catch {
    return String(value);
  }
}

/** An entry in full, or the little that fits beside a pointer. */
export function EntryCard({ entry, short = false }) {
  const fields = fieldsOf(entry);
  const most = short ? SHORT_FIELDS : MOST_FIELDS;
  const title = titleOf(entry);
  const text = entry.text?.trim() ?? "";
  const isMore = text !== "" && clean(text, 120) !== title;
  return html`<div class="entry-card">
    ${short && html`<p class="entry-title"><${Text} value=${title} limit=${120} /></p>`}
    ${short && title !== entry.id && html`<p class="entry-id"><${Text} value=${entry.id} limit=${60} mono /></p>`}
    ${isMore && !short && html`<p class="entry-text"><${Text} value=${text} limit=${600} lines /></p>`}
    <dl class="entry-fields">
      ${!short && html`<div><dt>id</dt><dd><${Text} value=${entry.id} limit=${400} mono /></dd></div>`}
      ${fields.slice(0, most).map(
        ([name, value]) => html`<div key=${name}>
          <dt><${Text} value=${name} limit=${40} /></dt>
          <dd><${Text} value=${written(value)} limit=${short ? 60 : 300} /></dd>
        </div>`,
      )}
    </dl>
    ${fields.length > most && html`<p class="note">${number(fields.length - most)} more fields</p>`}
    ${entry.payload_start &&
    html`<p class="note">Its payload has ${bytes(entry.payload_bytes)} and begins with</p>
      <p class="entry-text"><${Text} value=${entry.payload_start} limit=${short ? 120 : 800} mono /></p>`}
  </div>`;
}
