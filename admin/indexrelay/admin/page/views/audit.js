// Audit: who had what done on this host, the newest first.

import { Age, clean, Clip, Empty, html, link, Loaded, PageHead, Stamp, Table, Text } from "../parts.js";
import { More, usePages } from "./pages.js";

const WORDS = {
  rebuild_requested: "asked for a rebuild",
  released: "released",
  rolled_back: "rolled back",
  release_signed: "signed a release",
  held: "held",
  lifted: "lifted a hold",
  paused: "paused",
  resumed: "resumed",
  deleted: "deleted",
  backed_up: "made a backup",
  restored: "restored a backup",
  verified: "verified a backup",
  retried: "read again",
  logged_in: "logged in",
  logged_out: "logged out",
  refused: "was refused",
};

const COLUMNS = [
  { key: "time", title: "When", cell: (each) => html`<${Stamp} at=${each.time} /><small><${Age} at=${each.time} /></small>` },
  { key: "who", title: "Who", cell: (each) => html`<${Text} value=${each.who} limit=${80} />` },
  { key: "action", title: "What", cell: (each) => WORDS[each.action] ?? clean(String(each.action).replaceAll("_", " "), 60) },
  { key: "subject", title: "Of what", wide: true, cell: (each) => (each.subject ? html`<${Clip} value=${each.subject} />` : null) },
  { key: "release", title: "Release", cell: ({ fields }) => typeof fields.release === "number" && html`<a href=${link("releases", fields.release)}>${fields.release}</a>` },
  { key: "reason", title: "Why", cell: ({ fields }) => (fields.reason ? html`<${Clip} value=${fields.reason} />` : null) },
  { key: "more", title: "More", cell: restOf },
];

function restOf({ fields }) {
  const rest = Object.entries(fields).filter(([key]) => key !== "reason" && key !== "release");
  if (!rest.length) return null;
  return html`<details>
    <summary>${rest.length === 1 ? clean(rest[0][0], 40) : `${rest.length} facts`}</summary>
    <dl class="facts">
      ${rest.map(([key, value]) => html`<div key=${key}><dt>${clean(key, 60)}</dt><dd><${Text} value=${Array.isArray(value) ? value.join(", ") : value} limit=${400} /></dd></div>`)}
    </dl>
  </details>`;
}

export function AuditView() {
  const pages = usePages({ path: "audit", field: "entries", key: "id", events: ["release", "rebuild"] });
  return html`
    <${PageHead} title="Audit" lead="Who had what done on this host: people, tokens, schedules and rebuilders." />
    <${Loaded} load=${pages} empty=${html`<${Empty} title="Nothing was done here yet" hint="Rebuilds, releases, rollbacks, holds, pauses and backups are written down here." icon="list" />`}>
      ${(rows) => html`
        <${Table}
          caption="What was done, the newest first"
          columns=${COLUMNS}
          rows=${rows}
          rowKey=${(each) => each.id}
          filter=${(each) => `${each.who} ${WORDS[each.action] ?? each.action} ${each.subject ?? ""} ${each.fields.reason ?? ""}`}
        />
        <${More} pages=${pages} label="Show older lines" />
      `}
    <//>
  `;
}
