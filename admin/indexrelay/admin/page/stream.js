// What the service pushes: one connection for the whole page, which outlives restarts of the service.
//
// A lost connection is opened again with growing pauses. Whoever joins late, or after a pause,
// first gets the whole state: so nothing depends on each event having arrived.

import { api } from "./api.js";

const EVENTS = ["state", "patch", "rebuild", "release", "map"];
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
/** That a connection ended is no news if the next one is there so soon: each ends after a while. */
const NEWS_MS = 1500;
/** After so long without the service it is called offline, not reconnecting. */
const OFFLINE_MS = 15_000;
/** So often the state is asked for by itself: an open connection may be dead without a sign. */
const POLL_MS = 30_000;

const listeners = new Map();
let source = null;
let pause = FIRST_PAUSE_MS;
let timer = null;
let poll = null;
let lostAt = null;
let running = false;
let watch = null;
let lastId = 0;
let asked = null;
let asking = null;

/** The newest of everything; `problem`: why there is no state yet. */
export const latest = { state: null, connection: "connecting", problem: null };

/** Be told of an event by name; "connection" is the page's own. Returns how to stop that. */
export function onEvent(name, listener) {
  if (!listeners.has(name)) listeners.set(name, new Set());
  listeners.get(name).add(listener);
  return () => listeners.get(name).delete(listener);
}

function emit(name, data) {
  for (const listener of listeners.get(name) ?? []) listener(data);
}

function setConnection(word) {
  if (latest.connection === word) return;
  latest.connection = word;
  emit("connection", word);
}

function setProblem(error) {
  if (latest.problem === error) return;
  latest.problem = error;
  emit("problem", error);
}

/** Take a whole state; what did not change stays the same object, so that nothing draws it again. */
function takeState(fresh) {
  if (fresh === null || typeof fresh !== "object") return;
  setProblem(null);
  latest.state = kept(latest.state, fresh);
  emit("state", latest.state);
}

/** Take what changed since the state with the number `base`; without that one, ask for the whole. */
function takePatch(patch) {
  const state = latest.state;
  if (state === null || patch.base !== state.number) {
    refresh().catch(() => undefined);
    return;
  }
  const seen = patch.last_seen ?? {};
  const items = replaced(state.readers.items, "id", patch.readers, patch.readers_gone).map((each) =>
    Object.hasOwn(seen, each.id) ? { ...each, last_seen_at: seen[each.id] } : each,
  );
  takeState({
    ...state,
    ...patch.set,
    number: patch.number,
    components: replaced(state.components, "name", patch.components, patch.components_gone),
    readers: { ...state.readers, ...patch.readers_counts, items },
  });
}

function replaced(old, key, changed = [], gone = []) {
  if (changed.length === 0 && gone.length === 0) return old;
  const fresh = new Map(old.map((each) => [each[key], each]));
  for (const each of changed) fresh.set(each[key], each);
  for (const each of gone) fresh.delete(each);
  return [...fresh.values()];
}

/** `fresh`, made of the parts of `old` wherever they are equal. */
export function kept(old, fresh) {
  if (Object.is(old, fresh)) return old;
  if (old === null || fresh === null || typeof old !== "object" || typeof fresh !== "object") {
    return fresh;
  }
  if (Array.isArray(old) !== Array.isArray(fresh)) return fresh;
  if (Array.isArray(fresh)) return keptList(old, fresh);
  const keys = Object.keys(fresh);
  let same = keys.length === Object.keys(old).length;
  const pairs = keys.map((key) => {
    const value = kept(Object.hasOwn(old, key) ? old[key] : undefined, fresh[key]);
    same = same && Object.hasOwn(old, key) && Object.is(value, old[key]);
    return [key, value];
  });
  return same ? old : Object.fromEntries(pairs);
}

