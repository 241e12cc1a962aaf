// The search lab: one question to one or two sides, what each found, and how it came to that.
//
// The address holds the question, so that it can be sent to somebody else:
// #/lab?text=…&a=tracks@12&b=tracks@11&k=10&filter=…

import {
  Button,
  Empty,
  ErrorNote,
  Field,
  Icon,
  PageHead,
  Panel,
  Skeleton,
  Text,
  api,
  clean,
  counted,
  duration,
  html,
  link,
  none,
  number,
  percent,
  stamp,
  useEffect,
  useId,
  useLayoutEffect,
  useLoad,
  useMemo,
  useRef,
  useState,
} from "../parts.js";
import { EntryCard, titleOf } from "../entry.js";

const FORMS = [
  { name: "text", title: "Words" },
  { name: "vector", title: "Vector" },
  { name: "id", title: "Like an id" },
];
const MOST = 200;

export function LabView({ state, route }) {
  const release = state?.release?.number ?? null;
  const choice = useLoad(() => api.get("lab"), [release]);
  const data = choice.data;
  return html`<${PageHead} title="Search lab" lead="One question, asked of one or two released versions, and how each came to its answer" />
    ${choice.error && html`<${ErrorNote} error=${choice.error} retry=${choice.reload} />`}
    ${!data && !choice.error && html`<${Skeleton} rows=${8} />`}
    ${data && data.components.length === 0 &&
    html`<${Panel} title="Nothing to ask">
      <${Empty}
        icon="search"
        title=${data.release === null ? "Nothing is released yet" : `Release ${data.release} has no component that can be searched`}
        hint=${data.release === null ? "Start a rebuild on the Overview." : html`Add one of the kind <code>search</code>, <code>vector_index</code> or <code>text_index</code>.`}
      />
    <//>`}
    ${data && data.components.length > 0 && html`<${Lab} choice=${data} route=${route} />`}`;
}

// ---- the question --------------------------------------------------------------------------------

function sideOf(text, choice) {
  if (!text) return null;
  const [component, release] = text.split("@");
  return { component, release: Number(release) || null, known: choice.components.some((each) => each.component === component) };
}

/** The question in an address, completed by what is there. */
function questionOf(query, choice) {
  const form = FORMS.find(({ name }) => query.get(name) !== null)?.name ?? null;
  const given = sideOf(query.get("a"), choice);
  const takes = (each, name) => each.questions.includes(name);
  const best =
    choice.components.find((each) => takes(each, form ?? "text") && takes(each, "vector")) ??
    choice.components.find((each) => takes(each, form ?? "text")) ??
    choice.components[0];
  return {
    form: form ?? (takes(best, "text") ? "text" : "id"),
    text: query.get("text") ?? "",
    vector: query.get("vector") ?? "",
    id: query.get("id") ?? "",
    k: query.get("k") ?? "10",
    filter: query.get("filter") ?? "",
    weight: query.get("weight") ?? "",
    a: given ?? { component: best.component, release: null },
    b: sideOf(query.get("b"), choice),
  };
}

function addressOf(question) {
  const at = (side) => side && (side.release ? `${side.component}@${side.release}` : side.component);
  return link("lab", {
    [question.form]: question[question.form],
    a: at(question.a),
    b: at(question.b),
    k: question.k === "10" ? null : question.k,
    filter: question.filter.trim() || null,
    weight: question.weight || null,
  });
}

class Mistake extends Error {
  constructor(field, message) {
    super(message);
    this.fields = [{ field, detail: message }];
  }
}

function parsed(field, text, wanted) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Mistake(field, `this is not JSON (${error.message}); ${wanted}`);
  }
}

/** The body of the request; raises `Mistake` for what can be seen here. */
function requestOf(question) {
  const body = { sides: [question.a, question.b].filter(Boolean).map(({ component, release }) => ({ component, release })) };
  const value = question[question.form].trim();
  if (value === "") throw new Mistake(question.form, { text: "type some words", vector: "paste a list of numbers", id: "give the id of an entry" }[question.form]);
  if (question.form === "vector") {
    const list = parsed("vector", value.startsWith("[") ? value : `[${value.replaceAll(/[\s,;]+/g, ",")}]`, "paste a list of numbers, such as [0.1, -0.3]");
    if (!Array.isArray(list) || !list.every((each) => typeof each === "number")) throw new Mistake("vector", "a vector is a list of numbers");
    body.vector = list;
  } else {
    body[question.form] = question.form === "id" ? value : question.text;
  }
  body.k = Number(question.k);
  if (!Number.isInteger(body.k) || body.k < 1 || body.k > MOST) throw new Mistake("k", `a whole number from 1 to ${MOST}`);
  if (question.filter.trim() !== "") body.filter = parsed("filter", question.filter, 'a filter is an object, such as {"year": {"$gte": 1990}}');
  if (question.weight !== "") {
    const share = Number(question.weight);
    body.weights = { vector: (100 - share) / 100, text: share / 100 };
  }
  return body;
}

function Lab({ choice, route }) {
  const [question, setQuestion] = useState(() => questionOf(route.query, choice));
  const [answer, setAnswer] = useState(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const asked = useRef(0);
  const change = (part) => setQuestion((before) => ({ ...before, ...part }));
  const components = useMemo(() => new Map(choice.components.map((each) => [each.component, each])), [choice]);
  const first = components.get(question.a.component);
  const second = question.b ? components.get(question.b.component) : null;

  const ask = async (from) => {
    const turn = (asked.current += 1);
    setError(null);
    let body;
    try {
      body = requestOf(from);
    } catch (mistake) {
      setError(mistake);
      return;
    }
    setBusy(true);
    history.replaceState(null, "", addressOf(from));
    try {
      const found = await api.post("lab/search", body);
      if (turn === asked.current) setAnswer({ ...found, k: body.k });
    } catch (problem) {
      if (turn === asked.current) {
        setError(problem);
        setAnswer(null);
      }
    } finally {
      if (turn === asked.current) setBusy(false);
    }
  };
  // An address that holds a question is asked at once, and so is one that is followed later.
  const address = route.query.toString();
  useEffect(() => {
    const given = questionOf(route.query, choice);
    setQuestion(given);
    if (given[given.form] !== "") ask(given);
  }, [address]);

  const wrong = (field) => error?.fields?.find((each) => each.field === field || each.field?.startsWith(`${field}.`))?.detail;
  const hasWeights = question.form !== "id" && [first, second].some((each) => each?.options.includes("weights"));
  const isPlaced = [question.form, "k", "filter", "sides.0", question.b && "sides.1", hasWeights && "weights"].filter(Boolean).some(wrong);
  const forms = FORMS.filter(({ name }) => !first || first.questions.includes(name) || second?.questions.includes(name));
  const noText = question.form === "text" ? first?.by_text : null;
  return html`<${Panel} title="Question">
      <form
        class="lab-form"
        onSubmit=${(event) => {
          event.preventDefault();
          ask(question);
        }}
      >
        <div class="lab-ask">
          <div class="segments" role="group" aria-label="Ask by">
            ${FORMS.map(
              ({ name, title }) => html`<button
                key=${name}
                type="button"
                aria-pressed=${question.form === name ? "true" : "false"}
                onClick=${() => change({ form: name })}
              >${title}</button>`,
            )}
          </div>
          <${QuestionField} question=${question} onChange=${change} wrong=${wrong(question.form)} hint=${noText} dimension=${first?.dimension} known=${forms} />
        </div>
        <div class="lab-sides">
          <${SideChoice} label="Ask" side=${question.a} choice=${choice} wrong=${wrong("sides.0")} onChange=${(a) => change({ a })} />
          <${SideChoice} label="Compare with" side=${question.b} choice=${choice} wrong=${wrong("sides.1")} optional like=${question.a} onChange=${(b) => change({ b })} />
        </div>
        <div class="lab-options">
          <${Field} label="Hits" error=${wrong("k")}>
            ${(control) => html`<input ...${control} class="short" inputmode="numeric" value=${question.k} onInput=${(event) => change({ k: event.currentTarget.value })} />`}
          <//>
          <${FilterField} question=${question} components=${[first, second].filter(Boolean)} wrong=${wrong("filter")} onChange=${change} />
          ${hasWeights &&
          html`<${WeightField} weight=${question.weight} wrong=${wrong("weights")} onChange=${change} />`}
          <${Button} type="submit" tone="primary" icon="search" busy=${busy}>Ask<//>
        </div>
        ${error && !isPlaced && html`<${ErrorNote} error=${error} />`}
      </form>
    <//>
    <p class="unseen" role="status">${answer ? spoken(answer) : ""}</p>
    ${answer ? html`<${Answer} answer=${answer} />` : !busy && !error && html`<${Hints} choice=${choice} asked=${question.a} onAsk=${(part) => {
      const next = { ...question, ...part };
      setQuestion(next);
      if (next[next.form] !== "") ask(next);
    }} />`}
    ${busy && !answer && html`<${Skeleton} rows=${6} />`}`;
}

function QuestionField({ question, onChange, wrong, hint, dimension, known }) {
  const { form } = question;
  const labels = { text: "Words", vector: "Vector", id: "Id of an entry" };
  const hints = {
    text: hint,
    vector: dimension ? `${number(dimension)} numbers, as JSON or with spaces between` : "A list of numbers, as JSON or with spaces between",
    id: "Finds the entries nearest to this one",
  };
  const unknown = !known.some(({ name }) => name === form) && form !== "text" ? "This component does not take it." : null;
  const input = (event) => onChange({ [form]: event.currentTarget.value });
  return html`<${Field} key=${form} label=${labels[form]} hint=${unknown ?? hints[form]} error=${wrong && clean(wrong, 600)}>
    ${(control) =>
      form === "vector"
        ? html`<textarea ...${control} class="mono" rows="3" spellcheck="false" placeholder="[0.12, -0.4, …]" value=${question.vector} onInput=${input} />`
        : html`<input ...${control} class=${form === "id" ? "mono" : ""} autocomplete="off" spellcheck=${form === "text" ? null : "false"} maxlength="10000" value=${question[form]} onInput=${input} />`}
  <//>`;
}

