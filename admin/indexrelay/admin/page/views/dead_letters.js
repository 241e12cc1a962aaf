// Dead letters: events that could not be read. Each can be read again, or dropped for good.
//
// Anybody may have written the bytes: what is shown of them is text, with control characters visible.

import {
  Age, api, Button, bytes, canOperate, Clip, Empty, html, Id, Loaded, number, PageHead, Table, Text,
  toast, useEffect, useMemo, useState,
} from "../parts.js";
import { Action, FOR_OPERATORS } from "./action.js";
import { More, usePages } from "./pages.js";

export function DeadLettersView({ state, me }) {
  const count = state.problems.find((each) => each.code === "dead_letters")?.what;
  const pages = usePages({ path: "dead-letters", field: "letters", key: "id" });
  const { reload, data, answer, forget } = pages;
  // The state says how many there are.
  useEffect(() => {
    if (data) reload();
  }, [count]);
  const columns = useMemo(() => {
    const onDone = ({ id, outcome }) => {
      if (outcome !== "unreadable") forget(id);
      reload();
    };
    return columnsOf(me, onDone);
  }, [me]);
  return html`
    <${PageHead}
      title="Dead letters"
      lead="Events that no rebuilder could read. Nothing waits for them, but what they were to tell may be missing."
      actions=${data?.length > 1 && html`<${RetryAll} me=${me} letters=${data} forget=${forget} onDone=${reload} />`}
    />
    ${answer?.not_kept > 0 && html`<p class="note">${number(answer.not_kept)} more could not be read and were not kept, since there were too many.</p>`}
    <${Loaded}
      load=${pages}
      empty=${html`<${Empty} title="There are no dead letters" hint="An event that cannot be read is kept here with its bytes, until somebody reads it again or drops it." icon="check" />`}
    >
      ${(letters) => html`
        <${Table}
          caption="Dead letters"
          columns=${columns}
          rows=${letters}
          rowKey=${(each) => each.id}
          filter=${(each) => `${each.id} ${each.stream} ${each.reason}`}
        />
        <${More} pages=${pages} label="Show older letters" />
      `}
    <//>
  `;
}

/** @param {(answer) => void} onDone told of what came of one letter. */
function columnsOf(me, onDone) {
  return [
    { key: "id", title: "Letter", sort: (each) => each.id, cell: (each) => number(each.id) },
    { key: "added_at", title: "Since", sort: (each) => each.added_at, cell: (each) => html`<${Age} at=${each.added_at} />` },
    { key: "reason", title: "Why it cannot be read", wide: true, cell: (each) => html`<${Clip} value=${each.reason} /><${Bytes} letter=${each} />` },
    { key: "stream", title: "From", cell: (each) => html`<${Text} value=${each.stream} limit=${80} /><small><${Text} value=${each.entry_id} limit=${60} /></small>` },
    { key: "bytes", title: "Size", align: "end", sort: (each) => each.bytes, cell: (each) => bytes(each.bytes) },
    {
      key: "act",
      title: "Actions",
      cell: (each) => html`<span class="row-actions">
        <${RetryOne} me=${me} letter=${each} onDone=${onDone} />
        <${Action}
          me=${me}
          danger
          small
          label="Drop"
          about=${`letter ${each.id}`}
          title=${`Drop letter ${each.id}?`}
          what=${["It is forgotten for good, with its bytes: it cannot be read again.", "What it told of is found at the next comparison, if it is in the catalog. A request that it held is lost."]}
          verb="Drop"
          path=${`dead-letters/${each.id}/drop`}
          done=${(answer) => (answer.outcome === "dropped" ? `Letter ${each.id} is dropped.` : `Letter ${each.id} was gone already.`)}
          onDone=${onDone}
        />
      </span>`,
    },
  ];
}

function Bytes({ letter }) {
  if (!letter.preview) return null;
  return html`<details>
    <summary>How it begins</summary>
    <pre tabindex="0"><${Text} value=${letter.preview} limit=${2000} lines mono /></pre>
    <p class="note">${bytes(letter.kept_bytes)} of ${bytes(letter.bytes)} are kept; sha256 <${Id} value=${letter.sha256} length=${16} /></p>
  </details>`;
}

const OUTCOMES = {
  received: ["ok", "is an event again; a rebuilder sees it."],
  unreadable: ["warn", "still cannot be read"],
  gone: ["quiet", "was retried or dropped before."],
};

function said({ id, outcome, reason }) {
  const [tone, words] = OUTCOMES[outcome] ?? ["info", outcome];
  return [`Letter ${id} ${words}${outcome === "unreadable" && reason ? `: ${reason}` : ""}`, tone];
}

/** Nothing is lost by it, so it asks nobody. */
function RetryOne({ me, letter, onDone }) {
  const [busy, setBusy] = useState(false);
  const why = canOperate(me) ? null : FOR_OPERATORS;
  const retry = async () => {
    if (why) return;
    setBusy(true);
    try {
      const answer = await api.post(`dead-letters/${letter.id}/retry`, {});
      toast(...said(answer));
      onDone(answer);
    } catch (error) {
      toast(error.message, "bad");
    }
    setBusy(false);
  };
  return html`<${Button} tone="plain small" busy=${busy} title=${why} aria-disabled=${why ? "true" : null} onClick=${retry}>
    Read again<span class="unseen"> letter ${letter.id}${why && ` (${why})`}</span>
  <//>`;
}

function RetryAll({ me, letters, forget, onDone }) {
  const [busy, setBusy] = useState(false);
  const why = canOperate(me) ? null : FOR_OPERATORS;
  const retry = async () => {
    if (why) return;
    setBusy(true);
    const counts = { received: 0, unreadable: 0, gone: 0 };
    try {
      for (const { id } of letters) {
        const { outcome } = await api.post(`dead-letters/${id}/retry`, {});
        counts[outcome] += 1;
        if (outcome !== "unreadable") forget(id);
      }
      toast(`${number(counts.received)} are events again, ${number(counts.unreadable)} still cannot be read.`, counts.unreadable ? "warn" : "ok");
    } catch (error) {
      toast(error.message, "bad");
    }
    onDone();
    setBusy(false);
  };
  return html`<${Button} busy=${busy} title=${why} aria-disabled=${why ? "true" : null} onClick=${retry}>
    Read these ${number(letters.length)} again${why && html`<span class="unseen"> (${why})</span>`}
  <//>`;
}
