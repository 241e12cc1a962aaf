// The frame of the page: who is logged in, which view is open, and whether what it shows is live.

import {
  Button,
  Component,
  ErrorNote,
  Field,
  Icon,
  PageHead,
  Skeleton,
  Toasts,
  api,
  clean,
  html,
  link,
  onEvent,
  render,
  sentence,
  toast,
  useEffect,
  useRef,
  useState,
  verdictLook,
} from "./parts.js";
import { onRefused, onSignedOut, setToken } from "./api.js";
import { ahead, latest, start, stop } from "./stream.js";

// In the order of the navigation. `group` is a title above the first view that has it.
const VIEWS = [
  { name: "overview", title: "Overview", icon: "gauge", draw: () => import("./views/overview.js").then((m) => m.OverviewView) },
  { name: "components", title: "Components", icon: "cube", draw: () => import("./views/components.js").then((m) => m.ComponentsView) },
  { name: "readers", title: "Readers", icon: "grid", draw: () => import("./views/readers.js").then((m) => m.ReadersView) },
  { name: "releases", title: "Releases", icon: "tag", draw: () => import("./views/releases.js").then((m) => m.ReleasesView) },
  { name: "map", title: "Map", icon: "points", group: "Look inside", draw: () => import("./views/map.js").then((m) => m.MapView) },
  { name: "lab", title: "Search lab", icon: "search", group: "Look inside", draw: () => import("./views/lab.js").then((m) => m.LabView) },
  { name: "history", title: "History", icon: "chart", group: "Look inside", draw: () => import("./views/history.js").then((m) => m.HistoryView) },
  { name: "alerts", title: "Alerts", icon: "bell", group: "Upkeep", draw: () => import("./views/alerts.js").then((m) => m.AlertsView) },
  { name: "dead-letters", title: "Dead letters", icon: "letter", draw: () => import("./views/dead_letters.js").then((m) => m.DeadLettersView) },
  { name: "schedules", title: "Schedules", icon: "calendar", draw: () => import("./views/schedules.js").then((m) => m.SchedulesView) },
  { name: "backups", title: "Backups", icon: "box", draw: () => import("./views/backups.js").then((m) => m.BackupsView) },
  { name: "audit", title: "Audit", icon: "list", draw: () => import("./views/audit.js").then((m) => m.AuditView) },
];

const RETRY_MS = 2000;

// ---- which view ----------------------------------------------------------------------------

function parsedRoute() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const segments = path.split("/").filter(Boolean).map((each) => {
    try {
      return decodeURIComponent(each);
    } catch {
      return each;
    }
  });
  return { view: segments[0] ?? "overview", path: segments.slice(1), query: new URLSearchParams(search) };
}

function useRoute() {
  const [route, setRoute] = useState(parsedRoute);
  useEffect(() => {
    const turned = () => setRoute(parsedRoute());
    addEventListener("hashchange", turned);
    return () => removeEventListener("hashchange", turned);
  }, []);
  return route;
}

// ---- colours -------------------------------------------------------------------------------

const THEMES = [
  { name: "system", title: "Colours of the system", icon: "screen" },
  { name: "light", title: "Light colours", icon: "sun" },
  { name: "dark", title: "Dark colours", icon: "moon" },
];

function savedTheme() {
  try {
    const saved = localStorage.getItem("indexrelay.theme");
    return THEMES.some((each) => each.name === saved) ? saved : "system";
  } catch {
    return "system";
  }
}

function applyTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

function ThemeSwitch() {
  const [theme, setTheme] = useState(savedTheme);
  const choose = (name) => {
    setTheme(name);
    applyTheme(name);
    try {
      localStorage.setItem("indexrelay.theme", name);
    } catch {
      // Then it lasts as long as the page is open.
    }
    dispatchEvent(new Event("themechange"));
  };
  return html`<div class="segments" role="group" aria-label="Colours">
    ${THEMES.map(
      (each) => html`<button
        key=${each.name}
        type="button"
        aria-pressed=${theme === each.name ? "true" : "false"}
        aria-label=${each.title}
        title=${each.title}
        onClick=${() => choose(each.name)}
      ><${Icon} name=${each.icon} /></button>`,
    )}
  </div>`;
}

// ---- whether it is live --------------------------------------------------------------------