function SideChoice({ label, side, choice, wrong, optional = false, like, onChange }) {
  const id = useId();
  const releases = choice.releases.filter((each) => !side || each.components.includes(side.component));
  const older = choice.releases.find((each) => each.number !== (like?.release ?? choice.release) && each.components.includes(like?.component));
  return html`<fieldset class="lab-side">
    <legend>${label}</legend>
    <div class="row">
      <select
        aria-label=${`${label}: component`}
        aria-describedby=${wrong ? `${id}-wrong` : null}
        value=${side?.component ?? ""}
        onChange=${(event) => {
          const component = event.currentTarget.value;
          onChange(component === "" ? null : { component, release: component === like?.component ? older?.number ?? null : side?.release ?? null });
        }}
      >
        ${optional && html`<option value="">nothing</option>`}
        ${side && !choice.components.some((each) => each.component === side.component) && html`<option value=${side.component}>${clean(side.component, 60)}</option>`}
        ${choice.components.map((each) => html`<option key=${each.component} value=${each.component}>${each.component}</option>`)}
      </select>
      ${side &&
      html`<select
        aria-label=${`${label}: release`}
        value=${side.release ?? ""}
        onChange=${(event) => onChange({ ...side, release: Number(event.currentTarget.value) || null })}
      >
        <option value="">newest release</option>
        ${side.release && !releases.some((each) => each.number === side.release) && html`<option value=${side.release}>release ${side.release}</option>`}
        ${releases.map((each) => html`<option key=${each.number} value=${each.number}>release ${each.number}, ${stamp(each.created_at)}</option>`)}
      </select>`}
    </div>
    ${wrong && html`<p class="said wrong-said" id=${`${id}-wrong`}><${Text} value=${wrong} /></p>`}
  </fieldset>`;
}

