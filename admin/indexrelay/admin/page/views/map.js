// The map: every entry as a point, what one of them is, and the same entries as a list.
//
// Everything that the canvas shows is in the list beside it as well: what a search found, what was
// drawn around, and what is in the picture. A new release replaces the map while it is open; each
// point is known by the CRC-32 of its id and goes from where it was to where it is now.

import {
  Button,
  Empty,
  ErrorNote,
  Icon,
  PageHead,
  Panel,
  Skeleton,
  Tabs,
  Text,
  api,
  clean,
  counted,
  go,
  html,
  link,
  number,
  toast,
  useCallback,
  useEffect,
  useId,
  useLoad,
  useMemo,
  useRef,
  useState,
  useTheme,
} from "../parts.js";
import { Scatter, canDraw, difference, keyOf, pointsOf, rowOf } from "../scatter.js";
import { EntryCard, titleOf } from "../entry.js";
import { LIT, NO_VALUE, REST, bytesOf, isDark, painted, palette } from "../palette.js";

const FOUND = 100;
const RINGED = 400; // more than that keep their colours, and the others fade
const BEST = 10; // of the found ones, which stand out most
const LISTED = 25;
const MOST_LISTED = 200;
const HOVER_MS = 90;
const KEPT = 4000;
const LOST = 3; // a browser that takes the picture away more often than that cannot keep it

export function MapView({ state, route }) {
  const release = state?.release?.number ?? null;
  const maps = useLoad(() => api.get("map"), [release]);
  const list = maps.data?.maps;
  const wanted = route.path[0] ?? list?.[0]?.component;
  const summary = list?.find((each) => each.component === wanted);
  const lead = summary
    ? `${counted(summary.entries, "entry", "entries")} of ${summary.collections.join(", ")}, release ${summary.release}`
    : "Every entry as a point, near to what is like it";
  const choice =
    list?.length > 1 &&
    html`<label class="inline-choice">
      <span>Map</span>
      <select value=${wanted} onChange=${(event) => go("map", event.currentTarget.value)}>
        ${list.map((each) => html`<option key=${each.component} value=${each.component}>${each.component}</option>`)}
      </select>
    </label>`;
  return html`<${PageHead} title="Map" lead=${lead} actions=${choice || null} />
    ${maps.error && html`<${ErrorNote} error=${maps.error} retry=${maps.reload} />`}
    ${!list && !maps.error && html`<${Skeleton} rows=${8} />`}
    ${list && !summary && html`<${NoMap} found=${maps.data} wanted=${route.path[0]} />`}
    ${summary && html`<${OneMap} key=${summary.component} summary=${summary} route=${route} />`}`;
}

function NoMap({ found, wanted }) {
  if (found.release === null) {
    return html`<${Panel} title="No map yet">
      <${Empty} icon="points" title="Nothing is released yet" hint="The map is drawn from the newest release. Start a rebuild on the Overview." />
    <//>`;
  }
  if (wanted && found.maps.length > 0) {
    return html`<${Panel} title="No such map">
      <${Empty}
        icon="points"
        title=${`Release ${found.release} has no map ${clean(wanted, 60)}`}
        action=${html`<a href=${link("map")}>Open ${found.maps[0].component}</a>`}
      />
    <//>`;
  }
  return html`<${Panel} title="No map yet">
    <${Empty}
      icon="points"
      title=${`Release ${found.release} has no component of the kind projection`}
      hint=${html`Add one to the settings, and it is built with the next rebuild: <code>[components.map]</code>${" "}
        <code>kind = "projection"</code>${" "}<code>from = "YOUR_COLLECTION"</code>`}
    />
  <//>`;
}

/** The array of a version, as points. */
async function readPoints(component, version) {
  const { buffer, headers } = await api.binary(`map/${component}?version=${version}`);
  const points = pointsOf(buffer, Number(headers.get("X-Map-Count")));
  return { ...points, version: headers.get("X-Map-Version") ?? version };
}

async function readColours(component, version, field) {
  const found = await api.get(`map/${component}/colours?version=${version}&field=${encodeURIComponent(field)}`);
  const codes = Uint8Array.from(atob(found.codes), (each) => each.charCodeAt(0));
  return { ...found, codes };
}