const CONNECTIONS = {
  live: { tone: "ok", icon: "check", word: "Live", hint: "Changes appear by themselves." },
  connecting: { tone: "quiet", icon: "dots", word: "Connecting", hint: "The first answer is on its way." },
  reconnecting: { tone: "warn", icon: "again", word: "Reconnecting", hint: "The service does not answer; what is shown may be old." },
  offline: { tone: "bad", icon: "refused", word: "Offline", hint: "The service has not answered for a while; what is shown is old." },
};

function Connection({ word }) {
  const shown = CONNECTIONS[word] ?? CONNECTIONS.connecting;
  return html`<span class=${`connection ${shown.tone}`} role="status" title=${shown.hint} data-testid="connection">
    <${Icon} name=${shown.icon} className=${word === "reconnecting" ? "turning" : ""} />${shown.word}
  </span>`;
}

// ---- logging in ----------------------------------------------------------------------------

function Login({ onLogin, why }) {
  const [byToken, setByToken] = useState(false);
  const [given, setGiven] = useState({ user: "", password: "", token: "" });
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const form = useRef(null);
  useEffect(() => form.current.querySelector("input").focus(), [byToken]);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await api.post("login", byToken ? { token: given.token.trim() } : { user: given.user, password: given.password });
      if ((await onLogin()) === null) {
        const message = "The login was right, and the browser did not keep its cookie: allow cookies here, or open the page by https.";
        setError({ message });
        setBusy(false);
      }
    } catch (raised) {
      setError({ message: sentence(raised.message), retryAfter: raised.retryAfter });
      setGiven({ ...given, password: "", token: "" });
      setBusy(false);
    }
  };
  const input = (name, rest) => (control) => html`<input
    ...${control}
    name=${name}
    required
    maxlength="1000"
    autocapitalize="none"
    spellcheck=${false}
    value=${given[name]}
    onInput=${(event) => setGiven({ ...given, [name]: event.currentTarget.value })}
    ...${rest}
  />`;
  const other = byToken ? "Log in with a name and a password" : "Log in with a token";
  return html`<main class="login">
    <form class="login-card" onSubmit=${submit} ref=${form}>
      <${Brand} />
      <h1>Log in</h1>
      ${why && html`<p class="note">${why}</p>`}
      ${byToken
        ? html`<${Field} key="token" label="Token">${input("token", { type: "password", autocomplete: "off" })}<//>`
        : html`<${Field} key="user" label="Name">${input("user", { autocomplete: "username" })}<//>
            <${Field} key="password" label="Password">
              ${input("password", { type: "password", autocomplete: "current-password" })}
            <//>`}
      <${ErrorNote} error=${error} />
      <${Button} type="submit" tone="primary" busy=${busy}>Log in<//>
      <button type="button" class="text-button" onClick=${() => setByToken(!byToken)}>${other}</button>
    </form>
    <${ThemeSwitch} />
  </main>`;
}

function Brand() {
  return html`<span class="brand"><img src="icon.svg" alt="" width="24" height="24" />indexrelay</span>`;
}

// ---- the frame -----------------------------------------------------------------------------

/** Keeps an error of one view from taking the page with it. */
class Guarded extends Component {
  componentDidCatch(error) {
    console.warn("a view failed to draw", error);
    this.setState({ error });
  }
  render({ children }, { error }) {
    if (!error) return children;
    return html`<${ErrorNote}
      error=${{ title: "This view could not be drawn", message: error.message }}
      retry=${() => this.setState({ error: null })}
    />`;
  }
}

function View({ route, state, me }) {
  const view = VIEWS.find((each) => each.name === route.view);
  const [drawn, setDrawn] = useState({ name: null, Draw: null, error: null });
  // The one that was asked for last is drawn, whichever arrives last.
  const wanted = useRef(null);
  wanted.current = view;
  const load = () => {
    if (!view) return;
    const arrived = (Draw, error) =>
      wanted.current === view && setDrawn({ name: view.name, Draw, error });
    view.draw().then(
      (Draw) => arrived(Draw, null),
      (error) => arrived(null, error),
    );
  };
  useEffect(load, [view]);
  if (!view) {
    return html`<${PageHead} title="No such page" />
      <p>There is nothing at this address. <a href=${link("overview")}>Go to the overview</a>.</p>`;
  }
  // A view may count on the state: until the first one is here there is only its place.
  if (drawn.name !== view.name || (state === null && !drawn.error)) {
    return html`<${PageHead} title=${view.title} /><${Skeleton} rows=${6} />`;
  }
  if (drawn.error) {
    const error = { title: "This view could not be loaded", message: "the service may be starting again" };
    return html`<${PageHead} title=${view.title} /><${ErrorNote} error=${error} retry=${load} />`;
  }
  return html`<${Guarded} key=${view.name}><${drawn.Draw} route=${route} state=${state} me=${me} api=${api} /><//>`;
}