function FilterField({ question, components, wrong, onChange }) {
  const fields = Object.entries(Object.assign({}, ...components.map((each) => each.filterable)));
  const hint = fields.length
    ? `Fields: ${fields.slice(0, 8).map(([name, kind]) => `${clean(name, 40)} (${kind})`).join(", ")}${fields.length > 8 ? ", …" : ""}`
    : "This collection declares no fields to filter by";
  const [name, kind] = fields[0] ?? ["year", "number"];
  const sample = kind === "number" ? `{"${name}": {"$gte": 10}}` : `{"${name}": "…"}`;
  return html`<${Field} label="Filter" hint=${hint} error=${wrong && clean(wrong, 600)}>
    ${(control) => html`<textarea ...${control} class="mono" rows="1" spellcheck="false" placeholder=${clean(sample, 80)} value=${question.filter} onInput=${(event) => onChange({ filter: event.currentTarget.value })} />`}
  <//>`;
}

function WeightField({ weight, wrong, onChange }) {
  const isSet = weight !== "";
  const share = isSet ? Number(weight) : 50;
  return html`<div class=${`field lab-weight ${wrong ? "wrong" : ""}`}>
    <label class="check-line">
      <input type="checkbox" checked=${isSet} onChange=${(event) => onChange({ weight: event.currentTarget.checked ? "50" : "" })} />
      Own weights
    </label>
    <div class="row nowrap">
      <span class=${isSet ? "" : "faint-text"}>vector ${isSet ? percent((100 - share) / 100, 0) : ""}</span>
      <input
        type="range"
        min="0"
        max="100"
        step="5"
        aria-label="Weight of the words"
        aria-valuetext=${`vector ${100 - share} per cent, words ${share} per cent`}
        disabled=${!isSet}
        value=${share}
        onInput=${(event) => onChange({ weight: event.currentTarget.value })}
      />
      <span class=${isSet ? "" : "faint-text"}>words ${isSet ? percent(share / 100, 0) : ""}</span>
    </div>
    <p class="said">${wrong ? clean(wrong, 300) : isSet ? "In place of the component's own" : "As the component weighs them"}</p>
  </div>`;
}