/** Entries by row, asked for once; for one version. */
class Entries {
  constructor(component, version) {
    this.path = `map/${component}/entries?version=${version}`;
    this.known = new Map();
  }

  get(row) {
    return this.known.get(row) ?? null;
  }

  async read(rows) {
    const missing = rows.filter((row) => !this.known.has(row)).slice(0, MOST_LISTED);
    if (missing.length === 0) return;
    const { entries } = await api.get(`${this.path}&rows=${missing.join(",")}`);
    if (this.known.size > KEPT) this.known.clear();
    for (const entry of entries) this.known.set(entry.row, entry);
  }
}

function OneMap({ summary, route }) {
  const component = summary.component;
  const [points, setPoints] = useState(null);
  const [error, setError] = useState(null);
  const [news, setNews] = useState("");
  const [field, setField] = useState("");
  const [colours, setColours] = useState(null);
  const [only, setOnly] = useState(null);
  const [found, setFound] = useState(null); // {hits, said}
  const [drawn, setDrawn] = useState(null); // keys of a lasso
  const [tab, setTab] = useState("view");
  const [focus, setFocus] = useState(null); // a key
  const [inView, setInView] = useState({ count: 0, rows: [] });
  const [turn, setTurn] = useState(0);
  const scatter = useRef(null);
  const current = useRef(null);
  const fields = useLoad(() => api.get(`map/${component}/fields?version=${summary.version}`), [summary.version]);
  const searchers = useSearchers(summary);
  const entries = useMemo(() => points && new Entries(component, points.version), [points]);

  // A new version comes whole, with its colours, before anything on the canvas changes.
  useEffect(() => {
    let left = false;
    const before = current.current;
    const load = async () => {
      const [next, nextColours] = await Promise.all([
        before?.version === summary.version ? before : readPoints(component, summary.version),
        field ? readColours(component, summary.version, field).catch((problem) => problem) : null,
      ]);
      if (left) return;
      if (nextColours instanceof Error) {
        setColours(null);
        setField("");
        toast(nextColours.message, "warn");
      } else {
        setColours(nextColours);
      }
      setError(null);
      if (next === before) return;
      current.current = next;
      setPoints(next);
      if (before) {
        const { moved, added, gone } = difference(before, next);
        const parts = [[moved, "moved"], [added, "came"], [gone, "went"]].filter(([count]) => count > 0);
        const said = parts.map(([count, what]) => `${number(count)} ${what}`).join(", ");
        setNews(`Release ${summary.release} replaced the map: ${said || "nothing moved"}.`);
      }
    };
    load().catch((problem) => left || setError(problem));
    return () => {
      left = true;
    };
  }, [component, summary.version, field, turn]);

  const hitRows = useMemo(
    () => (points && found ? found.hits.map((hit) => rowOf(points, keyOf(hit.id))) : []),
    [points, found],
  );
  const drawnRows = useMemo(
    () => (points && drawn ? drawn.map((key) => rowOf(points, key)).filter((row) => row >= 0) : []),
    [points, drawn],
  );
  const lit = useMemo(() => {
    if (tab === "found" && found) return hitRows.filter((row) => row >= 0);
    return tab === "drawn" && drawn ? drawnRows : null;
  }, [tab, found, drawn, hitRows, drawnRows]);
  const focusRow = points && focus !== null ? rowOf(points, focus) : -1;

  const showRow = useCallback(
    (row, centre) => {
      if (row < 0 || !current.current) return;
      setFocus(current.current.keys[row]);
      if (centre) scatter.current?.centre(row);
    },
    [],
  );
  const onFound = useCallback((result) => {
    setFound(result);
    setTab("found");
    setFocus(null);
  }, []);
  useEffect(() => {
    if (tab === "found" && hitRows.length > 0) scatter.current?.frameRows(hitRows.filter((row) => row >= 0));
  }, [found]);
  const onLasso = useCallback((rows) => {
    setDrawn(rows.map((row) => current.current.keys[row]));
    setTab("drawn");
    setFocus(null);
  }, []);

  const tabs = [
    { key: "view", title: "In view", count: inView.count },
    found && { key: "found", title: "Found", count: found.hits.length },
    drawn && { key: "drawn", title: "Circled", count: drawnRows.length },
  ].filter(Boolean);
  const rows = tab === "found" ? hitRows : tab === "drawn" ? drawnRows : inView.rows;
  const total = tab === "view" ? inView.count : rows.length;

  if (error && !points) return html`<${ErrorNote} error=${error} retry=${() => setTurn(turn + 1)} />`;
  if (!points) return html`<div class="map-frame"><${Skeleton} rows=${10} /></div>`;
  return html`<div class="map-view">
    <div class="map-main">
      <${MapSearch} summary=${summary} searchers=${searchers} route=${route} onFound=${onFound} found=${found} onClear=${() => {
        setFound(null);
        setTab("view");
      }} />
      ${error && html`<${ErrorNote} error=${error} retry=${() => setTurn(turn + 1)} />`}
      <p class=${news ? "map-news" : "unseen"} role="status">
        ${news && html`<${Icon} name="again" /><span>${news}</span>`}
        ${news && html`<button type="button" class="bare" aria-label="Dismiss" onClick=${() => setNews("")}>
          <${Icon} name="close" />
        </button>`}
      </p>
      <${Canvas}
        hold=${scatter}
        summary=${summary}
        points=${points}
        entries=${entries}
        colours=${colours}
        only=${only}
        lit=${lit}
        best=${tab === "found" ? BEST : 0}
        focusRow=${focusRow}
        onPick=${(row) => (row === null ? setFocus(null) : showRow(row, false))}
        onLasso=${onLasso}
        onView=${setInView}
      />
      <div class="map-colours">
        <${ColourChoice} fields=${fields} field=${field} onField=${(name) => {
          setOnly(null);
          setField(name);
        }} />
        ${colours && html`<${Legend} colours=${colours} only=${only} onOnly=${setOnly} />`}
      </div>
    </div>
    <div class="map-side">
      <${Panel} title="Entries" flush>
        <${Tabs} label="Which entries" items=${tabs} open=${tabs.some((each) => each.key === tab) ? tab : "view"} onOpen=${setTab}>
          <${EntryList}
            key=${tab}
            kind=${tab}
            rows=${rows}
            total=${total}
            hits=${tab === "found" ? found.hits : null}
            entries=${entries}
            focusRow=${focusRow}
            summary=${summary}
            searchers=${searchers}
            onShow=${(row) => showRow(row, true)}
            onSimilar=${onFound}
          />
        <//>
      <//>
    </div>
  </div>`;
}