function Navigation({ route, state, me, open, onLogout }) {
  const counts = {
    overview: state?.problems.filter((each) => each.severity !== "info").length,
    alerts: state?.alerts.length,
  };
  return html`<nav class=${`navigation ${open ? "open" : ""}`} id="navigation" aria-label="Views">
    <ul>
      ${VIEWS.map(
        (each, place) => html`${each.group &&
          each.group !== VIEWS[place - 1].group &&
          html`<li class="group" key=${each.group}>${each.group}</li>`}
          <li key=${each.name}>
            <a href=${link(each.name)} aria-current=${each.name === route.view ? "page" : null}>
              <${Icon} name=${each.icon} /><span>${each.title}</span>
              ${counts[each.name] > 0 && html`<span class="count">${counts[each.name]}</span>`}
            </a>
          </li>`,
      )}
    </ul>
    <div class="navigation-foot">
      <p class="who">
        <strong>${me.anonymous ? "No login" : clean(me.user, 60)}</strong>
        <span>${me.role === "operator" ? "Operator" : "Viewer: may look, not change"}</span>
      </p>
      <div class="row">
        <${ThemeSwitch} />
        ${!me.anonymous &&
        html`<button type="button" class="bare" aria-label="Log out" title="Log out" onClick=${onLogout}><${Icon} name="out" /></button>`}
      </div>
    </div>
  </nav>`;
}

function useLatest(name) {
  const [value, setValue] = useState(latest[name]);
  useEffect(() => {
    setValue(latest[name]);
    return onEvent(name, setValue);
  }, [name]);
  return value;
}

/** Says aloud what a person who does not see the page has to know: once when it changes. */
function Announcer({ state, connection }) {
  const [said, setSaid] = useState("");
  const before = useRef({});
  const status = state ? verdictLook(state).word : undefined;
  const release = state?.release?.number;
  useEffect(() => {
    const was = before.current;
    before.current = { status, release, connection };
    if (was.status === undefined) return;
    if (status !== was.status) setSaid(`${status}: ${clean(state?.sentence, 200)}`);
    else if (release !== was.release && release) setSaid(`Release ${release} is published.`);
    else if (connection !== was.connection && connection !== "connecting") setSaid(CONNECTIONS[connection].hint);
  }, [status, release, connection]);
  return html`<div class="unseen" aria-live="polite">${said}</div>`;
}