function Hints({ choice, asked, onAsk }) {
  const older = choice.releases.find(
    (each) => each.number !== (asked.release ?? choice.release) && each.components.includes(asked.component),
  );
  return html`<div class="lab-hints">
    <${Empty}
      icon="search"
      title="Ask something"
      hint=${older
        ? "Choose an older release beside it to see what changed between the two, hit by hit."
        : "Choose another component beside it to see where the two differ, hit by hit."}
      action=${older &&
      html`<${Button} onClick=${() => onAsk({ b: { component: asked.component, release: older.number } })}>
        Compare with release ${older.number}
      <//>`}
    />
  </div>`;
}

// ---- the answer ------------------------------------------------------------------------------------

function spoken(answer) {
  const [first, second] = answer.sides;
  const said = (side) => (side.error ? `${side.component} has no answer` : `${counted(side.hits.length, "hit")} from ${side.component}, release ${side.release}`);
  if (!second) return said(first);
  const share = answer.overlap_at_k === null ? "" : `, ${percent(answer.overlap_at_k, 0)} the same`;
  return `${said(first)} and ${said(second)}${share}`;
}

function Answer({ answer }) {
  const [first, second] = answer.sides;
  const [at, setAt] = useState(null);
  return html`${second && answer.overlap_at_k !== null && html`<${Comparison} answer=${answer} />`}
    <div class=${second ? "lab-answer two-sides" : "lab-answer"}>
      <${Hits} side=${first} other=${second} at=${at} onAt=${setAt} />
      ${second && html`<${Lines} first=${first.hits} second=${second.hits} at=${at} />`}
      ${second && html`<${Hits} side=${second} other=${first} at=${at} onAt=${setAt} />`}
    </div>
    <div class=${second ? "two" : ""}>
      ${answer.sides.map((side, number_) => !side.error && html`<${Explanation} key=${number_} side=${side} />`)}
    </div>`;
}

function Comparison({ answer }) {
  const [first, second] = answer.sides;
  const both = first.hits.length - answer.only_first;
  const names = first.component === second.component ? [`release ${first.release}`, `release ${second.release}`] : [first.component, second.component];
  return html`<dl class="tiles lab-tiles" data-testid="comparison">
    <div class="tile"><dt>Overlap@${answer.k}</dt><dd>${percent(answer.overlap_at_k, 0)}</dd><dd class="hint">${counted(both, "hit")} in both</dd></div>
    <div class="tile"><dt>Other rank</dt><dd>${number(answer.moved)}</dd><dd class="hint">of those in both</dd></div>
    <div class="tile"><dt>Only ${names[0]}</dt><dd>${number(answer.only_first)}</dd><dd class="hint">not among the other's hits</dd></div>
    <div class="tile"><dt>Only ${names[1]}</dt><dd>${number(answer.only_second)}</dd><dd class="hint">not among the other's hits</dd></div>
  </dl>`;
}

/** Where a hit stands on the other side; the sign says whether that is higher or lower. */
function moveOf(hit) {
  const there = hit.other_rank;
  if (there === null) return { word: "only here", tone: "only", sign: null };
  if (there === hit.rank) return { word: "same rank", tone: "same", sign: null };
  return { word: `${number(there)} there`, tone: "moved", sign: there < hit.rank ? "up" : "down" };
}

function Hits({ side, other, at, onAt }) {
  const title = `${side.component}, release ${side.release || "?"}`;
  const said = side.asked_by?.length ? `asked by ${side.asked_by.map((each) => (each === "text" ? "words" : each)).join(" and ")}` : null;
  const time = typeof side.seconds === "number" ? duration(side.seconds) : null;
  return html`<${Panel} title=${title} note=${[said, time && `answered in ${time}`].filter(Boolean).join(", ")} flush>
    ${side.error && html`<div class="lab-no"><${ErrorNote} error=${{ title: "No answer", detail: side.error.detail, message: side.error.detail }} /></div>`}
    ${side.notes.map((each) => html`<p class="lab-note"><${Icon} name="info" /> <${Text} value=${each} /></p>`)}
    ${!side.error && side.hits.length === 0 && html`<${Empty} icon="search" title="No hits" hint="Nothing matches the question and its filter." />`}
    <ol class="hit-list" aria-label=${`Hits of ${title}`}>
      ${side.hits.map((hit) => html`<${HitLine} key=${hit.id} hit=${hit} isCompared=${Boolean(other) && !other.error} at=${at} onAt=${onAt} />`)}
    </ol>
  <//>`;
}