// ---- searching -------------------------------------------------------------------------------

/** Ask for the entries near a text, or near another entry. */
async function ask(component, release, by, words) {
  const { sides } = await api.post("lab/search", { sides: [{ component, release }], [by]: words, k: FOUND });
  return { hits: sides[0].hits, by, words, notes: sides[0].notes, component };
}

/** Which component finds by words and which by an entry; null: none does. */
function useSearchers(summary) {
  const lab = useLoad(() => api.get("lab"), [summary.release]);
  return useMemo(() => {
    const known = new Map((lab.data?.components ?? []).map((each) => [each.component, each]));
    const first = (by) =>
      summary.searched_by.find((name) => known.get(name)?.questions.includes(by)) ?? null;
    const why = summary.searched_by.map((name) => known.get(name)?.by_text).find(Boolean) ?? null;
    return { ready: lab.data !== null, text: first("text"), id: first("id"), why };
  }, [lab.data, summary]);
}

function MapSearch({ summary, searchers, route, found, onFound, onClear }) {
  const [by, setBy] = useState("text");
  const [words, setWords] = useState(route.query.get("q") ?? "");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const can = searchers[by] !== null;
  const submit = async (event) => {
    event.preventDefault();
    if (words.trim() === "" || !can) return;
    setBusy(true);
    setError(null);
    try {
      onFound(await ask(searchers[by], summary.release, by, by === "text" ? words : words.trim()));
    } catch (problem) {
      setError(problem);
    } finally {
      setBusy(false);
    }
  };
  const hint =
    searchers.ready && !can
      ? by === "text"
        ? searchers.why ?? "No component of this release finds these entries by words."
        : "No component of this release finds entries that are like another."
      : null;
  const said = error ? error.detail || error.message : hint;
  const id = useId();
  return html`<form class="map-search" role="search" onSubmit=${submit}>
    <div class="segments" role="group" aria-label="Search by">
      ${[["text", "Words"], ["id", "Like an id"]].map(
        ([name, title]) => html`<button
          key=${name}
          type="button"
          aria-pressed=${by === name ? "true" : "false"}
          onClick=${() => {
            setBy(name);
            setError(null);
          }}
        >${title}</button>`,
      )}
    </div>
    <div class="search-box">
      <input
        type="search"
        value=${words}
        maxlength="2000"
        aria-label=${by === "text" ? "Words to find" : "Id of an entry"}
        aria-invalid=${error ? "true" : null}
        aria-describedby=${said ? `${id}-said` : null}
        placeholder=${by === "text" ? "Search the map" : "Id of an entry"}
        autocomplete="off"
        onInput=${(event) => {
          setWords(event.currentTarget.value);
          if (event.currentTarget.value === "" && found) onClear();
        }}
      />
      <${Button} type="submit" tone="primary" icon="search" busy=${busy} disabled=${!can || words.trim() === ""}>Search<//>
      ${found && html`<button type="button" class="bare" aria-label="Clear the search" title="Clear the search" onClick=${() => {
        setWords("");
        setError(null);
        onClear();
      }}><${Icon} name="close" /></button>`}
    </div>
    ${said && html`<p id=${`${id}-said`} class=${error ? "said wrong-said" : "said"} role=${error ? "alert" : null}><${Text} value=${said} /></p>`}
    ${found && !error && html`<p class="said" role="status">
      ${counted(found.hits.length, "entry", "entries")} found by ${found.component}${found.notes.map((each) => html`; <${Text} value=${each} />`)}.
      ${" "}<a href=${link("lab", { [found.by]: found.words, a: found.component })}>See how in the lab</a>
    </p>`}
  </form>`;
}

