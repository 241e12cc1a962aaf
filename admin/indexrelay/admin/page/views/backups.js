// Backups: how old the newest is, what is in each, a new one, and whether one is sound.

import {
  Age, api, Badge, bytes, Check, Clip, duration, Empty, Facts, html, Id, Loaded, none, number,
  PageHead, Panel, Progress, State, Table, Text, useEffect, useLoad, useMemo, useState,
} from "../parts.js";
import { Action } from "./action.js";
import { Problems } from "./problems.js";

const LOOK_AGAIN_MS = 2000;

export function BackupsView({ state, me }) {
  const problems = state.problems.filter((each) => /^backup_/.test(each.code));
  const load = useLoad((signal) => api.get("backups", { signal }), [problems.map((each) => each.what).join()]);
  const { data, reload } = load;
  const working = Boolean(data?.running);
  // While one is made there is nobody but this answer to say how far it is.
  // The disk is busy then, and answers may be slow: the next question comes a pause after the answer.
  useEffect(() => {
    if (!working || load.loading) return undefined;
    const timer = setTimeout(reload, LOOK_AGAIN_MS);
    return () => clearTimeout(timer);
  }, [working, load.loading]);
  const columns = useMemo(() => columnsOf(me, working, reload), [me, working]);
  return html`
    <${PageHead}
      title="Backups"
      lead="A backup is a release with all that it names, and the catalog."
      actions=${data && html`<${MakeOne} me=${me} running=${data.running} release=${state.release?.number} onDone=${reload} />`}
    />
    ${problems.length > 0 && html`<${Panel} title="What is wrong" flush><${Problems} problems=${problems} here /><//>`}
    <${Loaded} load=${load}>
      ${(found) => html`
        <${Newest} found=${found} />
        <${Table}
          caption="Backups, the newest first"
          columns=${columns}
          rows=${found.backups}
          rowKey=${(each) => each.id}
          empty=${html`<${Empty} title="There is no backup yet" hint="Make one now, or let an operator make them by the clock: backups.schedule of the settings." icon="box" />`}
        />
        <p class="note">One is restored on the host that has it: <code>indexrelay backup restore ID</code>. All of it is checked there before anything is changed.</p>
      `}
    <//>
  `;
}

function Newest({ found }) {
  const newest = found.backups.find((each) => !each.error);
  return html`<${Panel} title="The newest">
    <${Facts}
      items=${[
        { label: "Made", value: html`${newest ? html`<${Age} at=${newest.begun_at} />` : "there is none"} ${found.overdue && html`<${State} value="overdue" />`}` },
        found.max_age_seconds && { label: "To be younger than", value: duration(found.max_age_seconds) },
        newest && { label: "Release", value: number(newest.release) },
        { label: "Folder", value: html`<${Text} value=${found.folder} limit=${200} />` },
        {
          label: "Made by the clock",
          value: found.schedule ? html`<code><${Text} value=${found.schedule} limit=${60} /></code>` : "no",
          hint: !found.schedule && "backups.schedule of the settings",
        },
        found.running && {
          label: found.running.what === "verify" ? `Verifying ${found.running.id}` : "One is made now",
          value: html`<${Progress} share=${found.running.share} label="Progress of the backup" />`,
          hint: html`since <${Age} at=${found.running.started_at} />`,
        },
        !found.running && found.last && {
          label: found.last.what === "verify" ? `Verified ${found.last.id} last` : "Made from here last",
          value: html`<${State} value=${found.last.ok ? "complete" : "failed"} /> <${Age} at=${found.last.ended_at} />`,
          hint: html`<${Text} value=${found.last.detail} />`,
        },
      ]}
    />
  <//>`;
}

function columnsOf(me, running, reload) {
  return [
    { key: "id", title: "Backup", sort: (each) => each.id, cell: (each) => html`<${Id} value=${each.id} length=${24} />` },
    { key: "begun_at", title: "Made", sort: (each) => each.begun_at, cell: (each) => html`<${Age} at=${each.begun_at} />` },
    { key: "release", title: "Release", align: "end", sort: (each) => each.release, cell: (each) => number(each.release) },
    { key: "components", title: "Components", align: "end", cell: (each) => each.error ? none : number(each.components.length) },
    { key: "catalog", title: "Catalog", cell: (each) => (each.catalog === null ? none : each.catalog ? "Included" : "Left out") },
    { key: "bytes", title: "Size", align: "end", sort: (each) => each.bytes, cell: (each) => bytes(each.bytes) },
    {
      key: "sound",
      title: "Sound",
      wide: true,
      cell: (each) => html`<span class="badges">${verdictOf(each)}${each.encrypted && html`<${Badge} icon="lock">Encrypted<//>`}</span>${detailOf(each)}`,
    },
    {
      key: "act",
      title: "Action",
      cell: (each) => html`<${Action}
        me=${me}
        small
        label="Verify"
        about=${`backup ${each.id}`}
        blocked=${running ? "a backup is being made or verified" : null}
        title=${`Verify backup ${each.id}?`}
        what=${[`Every byte of it is read and hashed (${bytes(each.bytes)}), and its catalog is checked.`, "Nothing is changed. It may take minutes, and the disk is busy meanwhile."]}
        verb="Verify"
        path=${`backups/${encodeURIComponent(each.id)}/verify`}
        done=${`Backup ${each.id} is being read.`}
        onDone=${reload}
      />`,
    },
  ];
}

function verdictOf({ error, verified }) {
  if (error) return html`<${Badge} tone="bad" icon="bad">Cannot be read<//>`;
  if (!verified) return html`<${Badge}>Not verified from here<//>`;
  return verified.ok ? html`<${Badge} tone="ok" icon="check">Verified<//>` : html`<${Badge} tone="bad" icon="bad">Not sound<//>`;
}

function detailOf({ error, verified }) {
  if (error) return html`<small><${Clip} value=${error} /></small>`;
  return verified && html`<small><${Age} at=${verified.at} />: <${Clip} value=${verified.detail} /></small>`;
}

function MakeOne({ me, running, release, onDone }) {
  const [withCatalog, setWithCatalog] = useState(true);
  return html`<${Action}
    me=${me}
    label="Make a backup"
    icon="box"
    blocked=${running ? "a backup is being made or verified" : release ? null : "nothing was released yet"}
    title="Make a backup?"
    what=${[`Release ${release} is copied with all that it names. Searches and builds go on.`, "Afterwards older backups that do not stay by the settings are removed."]}
    verb="Make it"
    path="backups"
    body=${() => ({ with_catalog: withCatalog })}
    done="A backup is being made."
    onDone=${onDone}
  >
    <${Check} label="With the catalog" hint="Entries and their generations, so that the installation can be made anew from it." checked=${withCatalog} onChange=${setWithCatalog} />
  <//>`;
}