function HitLine({ hit, isCompared, at, onAt }) {
  const [open, setOpen] = useState(false);
  const name = titleOf(hit);
  const moved = isCompared ? moveOf(hit) : null;
  const snippet = hit.text && clean(hit.text, 160) !== clean(name, 160) ? hit.text : null;
  return html`<li
    class=${`hit ${at === hit.id ? "at" : ""} ${moved?.tone === "only" ? "only" : ""}`}
    data-hit=${hit.id}
    onPointerEnter=${() => onAt(hit.id)}
    onPointerLeave=${() => onAt(null)}
  >
    <button type="button" class="hit-line" aria-expanded=${open ? "true" : "false"} onClick=${() => setOpen(!open)} onFocus=${() => onAt(hit.id)} onBlur=${() => onAt(null)}>
      <span class="entry-rank">${hit.rank}</span>
      <span class="entry-name"><${Text} value=${name} limit=${120} />
        <small>${name !== hit.id ? html`<${Text} value=${hit.id} limit=${60} mono />` : snippet ? html`<${Text} value=${snippet} limit=${90} />` : ""}</small>
      </span>
      <span class="hit-side">
        <span class="entry-score">${typeof hit.score === "number" ? number(hit.score, 3) : none}</span>
        ${moved && html`<span class=${`move ${moved.tone}`}>${moved.sign && html`<${Icon} name=${moved.sign} />`}${moved.word}</span>`}
      </span>
    </button>
    ${open &&
    html`<div class="entry-open">
      ${hit.arms && html`<p class="arms">${Object.entries(hit.arms).map(([arm, found]) => html`<span key=${arm}>${arm === "text" ? "words" : arm}: ${found.rank ? `rank ${found.rank}` : "beyond its hits"}, score ${typeof found.score === "number" ? number(found.score, 3) : none}</span>`)}</p>`}
      <${EntryCard} entry=${hit} />
      <a href=${link("lab", { id: hit.id })}>Ask what is like it</a>
    </div>`}
  </li>`;
}

