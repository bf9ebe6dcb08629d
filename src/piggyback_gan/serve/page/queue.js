// The queue of translations: a few at once, retried if the server is busy, paused if it can't be reached.

import { Problem, translate } from "./api.js";
import { bytes } from "./dom.js";

const AT_ONCE = 4;
const TRIES = 6;
const TRIES_OF_TIMEOUTS = 2; // An image that takes too long must not occupy the server again and again.
const LONGEST_WAIT = 60;
const OPEN = ["queued", "running", "waiting"];

/** An image with settings.
 *
 * `state` is queued, running, waiting (the server is busy), done, failed or cancelled; `result` the translation, with the
 * `seconds` it took; `problem` the reason of a failure.
 */
class Job {
  state = "queued";
  result = null;
  problem = null;
  wait = 0;
  controller = null;

  constructor(image, plan) {
    this.image = image;
    this.plan = plan;
  }

  get name() {
    return this.image.path.split("/").pop();
  }

  get isOpen() {
    return OPEN.includes(this.state);
  }

  /** Whether a retry may succeed. */
  get canRetry() {
    if (this.state !== "failed") return this.state === "cancelled";
    const { status, isFinal } = this.problem;
    return !isFinal && (status < 400 || status >= 500 || [408, 429].includes(status));
  }
}

/** The queue; dispatches "change" (detail: the job), "idle" (all done) and "stopped" (detail: the problem; see resume). */
export class Queue extends EventTarget {
  jobs = [];
  #running = 0;
  #held = false;

  /** Queue images; plan is {settings, words, labels}. Images that are too large for the server fail at once.
   *
   * An image, {file, path, tried}, keeps in `tried` the settings it was queued with.
   */
  add(images, plan, { max_bytes: limit = Infinity }) {
    const jobs = images.map((image) => new Job(image, plan));
    for (const image of images) image.tried.add(JSON.stringify(plan.settings));
    for (const job of jobs) {
      if (job.image.file.size > limit) {
        job.problem = new Problem(tooLarge(job.image.file.size, limit), { type: "too-large" });
        job.problem.isFinal = true;
        job.state = "failed";
      }
    }
    this.jobs.push(...jobs);
    this.#pump();
    return jobs;
  }

  retry(jobs) {
    for (const job of jobs) {
      if (!job.canRetry) continue;
      job.problem = null;
      this.#set(job, "queued");
    }
    this.#pump();
  }

  /** Cancel all open jobs; done ones stay. */
  cancel() {
    for (const job of this.jobs.filter((each) => each.isOpen)) {
      this.#set(job, "cancelled");
      job.controller?.abort();
    }
    this.#settle();
  }

  clear() {
    this.cancel();
    this.jobs = [];
  }

  /** Go on after "stopped". */
  resume() {
    this.#held = false;
    this.#pump();
  }

  get isHeld() {
    return this.#held;
  }

  /** How many jobs are in each state, {all, open, done, failed, ...}. */
  get counts() {
    const counts = { all: this.jobs.length, open: 0, done: 0, failed: 0, cancelled: 0 };
    for (const { state, isOpen } of this.jobs) counts[isOpen ? "open" : state] += 1;
    return counts;
  }

  #set(job, state) {
    job.state = state;
    this.dispatchEvent(new CustomEvent("change", { detail: job }));
  }

  #pump() {
    for (const job of this.jobs) {
      if (this.#held || this.#running >= AT_ONCE) return;
      if (job.state === "queued") this.#run(job);
    }
    this.#settle();
  }

  #settle() {
    if (this.#running === 0 && !this.jobs.some((job) => job.isOpen)) this.dispatchEvent(new CustomEvent("idle"));
  }

  async #run(job) {
    this.#running += 1;
    job.controller = new AbortController();
    const { signal } = job.controller;
    try {
      await this.#tryAgain(job, signal);
    } catch (error) {
      if (!signal.aborted) await this.#fail(job, error);
    } finally {
      this.#running -= 1;
      this.#pump();
    }
  }

  async #tryAgain(job, signal) {
    for (let tries = 1; ; tries += 1) {
      this.#set(job, "running");
      const begun = performance.now();
      try {
        const result = await translate(job.plan.settings, job.image.file, job.name, signal);
        job.result = { ...result, seconds: (performance.now() - begun) / 1000 };
        if (!signal.aborted) this.#set(job, "done");
        return;
      } catch (problem) {
        const most = problem.type === "timeout" ? TRIES_OF_TIMEOUTS : TRIES;
        if (![429, 503].includes(problem.status) || tries >= most) throw problem;
        job.wait = Math.min(Math.ceil(problem.retryAfter ?? 2 ** tries), LONGEST_WAIT);
        this.#set(job, "waiting");
        await sleep(job.wait, signal);
      }
    }
  }

  async #fail(job, error) {
    job.problem = error;
    if (error.isUnauthorized) {
      this.#stop(error);
      this.#set(job, "queued");
      return;
    }
    if (error.isUnreachable) {
      if (await isReadable(job.image.file)) {
        this.#stop(error);
      } else {
        job.problem = new Problem("The file can no longer be read: it may have been moved or changed. Choose it again.");
        job.problem.isFinal = true;
      }
    }
    if (job.state !== "cancelled") this.#set(job, "failed");
  }

  #stop(problem) {
    this.#held = true;
    this.dispatchEvent(new CustomEvent("stopped", { detail: problem }));
  }
}

function tooLarge(size, limit) {
  let [has, most] = [bytes(size), bytes(limit)];
  if (has === most) [has, most] = [`${size} bytes`, `${limit} bytes`];
  return `The file has ${has}, and this server accepts images of up to ${most}.`;
}

async function isReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
