// Lists that come in pages, the newest first: the first page on open and after each event that may have
// changed it, older ones when they are asked for. What is shown already stays where it is.

import { api, Button, html, onEvent, useCallback, useEffect, useRef, useState } from "../parts.js";

const PAGE = 50;

/**
 * @param {string} path of the list; `field` of the answer with the rows; `key` of a row.
 * @param {string[]} events those after which it is asked for again.
 * @returns {{data, error, loading, reload, answer, more, older, busy, forget}} the first four as
 *     `useLoad` does; `answer` is the newest one with a first page, for what it says beside the rows;
 *     `forget(value)` takes the row with this key out, which is there no more.
 */
export function usePages({ path, field, key, events = [] }) {
  const [list, setList] = useState(null);
  const [error, setError] = useState(null);
  const [loading, setLoading] = useState(true);
  const [busy, setBusy] = useState(false);
  const asked = useRef(0);
  const page = (before) =>
    api.get(`${path}?${new URLSearchParams({ limit: PAGE, ...(before === undefined ? {} : { before }) })}`);

  const reload = useCallback(async () => {
    const mine = ++asked.current;
    setLoading(true);
    try {
      const found = await page();
      if (mine !== asked.current) return;
      setList((before) => joined(found, before, field, key));
      setError(null);
    } catch (raised) {
      if (mine === asked.current) setError(raised);
    } finally {
      if (mine === asked.current) setLoading(false);
    }
  }, [path]);

  useEffect(() => {
    setList(null);
    reload();
    const stops = events.map((name) => onEvent(name, reload));
    return () => {
      asked.current += 1;
      stops.forEach((stop) => stop());
    };
  }, [path]);

  async function older() {
    const mine = asked.current;
    setBusy(true);
    try {
      const found = await page(list.next);
      // A new first page may not reach these any more: then they are asked for once more.
      if (mine !== asked.current) return;
      setList((before) => ({ answer: before.answer, rows: [...before.rows, ...found[field]], next: found.next ?? null }));
      setError(null);
    } catch (raised) {
      setError(raised);
    } finally {
      setBusy(false);
    }
  }

  const forget = useCallback((value) => setList((before) => before && { ...before, rows: before.rows.filter((row) => row[key] !== value) }), []);
  return { forget, data: list?.rows ?? null, answer: list?.answer ?? null, error, loading, reload, more: (list?.next ?? null) !== null, older, busy };
}

/** A new first page before the older ones that were opened; they go where it does not reach them, or is all. */
function joined(found, before, field, key) {
  const first = found[field];
  const at = before?.rows.findIndex((row) => row[key] === first.at(-1)?.[key]) ?? -1;
  if (at < 0 || (found.next ?? null) === null) return { answer: found, rows: first, next: found.next ?? null };
  const older = before.rows.slice(at + 1);
  return { answer: found, rows: [...first, ...older], next: older.length ? before.next : (found.next ?? null) };
}

/** The button at the end of such a list. */
export function More({ pages, label }) {
  return pages.more && html`<p class="table-more"><${Button} busy=${pages.busy} onClick=${pages.older}>${label}<//></p>`;
}