// ---- colours ---------------------------------------------------------------------------------

function ColourChoice({ fields, field, onField }) {
  const known = fields.data?.fields ?? [];
  return html`<label class="inline-choice">
      <span>Colour by</span>
      <select value=${field} disabled=${known.length === 0} onChange=${(event) => onField(event.currentTarget.value)}>
        <option value="">${known.length === 0 && !fields.loading ? "no field" : "one colour"}</option>
        ${known.map((each) => html`<option key=${each.name} value=${each.name}>${clean(each.name, 60)}</option>`)}
      </select>
    </label>`;
}

function Swatch({ colour }) {
  return html`<span class="map-swatch" style=${{ background: colour }} />`;
}

function Legend({ colours, only, onOnly }) {
  useTheme();
  const dark = isDark();
  const shades = palette(colours, dark);
  const items = colours.labels.map((each, code) => ({ ...each, code, colour: shades[code] }));
  if (colours.missing > 0) {
    items.push({ label: "no value", count: colours.missing, code: NO_VALUE, colour: REST[dark ? 1 : 0] });
  }
  return html`<div class="map-legend" role="group" aria-label=${`Colours by ${clean(colours.field, 60)}`}>
    ${items.map(
      (each) => html`<button
        key=${each.code}
        type="button"
        aria-pressed=${only === each.code ? "true" : "false"}
        title="Show only these"
        onClick=${() => onOnly(only === each.code ? null : each.code)}
      >
        <${Swatch} colour=${each.colour} /><${Text} value=${each.label} limit=${40} />
        <span class="count">${number(each.count)}</span>
      </button>`,
    )}
  </div>`;
}

// ---- the canvas --------------------------------------------------------------------------------