function Frame({ me, onLogout }) {
  const route = useRoute();
  const state = useLatest("state");
  const connection = useLatest("connection");
  const problem = useLatest("problem");
  const [open, setOpen] = useState(false);
  const main = useRef(null);
  const visited = useRef(null);
  const place = `${route.view}/${route.path.join("/")}`;
  const title = VIEWS.find((each) => each.name === route.view)?.title ?? "No such page";
  useEffect(() => {
    setOpen(false);
    if (visited.current !== null) {
      scrollTo(0, 0);
      main.current.focus({ preventScroll: true });
    }
    visited.current = place;
  }, [place]);
  const away = connection === "reconnecting" || connection === "offline";
  const isHere = state !== null;
  useEffect(() => {
    if (!isHere) return;
    // The other views too, while nothing else is to be done: they open at once, and even while the
    // service starts again.
    const load = () => VIEWS.forEach((each) => each.draw().catch(() => undefined));
    (globalThis.requestIdleCallback ?? setTimeout)(load);
  }, [isHere]);
  const status = state ? verdictLook(state) : null;
  useEffect(() => {
    document.title = `${status && status.tone !== "ok" ? `${status.word} – ` : ""}${title} – indexrelay`;
  }, [title, status?.word]);
  useEffect(() => {
    if (!open) return undefined;
    const escape = (event) => event.key === "Escape" && setOpen(false);
    const elsewhere = (event) => event.target.closest(".navigation, .menu") === null && setOpen(false);
    addEventListener("keydown", escape);
    addEventListener("pointerdown", elsewhere);
    return () => {
      removeEventListener("keydown", escape);
      removeEventListener("pointerdown", elsewhere);
    };
  }, [open]);
  const skip = (event) => {
    event.preventDefault();
    main.current.focus();
  };
  return html`<header class="bar">
      <a class="skip" href=${`#/${place}`} onClick=${skip}>Skip to the content</a>
      <button
        type="button"
        class="bare menu"
        aria-label="Views"
        aria-expanded=${open ? "true" : "false"}
        aria-controls="navigation"
        onClick=${() => setOpen(!open)}
      ><${Icon} name=${open ? "close" : "menu"} /></button>
      <a class="home" href=${link("overview")}><${Brand} /></a>
      ${state?.namespace && html`<span class="namespace" title="The namespace of this installation">${clean(state.namespace, 40)}</span>`}
      <span class="space"></span>
      ${status &&
      html`<a class=${`verdict-chip ${away ? "quiet" : status.tone}`} href=${link("overview")} title=${clean(sentence(state.sentence), 300)}>
        <${Icon} name=${status.icon} />${status.word}
      </a>`}
      <${Connection} word=${connection} />
    </header>
    <${Navigation} route=${route} state=${state} me=${me} open=${open} onLogout=${onLogout} />
    <main class=${`content ${away ? "stale" : ""}`} tabindex="-1" ref=${main}>
      ${me.anonymous &&
      html`<p class="banner warn">
        <${Icon} name="warn" />
        <span>No credentials are configured: everybody on this machine is an operator here. <code>indexrelay admin password</code> makes one.</span>
      </p>`}
      ${away &&
      html`<p class=${`banner floating ${CONNECTIONS[connection].tone}`}>
        <${Icon} name=${CONNECTIONS[connection].icon} /><span>${CONNECTIONS[connection].hint}</span>
      </p>`}
      ${state === null && problem && !away && html`<${ErrorNote} error=${problem} />`}
      <${View} route=${route} state=${state} me=${me} />
    </main>
    <${Announcer} state=${state} connection=${connection} />`;
}

function App() {
  const [me, setMe] = useState(undefined);
  const person = useRef(null);
  person.current = me;
  const [why, setWhy] = useState(null);
  const [error, setError] = useState(null);
  const ask = async () => {
    try {
      const who = await api.get("me");
      setToken(who.csrf);
      setMe(who);
      setError(null);
      start();
      return who;
    } catch (raised) {
      if (raised.status === 401) {
        setMe(null);
        return null;
      }
      setError(raised);
      return undefined;
    }
  };
  useEffect(() => {
    ask();
    onRefused(async () => {
      const who = await api.get("me");
      const before = person.current;
      setToken(who.csrf);
      setMe(who);
      return who.user === before?.user && who.role === before?.role;
    });
    return onSignedOut(() => {
      stop();
      setMe((before) => {
        if (before) setWhy("The session has ended. Log in again to go on.");
        return null;
      });
    });
  }, []);
  useEffect(() => {
    if (!error) return undefined;
    const timer = setTimeout(ask, RETRY_MS);
    return () => clearTimeout(timer);
  }, [error]);
  const logout = async () => {
    try {
      await api.post("logout");
    } catch (raised) {
      if (raised.status !== 401) {
        toast(raised.message, "bad");
        return;
      }
    }
    stop();
    setToken(null);
    setWhy("You are logged out.");
    setMe(null);
  };
  let shown;
  if (me) shown = html`<${Frame} me=${me} onLogout=${logout} />`;
  else if (error) {
    const said = { title: "The service does not answer", message: `${error.message}. It is asked again by itself.` };
    shown = html`<main class="login"><div class="login-card"><${Brand} /><${ErrorNote} error=${said} /></div></main>`;
  } else if (me === null) shown = html`<${Login} onLogin=${ask} why=${why} />`;
  else shown = null;
  return html`${shown}<${Toasts} />`;
}

applyTheme(savedTheme());
// What is needed first is asked for at once, not one after the other.
ahead();
VIEWS.find((each) => each.name === parsedRoute().view)?.draw().catch(() => undefined);
render(html`<${App} />`, document.getElementById("page"));
