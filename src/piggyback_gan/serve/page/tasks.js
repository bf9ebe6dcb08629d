// The bank's tasks, polled while the page is visible: which were added, which removed.

import { fetchTasks } from "./api.js";

const INTERVAL = 5000;

/** The tasks; dispatches "change" (detail: {added, removed}, task names; added is null at first), "problem" and "reached". */
export class Tasks extends EventTarget {
  tasks = null;
  limits = {};
  #etag = null;
  #timer = 0;
  #asking = null;
  #lacksToken = false;

  constructor() {
    super();
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.ask();
      else clearTimeout(this.#timer);
    });
  }

  find(name) {
    return this.tasks?.find((task) => task.name === name) ?? null;
  }

  /** Fetch now; true if the response was valid. */
  ask() {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
      clearTimeout(this.#timer);
      if (document.visibilityState !== "visible" || this.#lacksToken) return;
      this.#timer = setTimeout(() => this.ask(), INTERVAL);
    });
    return this.#asking;
  }

  /** Wait for the current request, if any. */
  async settled() {
    await this.#asking;
  }

  async #ask() {
    let news;
    try {
      news = await fetchTasks(this.#etag);
    } catch (problem) {
      this.#lacksToken = problem.isUnauthorized;
      this.#tell("problem", problem);
      return false;
    }
    this.#lacksToken = false;
    if (news !== null) this.#take(news);
    this.#tell("reached", null);
    return true;
  }

  #take({ etag, tasks, limits }) {
    const before = this.tasks;
    this.#etag = etag;
    this.tasks = tasks;
    this.limits = limits ?? {};
    const names = (list) => new Set(list.map((task) => task.name));
    const [old, now] = [names(before ?? []), names(tasks)];
    const added = before && [...now].filter((name) => !old.has(name));
    this.#tell("change", { added, removed: [...old].filter((name) => !now.has(name)) });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
