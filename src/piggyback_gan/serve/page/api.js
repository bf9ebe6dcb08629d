// Requests to the server: tasks, samples, translations. Its problem documents (RFC 9457) become errors.

const TOKEN_KEY = "pbgan token";
let tokensGiven = 0;

/** A failed request; the message is a sentence for a person.
 *
 * `status` is the HTTP status, 0 without a response; `type` the last part of the problem's type; `retryAfter` the seconds
 * after which to retry, or null; `isFinal` whether a retry can't help.
 */
export class Problem extends Error {
  isFinal = false;

  constructor(message, { status = 0, type = "", retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.type = type;
    this.retryAfter = retryAfter;
  }

  get isUnreachable() {
    return this.type === "unreachable";
  }

  get isUnauthorized() {
    return this.status === 401;
  }
}

export function hasToken() {
  return sessionStorage.getItem(TOKEN_KEY) !== null;
}

export function keepToken(token) {
  tokensGiven += 1;
  sessionStorage.setItem(TOKEN_KEY, token);
}

export function forgetToken() {
  sessionStorage.removeItem(TOKEN_KEY);
}

/** Fetch the tasks: {etag, tasks, limits}, or null if they have not changed since this ETag. */
export async function fetchTasks(etag) {
  const response = await request("v1/tasks", {
    headers: etag ? { "If-None-Match": etag } : {},
    // The page keeps the list itself, so it wants to see a 304.
    cache: "no-store",
    signal: AbortSignal.timeout(30_000),
  });
  if (response.status === 304) return null;
  try {
    const { tasks, limits } = await response.json();
    return { etag: response.headers.get("ETag"), tasks: [...tasks], limits };
  } catch {
    throw new Problem("The response is not a list of tasks. Is this the address of pbgan serve?", { status: response.status });
  }
}

/** Fetch a task's sample picture as a blob. */
export async function fetchSample(task) {
  const response = await request(`v1/tasks/${encodeURIComponent(task)}/sample`);
  return response.blob();
}

/** Translate an image.
 *
 * Returns {output, inputView, outputView}: the exact output as a named file, and two PNGs for display.
 */
export async function translate({ task, direction, format, tile }, file, name, signal) {
  const query = new URLSearchParams({ direction, format, views: "true" });
  if (tile !== "") query.set("tile", tile);
  const body = new FormData();
  body.append("image", file, name);
  const url = `v1/tasks/${encodeURIComponent(task)}/translate?${query}`;
  const response = await request(url, { method: "POST", body, signal });
  const kind = response.headers.get("Content-Type") ?? "";
  if (!kind.startsWith("multipart/form-data")) {
    throw new Problem(`The response is not a translation (${kind || "no type"}).`, { status: response.status });
  }
  let form;
  try {
    form = await response.formData();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem("The connection ended before the output arrived.", { type: "unreachable" });
  }
  const [output, inputView, outputView] = ["output", "input_view", "output_view"].map((part) => form.get(part));
  if (![output, inputView, outputView].every((part) => part instanceof File)) {
    throw new Problem("Parts of the output are missing.", { status: response.status });
  }
  return { output, inputView, outputView };
}

async function request(url, init = {}) {
  const headers = new Headers(init.headers);
  const token = sessionStorage.getItem(TOKEN_KEY);
  const given = tokensGiven;
  if (token !== null) headers.set("Authorization", `Bearer ${token}`);
  let response;
  try {
    response = await fetch(url, { ...init, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server can't be reached. Is it still running?", { type: "unreachable" });
  }
  if (response.ok || response.status === 304) return response;
  const found = await problem(response);
  // A token may have been given since the request was sent: this 401 says nothing of that one, even if it is the same again.
  if (found.isUnauthorized && hasToken() && tokensGiven !== given) return request(url, init);
  throw found;
}

async function problem(response) {
  const facts = { status: response.status, retryAfter: seconds(response.headers.get("Retry-After")) };
  const fallback = `The server answered ${response.status} ${response.statusText}`.trim() + ".";
  try {
    const { type, title, detail } = await response.json();
    return new Problem(sentence(detail || title || fallback), { ...facts, type: String(type ?? "").split(":").pop() });
  } catch {
    return new Problem(fallback, facts);
  }
}

// Details begin in lower case, as errors of the command line do. Only plain words are capitalised, not file names.
function sentence(text) {
  const begun = text.replace(/^[a-z]+(?= )/, (word) => word[0].toUpperCase() + word.slice(1));
  return /[.?!]$/.test(begun) ? begun : `${begun}.`;
}

function seconds(retryAfter) {
  if (retryAfter === null) return null;
  const wait = /^\d+$/.test(retryAfter) ? Number(retryAfter) : (Date.parse(retryAfter) - Date.now()) / 1000;
  return Number.isFinite(wait) ? Math.max(0, wait) : null;
}
