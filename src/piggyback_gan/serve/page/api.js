// What the server is asked: tasks, samples, translations; and its problems (RFC 9457) as errors.

const TOKEN_KEY = "pbgan token";

/** Why a request failed, in a sentence for a person.
 *
 * `status` is that of HTTP, 0 where no answer came; `type` the last word of the problem's type; `retryAfter` the seconds
 * after which the server wants to be asked again, or null; `isFinal` where the same again can't help.
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
  sessionStorage.setItem(TOKEN_KEY, token);
}

export function forgetToken() {
  sessionStorage.removeItem(TOKEN_KEY);
}

/** The list of tasks: {etag, tasks, limits}, or null if it is still the one with this ETag. */
export async function fetchTasks(etag) {
  const response = await request("v1/tasks", {
    headers: etag ? { "If-None-Match": etag } : {},
    // The page keeps what it has; so a 304 comes as it is.
    cache: "no-store",
    signal: AbortSignal.timeout(30_000),
  });
  if (response.status === 304) return null;
  try {
    const { tasks, limits } = await response.json();
    return { etag: response.headers.get("ETag"), tasks: [...tasks], limits };
  } catch {
    throw new Problem("What came is no list of tasks. Is this the address of pbgan serve?", { status: response.status });
  }
}

/** A task's sample picture, a blob. */
export async function fetchSample(task) {
  const response = await request(`v1/tasks/${encodeURIComponent(task)}/sample`);
  return response.blob();
}

/** Translate an image.
 *
 * Gives {output, inputView, outputView}: the exact output, a file with its name, and two PNGs to look at.
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
    throw new Problem(`What came is no translation (${kind || "no type"}).`, { status: response.status });
  }
  let form;
  try {
    form = await response.formData();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem("The connection ended before the output was there.", { type: "unreachable" });
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
  if (token !== null) headers.set("Authorization", `Bearer ${token}`);
  let response;
  try {
    response = await fetch(url, { ...init, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server can't be reached; is it still running?", { type: "unreachable" });
  }
  if (response.ok || response.status === 304) return response;
  throw await problem(response);
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

// Details begin in lower case, as errors of the command line do. What may be a file's name stays as it is.
function sentence(text) {
  const begun = text.replace(/^[a-z]+(?= )/, (word) => word[0].toUpperCase() + word.slice(1));
  return /[.?!]$/.test(begun) ? begun : `${begun}.`;
}

function seconds(retryAfter) {
  if (retryAfter === null) return null;
  const wait = /^\d+$/.test(retryAfter) ? Number(retryAfter) : (Date.parse(retryAfter) - Date.now()) / 1000;
  return Number.isFinite(wait) ? Math.max(0, wait) : null;
}