function keptList(old, fresh) {
  const keyOf = (each) => each?.id ?? each?.name ?? each?.code;
  const byKey = new Map();
  for (const each of old) {
    const key = keyOf(each);
    if (key !== undefined && !byKey.has(key)) byKey.set(key, each);
  }
  let same = old.length === fresh.length;
  const list = fresh.map((each, place) => {
    const key = keyOf(each);
    const value = kept(key === undefined ? old[place] : byKey.get(key), each);
    same = same && Object.is(value, old[place]);
    return value;
  });
  return same ? old : list;
}

function take(name, text) {
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    return;
  }
  if (name === "state") takeState(data);
  else if (name === "patch") takePatch(data);
  else emit(name, data);
}

/** Ask for the whole state, once at a time; nothing is sent when it is the one that is here. */
function refresh() {
  asking ??= ask().finally(() => {
    asking = null;
  });
  return asking;
}

async function ask() {
  const early = asked;
  asked = null;
  const number = latest.state?.number;
  // The state's number is its ETag.
  const fresh = (await early?.catch(() => null)) ?? (await api.changed("state", number && `W/"${number}"`));
  // The stream may have brought a newer one meanwhile; what it sends whole is always taken.
  if (running && (fresh?.number ?? 0) >= (latest.state?.number ?? 0)) takeState(fresh);
}

/** Ask for the state already, while it is not yet known who asks: `start` takes the answer. */
export function ahead() {
  asked = api.changed("state", null);
  asked.catch(() => undefined);
}

/** Connect, until `stop`. Opens again at once when the network or the tab comes back. */
export function start() {
  if (running) return;
  running = true;
  first();
  poll = setInterval(() => {
    if (!document.hidden) refresh().catch(notice);
  }, POLL_MS);
  addEventListener("online", hurry);
  document.addEventListener("visibilitychange", hurry);
}

/** An open stream may be dead without a sign: that the service does not answer is one. */
function notice(error) {
  if (!running || error.status === 401 || lostAt !== null) return;
  source?.close();
  lost();
}

/** The state, then the stream, which brings the state where there is none yet. */
async function first() {
  await refresh().catch(setProblem);
  if (running) open();
}

function open() {
  source?.close();
  const address = new URL("stream", api.root);
  const after = Math.max(lastId, latest.state?.number ?? 0);
  // What the browser says in Last-Event-ID, which a script cannot set.
  if (after > 0) address.searchParams.set("after", after);
  source = new EventSource(address);
  source.onopen = () => {
    pause = FIRST_PAUSE_MS;
    lostAt = null;
    clearInterval(watch);
    setConnection("live");
  };
  source.onerror = () => {
    // The browser opens it again by itself unless an answer told it not to; we do so anyway, since
    // its pauses are not ours and some answers (502 of a proxy) end it for good.
    source.close();
    lost();
  };
  for (const name of EVENTS) {
    source.addEventListener(name, (event) => {
      lastId = Number(event.lastEventId) || lastId;
      take(name, event.data);
    });
  }
}

function lost() {
  if (lostAt === null) {
    lostAt = Date.now();
    watch = setInterval(say, NEWS_MS);
  }
  clearTimeout(timer);
  timer = setTimeout(again, pause);
  pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
}

function say() {
  setConnection(Date.now() - lostAt > OFFLINE_MS ? "offline" : "reconnecting");
}

async function again() {
  if (!running) return;
  try {
    await refresh();
  } catch (error) {
    if (running && error.status !== 401) lost();
    return;
  }
  if (running) open();
}

function hurry() {
  if (!running || document.hidden || latest.connection === "live") return;
  pause = FIRST_PAUSE_MS;
  clearTimeout(timer);
  again();
}

/** Close the connection, and forget what came by it. */
export function stop() {
  running = false;
  source?.close();
  source = null;
  clearTimeout(timer);
  clearInterval(watch);
  clearInterval(poll);
  removeEventListener("online", hurry);
  document.removeEventListener("visibilitychange", hurry);
  latest.state = latest.problem = null;
  asked = asking = lostAt = null;
  lastId = 0;
  pause = FIRST_PAUSE_MS;
  setConnection("connecting");
}