function Canvas({ hold, summary, points, entries, colours, only, lit, best, focusRow, onPick, onLasso, onView }) {
  const canvas = useRef(null);
  const [failure, setFailure] = useState(null);
  const [lasso, setLasso] = useState(false);
  const [line, setLine] = useState(null);
  const [hover, setHover] = useState(null);
  const [ready, setReady] = useState(false);
  const [lost, setLost] = useState(0);
  const theme = useTheme();
  const calls = useRef({});
  const viewTimer = useRef(null);
  const view = useRef(null); // where one looked, for the next picture
  const hint = useId();

  // What the legend leaves out is not in the list either.
  const codes = colours?.version === points.version ? colours.codes : null;
  const keep = codes && only !== null ? (row) => codes[row] === only : null;
  const look = () => {
    clearTimeout(viewTimer.current);
    viewTimer.current = setTimeout(() => hold.current && onView(hold.current.inView(MOST_LISTED, keep)), 120);
  };
  calls.current = {
    onHover: (row, x, y) => setHover(row === null ? null : { row, x, y }),
    onPick,
    onLine: setLine,
    onView: look,
    onLasso: (rows) => {
      setLasso(false);
      onLasso(rows);
    },
    onError: setFailure,
    onLost: () => {
      setReady(false);
      setLine(null);
      setHover(null);
      setLost(lost + 1);
    },
  };

  useEffect(() => {
    if (!canDraw()) {
      setFailure(new Error("This browser has no WebGL 2, so the points cannot be drawn"));
      return undefined;
    }
    if (lost > LOST) {
      setFailure(new Error("The browser took the picture away, time and again: close other pages that draw, and open this one again"));
      return undefined;
    }
    let left = false;
    const names = ["onHover", "onPick", "onLine", "onView", "onLasso", "onError", "onLost"];
    const callbacks = Object.fromEntries(names.map((name) => [name, (...given) => calls.current[name](...given)]));
    Scatter.open(canvas.current, callbacks, view.current).then(
      (opened) => {
        if (left) opened.close();
        else {
          hold.current = opened;
          setReady(true);
        }
      },
      (problem) => left || setFailure(problem),
    );
    return () => {
      left = true;
      clearTimeout(viewTimer.current);
      view.current = hold.current && !hold.current.fitted ? hold.current.view : null;
      hold.current?.close();
      hold.current = null;
    };
  }, [lost]);

  // Without a picture all of the map is in view.
  useEffect(() => {
    if (!failure) return;
    const rows = Array.from({ length: Math.min(points.count, MOST_LISTED) }, (_, row) => row);
    onView({ count: points.count, rows });
  }, [failure, points]);

  const dark = useMemo(isDark, [theme]);
  useEffect(() => {
    if (!ready) return;
    const inks = { lit: bytesOf(LIT[dark ? 1 : 0]), ring: dark ? [255, 255, 255] : [20, 28, 38], ground: dark ? [14, 19, 25] : [255, 255, 255] };
    hold.current.setInk(inks);
  }, [ready, dark]);
  useEffect(() => {
    if (!ready) return;
    const inks = painted(points, colours, only, lit, dark);
    if (hold.current.points === points) hold.current.setColours(inks);
    else hold.current.setPoints(points, inks, { glide: true });
    look();
  }, [ready, points, colours, only, lit, dark]);
  useEffect(() => {
    if (ready) hold.current.setLit(lit && lit.length <= RINGED ? lit : null, best);
  }, [ready, lit, best, points]);
  useEffect(() => {
    if (ready) hold.current.setFocus(focusRow);
  }, [ready, focusRow, points]);
  useEffect(() => {
    if (ready) hold.current.setLasso(lasso);
  }, [ready, lasso]);

  const keys = (event) => {
    const at = hold.current;
    if (!at) return;
    const acts = {
      ArrowLeft: () => at.panBy(-1, 0),
      ArrowRight: () => at.panBy(1, 0),
      ArrowUp: () => at.panBy(0, 1),
      ArrowDown: () => at.panBy(0, -1),
      "+": () => at.zoomBy(1),
      "=": () => at.zoomBy(1),
      "-": () => at.zoomBy(-1),
      0: () => at.fit(),
      Escape: () => setLasso(false),
    };
    if (!acts[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    acts[event.key]();
  };
  const tool = (name, title, act, pressed) => html`<button
    type="button"
    class="map-tool"
    aria-label=${title}
    title=${title}
    aria-pressed=${pressed === undefined ? null : pressed ? "true" : "false"}
    onClick=${act}
  >${name}</button>`;

  return html`<div
    class=${`map-frame ${lasso ? "lassoing" : ""}`}
    role="application"
    aria-roledescription="map"
    aria-label=${`Map of ${counted(points.count, "entry", "entries")}`}
    aria-describedby=${hint}
    tabindex="0"
    data-points=${ready ? points.count : 0}
    data-lit=${lit ? lit.length : 0}
    data-release=${summary.release}
    onKeyDown=${keys}
  >
    <p id=${hint} class="unseen">
      Arrow keys move the map, plus and minus zoom, 0 shows all of it. The list beside it has the entries in view.
    </p>
    <div class="map-canvas" ref=${canvas} />
    ${failure &&
    html`<div class="map-failure">
      <${Icon} name="warn" /><p><${Text} value=${failure.message} />. The list beside it works without the picture.</p>
    </div>`}
    ${!ready && !failure && html`<div class="map-wait"><${Skeleton} rows=${3} /></div>`}
    ${!failure &&
    html`<div class="map-buttons" role="toolbar" aria-label="Map">
      ${tool(html`<${Icon} name="plus" />`, "Zoom in", () => hold.current?.zoomBy(1))}
      ${tool(html`<${Icon} name="minus" />`, "Zoom out", () => hold.current?.zoomBy(-1))}
      ${tool(html`<${Icon} name="fit" />`, "Show all", () => hold.current?.fit())}
      ${tool(html`<${Icon} name="lasso" />`, "Draw around entries", () => setLasso(!lasso), lasso)}
    </div>`}
    ${lasso &&
    html`<p class="map-hint">Draw a line around entries.${" "}
      <button type="button" class="link" onClick=${() => {
        setLasso(false);
        const all = hold.current.inView(Infinity, keep);
        onLasso(all.rows.sort((one, other) => one - other));
      }}>Take all in view</button></p>`}
    ${line && html`<svg class="map-line" aria-hidden="true"><polygon points=${line.map((each) => each.join(",")).join(" ")} /></svg>`}
    ${points.count < summary.entries &&
    html`<p class="map-some">${number(points.count)} of ${number(summary.entries)} entries are shown</p>`}
    <${Hover} hover=${hover} entries=${entries} canvas=${canvas} />
  </div>`;
}

/** What the point under the pointer is. */
function Hover({ hover, entries, canvas }) {
  const [, again] = useState(0);
  const row = hover?.row ?? null;
  useEffect(() => {
    if (row === null || entries.get(row)) return undefined;
    let left = false;
    const timer = setTimeout(() => {
      entries.read([row]).then(
        () => left || again((value) => value + 1),
        () => {},
      );
    }, HOVER_MS);
    return () => {
      left = true;
      clearTimeout(timer);
    };
  }, [row, entries]);
  if (row === null) return null;
  const entry = entries.get(row);
  const box = canvas.current;
  const rightwards = hover.x < box.clientWidth / 2;
  const downwards = hover.y < box.clientHeight / 2;
  // In a narrow picture it stands above or below the point, and not beside it.
  const isNarrow = box.clientWidth < 480;
  const place = isNarrow ? { left: "8px", right: "auto" } : {
    left: rightwards ? `${hover.x + 14}px` : "auto",
    right: rightwards ? "auto" : `${box.clientWidth - hover.x + 14}px`,
  };
  Object.assign(place, {
    top: downwards ? `${hover.y + 14}px` : "auto",
    bottom: downwards ? "auto" : `${box.clientHeight - hover.y + 14}px`,
  });
  return html`<div class="map-hover" style=${place} data-testid="map-hover">
    ${entry ? html`<${EntryCard} entry=${entry} short />` : html`<span class="note">…</span>`}
  </div>`;
}

// ---- the list ------------------------------------------------------------------------------------

function EntryList({ kind, rows, total, hits, entries, focusRow, summary, searchers, onShow, onSimilar }) {
  const [most, setMost] = useState(LISTED);
  const [error, setError] = useState(null);
  const [, again] = useState(0);
  const [busy, setBusy] = useState(false);
  // A point that was picked on the canvas stands first, wherever it is in the list.
  const shown = useMemo(() => {
    const some = rows.slice(0, most).map((row, at) => ({ row, hit: hits?.[at] ?? null }));
    const isPicked = focusRow >= 0 && !some.some(({ row }) => row === focusRow);
    return isPicked ? [{ row: focusRow, hit: null }, ...some] : some;
  }, [rows, hits, most, focusRow]);
  const wanted = shown.map(({ row }) => row).filter((row) => row >= 0 && !entries.get(row)).join(",");
  useEffect(() => {
    if (wanted === "") return undefined;
    let left = false;
    entries.read(wanted.split(",").map(Number)).then(
      () => {
        if (left) return;
        setError(null);
        again((value) => value + 1);
      },
      (problem) => left || setError(problem),
    );
    return () => {
      left = true;
    };
  }, [entries, wanted]);
  const picked = focusRow >= 0 ? entries.get(focusRow) : null;
  const similar = async (id) => {
    setBusy(true);
    try {
      onSimilar(await ask(searchers.id, summary.release, "id", id));
    } catch (problem) {
      setError(problem);
    } finally {
      setBusy(false);
    }
  };
  const copy = async () => {
    const ids = shown.map(({ row, hit }) => hit?.id ?? entries.get(row)?.id).filter(Boolean);
    try {
      await navigator.clipboard.writeText(ids.join("\n"));
      toast(`${counted(ids.length, "id")} copied`);
    } catch {
      toast("The browser does not let this page copy", "warn");
    }
  };
  if (rows.length === 0 && focusRow < 0) {
    const said = {
      view: ["Nothing in view", "Zoom out, or show all of the map."],
      found: ["Nothing found", "Try other words."],
      drawn: ["Nothing inside the line", "Draw it around some points."],
    }[kind];
    return html`<${Empty} icon="points" title=${said[0]} hint=${said[1]} />`;
  }
  return html`${error && html`<${ErrorNote} error=${error} />`}
    <p class="unseen" role="status">${picked ? `Chosen: ${clean(titleOf(picked), 120)}` : ""}</p>
    <ol class="entry-list" aria-label="Entries">
      ${shown.map(({ row, hit }, at) => {
        const entry = entries.get(row) ?? hit ?? null;
        const isOpen = row >= 0 && row === focusRow;
        const name = entry ? titleOf(entry) : "…";
        return html`<li key=${row >= 0 ? row : `absent-${at}`} class=${isOpen ? "open" : ""}>
          <button
            type="button"
            class="entry-line"
            aria-expanded=${isOpen ? "true" : "false"}
            disabled=${row < 0}
            onClick=${() => onShow(row)}
          >
            ${hit && html`<span class="entry-rank">${hit.rank}</span>`}
            <span class="entry-name"><${Text} value=${name} limit=${160} />
              ${entry && name !== entry.id && html`<small><${Text} value=${entry.id} limit=${80} mono /></small>`}
              ${row < 0 && html`<small>not on the map</small>`}
            </span>
            ${hit && typeof hit.score === "number" && html`<span class="entry-score">${number(hit.score, 3)}</span>`}
          </button>
          ${isOpen &&
          entry &&
          html`<div class="entry-open">
            <${EntryCard} entry=${entry} />
            <div class="row">
              <${Button} icon="search" busy=${busy} disabled=${searchers.id === null} onClick=${() => similar(entry.id)}>
                Find what is like it
              <//>
              ${searchers.id && html`<a href=${link("lab", { id: entry.id, a: searchers.id })}>Compare in the lab</a>`}
            </div>
          </div>`}
        </li>`;
      })}
    </ol>
    <div class="list-foot">
      ${rows.length > most && most < MOST_LISTED && html`<${Button} onClick=${() => setMost(Math.min(MOST_LISTED, most + 50))}>Show more<//>`}
      <${Button} icon="list" onClick=${copy}>Copy ids<//>
      <span class="note">${number(Math.min(most, rows.length))} of ${number(total)}</span>
    </div>`;
}
