// What the judge says is not well: each with since when, what to do, and where on this page to do it.

import { html, Lasting, link, number, State, Text } from "../parts.js";

const ORDER = ["critical", "warning", "info"];

// Where on the page something can be done about it, by the beginning of its code.
const PLACES = [
  [/^(component_|kind_|release_rolled_back)/, (subject) => (subject ? ["components", subject] : ["components"]), "the component"],
  [/^group_/, () => ["components"], "the components"],
  [/^(reader_|no_reader|member|foreign_)/, () => ["readers"], "the readers"],
  [/^(release|canary)/, () => ["releases"], "the releases"],
  [/^dead_letters/, () => ["dead-letters"], "the dead letters"],
  [/^schedule_/, () => ["schedules"], "the schedules"],
  [/^backup_/, () => ["backups"], "the backups"],
];

/** Where a problem is dealt with: `{href, words}`; null where no view is about it. */
export function placeOf({ code, subject }) {
  const found = PLACES.find(([pattern]) => pattern.test(code));
  return found ? { href: link(...found[1](subject)), words: found[2] } : null;
}

/** One for each code and subject, the first of them, with how many `more` there are. */
export function condensed(problems) {
  const found = new Map();
  for (const each of problems) {
    const key = each.subject === null ? each : `${each.code} ${each.subject}`;
    const first = found.get(key);
    if (first) first.more += 1;
    else found.set(key, { ...each, more: 0 });
  }
  return [...found.values()];
}

/** Problems, the gravest first. `here`: they stand in the view that they are dealt with. */
export function Problems({ problems, here = false }) {
  const sorted = [...problems].sort((one, other) => ORDER.indexOf(one.severity) - ORDER.indexOf(other.severity));
  return html`<ul class="problems">
    ${sorted.map((each) => html`<${Problem} key=${`${each.code} ${each.subject} ${each.what}`} problem=${each} here=${here} />`)}
  </ul>`;
}

function Problem({ problem, here }) {
  const place = here ? null : placeOf(problem);
  return html`<li>
    <span><${State} value=${problem.severity} /></span>
    <div class="what">
      <p><${Text} value=${problem.what} limit=${800} />${problem.more > 0 && html` <span class="note">and ${number(problem.more)} more of the same</span>`}</p>
      <p class="advice"><${Text} value=${problem.advice} limit=${800} />${place && html` <a href=${place.href}>See ${place.words}</a>`}</p>
    </div>
    <span class="since">${problem.since && html`for ${problem.at_least && "at least "}<${Lasting} at=${problem.since} />`}</span>
  </li>`;
}