/** Lines from each hit to where it stands on the other side. */
function Lines({ first, second, at }) {
  const svg = useRef(null);
  const [lines, setLines] = useState({ height: 0, paths: [] });
  useLayoutEffect(() => {
    const box = svg.current?.closest(".lab-answer");
    if (!box) return undefined;
    const measure = () => {
      const [left, right] = box.querySelectorAll(".hit-list");
      const top = svg.current.getBoundingClientRect().top;
      const middles = (list) =>
        new Map(Array.from(list?.children ?? [], (item) => {
          const line = item.firstElementChild.getBoundingClientRect();
          return [item.dataset.hit, line.top + line.height / 2 - top];
        }));
      const [ours, theirs] = [middles(left), middles(right)];
      const paths = first
        .filter((hit) => theirs.has(hit.id) && ours.has(hit.id))
        .map((hit) => ({ id: hit.id, from: ours.get(hit.id), to: theirs.get(hit.id), tone: hit.other_rank === hit.rank ? "same" : "moved" }));
      setLines({ paths });
    };
    const watcher = new ResizeObserver(measure);
    watcher.observe(box);
    for (const list of box.querySelectorAll(".hit-list")) watcher.observe(list);
    measure();
    return () => watcher.disconnect();
  }, [first, second]);
  return html`<svg class="rank-lines" ref=${svg} aria-hidden="true">
    ${lines.paths.map(
      ({ id, from, to, tone }) => html`<path
        key=${id}
        class=${`${tone} ${at === id ? "at" : at ? "away" : ""}`}
        d=${`M0 ${from}C28 ${from} 28 ${to} 56 ${to}`}
      />`,
    )}
  </svg>`;
}

// ---- the explanation -------------------------------------------------------------------------------

const PLANS = {
  unfiltered: "No filter: the index was searched.",
  nothing: "No entry matches the filter, so nothing was searched.",
  exact: "Few entries match the filter: each of them was compared.",
  sketches: "The matches whose sketches are nearest were compared.",
  selector: "Many entries match the filter: the index was searched, and only matches were taken.",
  hybrid: "Both halves were asked, and their answers fused.",
};

function Explanation({ side }) {
  const { explanation } = side;
  const times = [
    side.embed_seconds !== null && `${duration(side.embed_seconds)} for the vector of the words`,
    side.open_seconds !== null && side.open_seconds > 0.001 && `${duration(side.open_seconds)} to open the version`,
  ].filter(Boolean);
  return html`<${Panel} title=${`How ${side.component}, release ${side.release}, answered`} note=${times.length ? `Before the search: ${times.join(", ")}` : null}>
    ${explanation ? html`<${Explained} explanation=${explanation} />` : html`<p class="note">This kind of component does not explain its answers.</p>`}
  <//>`;
}

function Explained({ explanation, arm }) {
  const facts = [
    explanation.matches !== undefined && ["matches of the filter", number(explanation.matches)],
    explanation.candidates !== undefined && ["compared", number(explanation.candidates)],
    explanation.rounds > 1 && ["rounds", number(explanation.rounds)],
    ...Object.entries(explanation.effort ?? {}).map(([name, value]) => [clean(name, 40), number(value)]),
  ].filter(Boolean);
  const arms = Object.entries(explanation.arms ?? {});
  return html`<div class="explained">
    ${arm && html`<h3>${arm === "text" ? "Words" : arm === "vector" ? "Vector" : clean(arm, 40)}</h3>`}
    <p>${PLANS[explanation.plan] ?? clean(explanation.plan, 200)}</p>
    ${facts.length > 0 && html`<dl class="fact-line">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`}
    ${explanation.layers?.length > 0 &&
    html`<p class="note">Searched: ${explanation.layers.map((each) => `${clean(each.name, 40)} with ${counted(each.entries, "entry", "entries")} by ${clean(each.how, 60)}`).join("; ")}</p>`}
    ${explanation.stages?.length > 0 && html`<${Stages} stages=${explanation.stages} total=${explanation.seconds} />`}
    ${arms.map(([name, found]) => html`<${Explained} key=${name} explanation=${found} arm=${name} />`)}
  </div>`;
}

function Stages({ stages, total }) {
  const most = Math.max(...stages.map((each) => each.seconds), 1e-9);
  return html`<table class="stages">
    <caption class="unseen">What took how long</caption>
    <thead class="unseen"><tr><th scope="col">Stage</th><th scope="col">Time</th><th scope="col">Share</th></tr></thead>
    <tbody>
      ${stages.map(
        (each, place) => html`<tr key=${place}>
          <th scope="row">${clean(each.name, 40)}</th>
          <td class="end">${micros(each.seconds)}</td>
          <td class="stage-bar"><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect width=${(100 * each.seconds) / most} height="8" /></svg></td>
        </tr>`,
      )}
    </tbody>
    <tfoot><tr><th scope="row">all</th><td class="end">${micros(total)}</td><td /></tr></tfoot>
  </table>`;
}

function micros(seconds) {
  return typeof seconds === "number" ? `${number(Math.round(seconds * 1e6))} µs` : none;
}
