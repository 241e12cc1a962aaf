// Asks the admin API: one place for the CSRF token, problem details and what an error says.

import { setServerTime } from "./formats.js";

const ROOT = new URL("api/admin/", document.baseURI);
const TIMEOUT_MS = 30_000;

let csrf = null;
const listeners = new Set();

/** Raised when a request did not succeed; `status` 0: the service did not answer. */
export class ApiError extends Error {
  constructor(status, problem = {}, retryAfter = null) {
    super(problem.detail || problem.title || "the request failed");
    this.name = "ApiError";
    this.status = status;
    // A problem's own title is the status in words: the sentence beside it says more.
    this.title = status === 0 ? problem.title : "";
    this.detail = problem.detail || "";
    this.problem = problem;
    this.retryAfter = retryAfter;
    // FastAPI's and our own name for the fields that are wrong.
    this.fields = Array.isArray(problem.errors) ? problem.errors : [];
  }
}

/** Be told when the session has ended; returns how to stop that. */
export function onSignedOut(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

let whoNow = null;

/** Be asked who it is when something is refused: another tab may have logged in anew. True: the same person. */
export function onRefused(ask) {
  whoNow = ask;
}

/** The token that unsafe requests of this session carry. */
export function setToken(token) {
  csrf = token ?? null;
}

async function request(method, path, { body, accept, signal, headers = {} } = {}) {
  const sent = { Accept: accept ?? "application/json", ...headers };
  if (method !== "GET" && csrf !== null) sent["X-CSRF-Token"] = csrf;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  try {
    response = await fetch(new URL(path, ROOT), {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    const detail =
      error.name === "TimeoutError"
        ? "the service did not answer within 30 seconds"
        : "the service cannot be reached; it may be starting again";
    throw new ApiError(0, { title: "No answer", detail });
  }
  setServerTime(response.headers.get("Date"));
  if (response.ok || response.status === 304) return response;
  const error = await failure(response, path);
  if (error.status !== 403 || method === "GET" || whoNow === null) throw error;
  const renew = whoNow;
  whoNow = null; // once: what is refused again is refused
  try {
    if (!(await renew())) {
      const detail = "somebody else has logged in here, in another tab; nothing was done";
      throw new ApiError(403, { title: "Another login", detail });
    }
    if (!error.detail.includes("X-CSRF-Token")) throw error;
    return await request(method, path, { body, accept, signal, headers });
  } finally {
    whoNow = renew;
  }
}

async function failure(response, path) {
  let problem = {};
  try {
    const said = await response.json();
    if (said !== null && typeof said === "object") problem = said;
  } catch {
    // Something between us and the service answered, with a page of its own.
  }
  if (typeof problem.detail !== "string" || problem.detail === "") {
    problem = { ...problem, detail: `the service answered ${response.status}` };
  }
  const wait = Number(response.headers.get("Retry-After"));
  const error = new ApiError(response.status, problem, Number.isFinite(wait) && wait > 0 ? wait : null);
  if (response.status === 401 && path !== "login") for (const listener of listeners) listener();
  return error;
}

async function parsed(response) {
  if (response.status === 204) return null;
  const text = await response.text();
  return text === "" ? null : JSON.parse(text);
}

/** Ask and get the answer's JSON; null where there is none. */
async function get(path, { signal } = {}) {
  return parsed(await request("GET", path, { signal }));
}

/** Ask for something to be done. */
async function post(path, body, { signal } = {}) {
  return parsed(await request("POST", path, { body, signal }));
}

/** An answer that is no JSON: its bytes and its headers. */
async function binary(path, { signal } = {}) {
  const response = await request("GET", path, { accept: "application/octet-stream", signal });
  return { buffer: await response.arrayBuffer(), headers: response.headers };
}

/** The answer, or null when it still is the one with this ETag. */
async function changed(path, tag) {
  const response = await request("GET", path, { headers: tag ? { "If-None-Match": tag } : {} });
  return response.status === 304 ? null : parsed(response);
}

export const api = { get, post, binary, changed, root: ROOT };
