// The list of images with their states, the overall progress, and its buttons.

import { byId, count, duration, element, save, say, show, write } from "./dom.js";
import { zip } from "./zip.js";

const THUMBNAIL = 128;
const SAY_EVERY = 20_000;

/** Describe a job's state. */
export function status(job) {
  switch (job.state) {
    case "queued":
      return "queued";
    case "running":
      return "translating …";
    case "waiting":
      return `the server is busy; next try in ${job.wait} s`;
    case "done":
      return `done in ${duration(job.result.seconds)}`;
    case "failed":
      return job.problem.message;
    default:
      return "cancelled";
  }
}

/** The list; dispatches "show" (detail: the job to show in the large view). */
export class List extends EventTarget {
  #queue;
  #rows = new Map();
  #groups = new Map();
  #shown = null;
  #said = 0;
  #ended = "";

  constructor(queue) {
    super();
    this.#queue = queue;
    queue.addEventListener("change", ({ detail: job }) => {
      if (this.#rows.has(job)) this.#draw(job);
      this.#progress();
    });
    queue.addEventListener("idle", () => this.#end());
    byId("cancel").addEventListener("click", () => queue.cancel());
    byId("retry").addEventListener("click", () => queue.retry(queue.jobs));
    byId("download-all").addEventListener("click", () => this.#downloadAll());
  }

  /** Add rows for new jobs. */
  add(jobs) {
    for (const job of jobs) {
      this.#group(job).append(this.#row(job));
      this.#draw(job);
    }
    this.#said = Date.now();
    byId("images").hidden = false;
    this.#progress();
  }

  clear() {
    this.#rows.clear();
    this.#groups.clear();
    this.#shown = null;
    this.#ended = "";
    byId("groups").replaceChildren();
    byId("images").hidden = true;
    byId("images-note").hidden = true;
  }

  /** Mark the job that is in the large view. */
  mark(job) {
    this.#rows.get(this.#shown)?.open.removeAttribute("aria-current");
    this.#shown = job;
    this.#rows.get(job)?.open.setAttribute("aria-current", "true");
  }

  #group({ plan }) {
    let list = this.#groups.get(plan.words);
    if (!list) {
      list = element("ul", { class: "jobs" });
      const group = element("section", { class: "group", "aria-label": plan.words });
      group.append(element("h3", {}, plan.words), list);
      byId("groups").prepend(group);
      this.#groups.set(plan.words, list);
    }
    return list;
  }

  #row(job) {
    const picture = element("span", { class: "thumb", "aria-hidden": "true" });
    const state = element("span", { class: "state" });
    const name = element("span", { class: "name" }, job.image.path);
    const open = element("button", { type: "button", class: "open" }, picture, name, " ", state);
    const take = element("button", { type: "button", class: "small" }, "Download");
    take.append(element("span", { class: "unseen" }, ` ${job.name}`));
    const again = element("button", { type: "button", class: "small" }, "Retry");
    again.append(element("span", { class: "unseen" }, ` ${job.name}`));
    open.addEventListener("click", () => this.dispatchEvent(new CustomEvent("show", { detail: job })));
    take.addEventListener("click", () => save(job.result.output, job.result.output.name));
    again.addEventListener("click", () => this.#queue.retry([job]));
    const item = element("li", { class: "job" }, open, again, take);
    this.#rows.set(job, { item, open, picture, state, take, again });
    return item;
  }

  #draw(job) {
    const { item, open, picture, state, take, again } = this.#rows.get(job);
    item.dataset.state = job.state;
    write(state, status(job));
    show(take, job.state === "done", open);
    show(again, job.canRetry, open);
    if (job.state === "done" && !picture.firstChild) thumbnail(job.result.outputView, picture);
  }

  #progress() {
    const { all, open, done, failed, cancelled } = this.#queue.counts;
    const words = [`${done} of ${all} done`];
    if (failed > 0) words.push(`${failed} failed`);
    if (cancelled > 0) words.push(`${cancelled} cancelled`);
    byId("progress").max = Math.max(1, all);
    byId("progress").value = all - open;
    write(byId("progress-text"), words.join(", "));
    const again = this.#queue.jobs.filter((job) => job.canRetry).length;
    write(byId("retry"), `Retry ${again}`);
    const title = byId("images-title");
    show(byId("retry"), again > 0, title);
    show(byId("cancel"), open > 0, title);
    show(byId("download-all"), done > 1, title);
    if (open > 0 && Date.now() - this.#said > SAY_EVERY) {
      this.#said = Date.now();
      say(words.join(", "));
    }
  }

  #end() {
    this.#progress();
    const words = byId("progress-text").textContent;
    if (this.#rows.size > 0 && words !== this.#ended) say(`Ready: ${words}.`);
    this.#ended = words;
  }

  async #downloadAll() {
    const button = byId("download-all");
    const note = byId("images-note");
    const done = this.#queue.jobs.filter((job) => job.state === "done");
    const folders = new Set(done.map(folder));
    button.disabled = true;
    note.hidden = true;
    try {
      const files = done.map((job) => ({ path: outputPath(job, folders.size > 1), blob: job.result.output }));
      save(await zip(files), folders.size > 1 ? "translated.zip" : `${done[0].plan.settings.task}.zip`);
      say(`A ZIP file of ${count(files.length, "image")} is ready.`);
    } catch (error) {
      note.textContent = error.message;
      note.hidden = false;
    } finally {
      button.disabled = false;
    }
  }
}

function folder({ plan: { settings } }) {
  return `${settings.task}-${settings.direction}`;
}

// The input's path, below a folder for each task if there are several.
function outputPath(job, several) {
  const parents = job.image.path.split("/").slice(0, -1);
  return [...(several ? [folder(job)] : []), ...parents, job.result.output.name].join("/");
}

// Scaled down: hundreds of full pictures would take gigabytes.
async function thumbnail(blob, into) {
  let whole;
  try {
    whole = await createImageBitmap(blob);
  } catch {
    return;
  }
  const scale = Math.min(1, THUMBNAIL / Math.min(whole.width, whole.height));
  const canvas = element("canvas", {
    width: Math.max(1, Math.round(whole.width * scale)),
    height: Math.max(1, Math.round(whole.height * scale)),
  });
  const brush = canvas.getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.drawImage(whole, 0, 0, canvas.width, canvas.height);
  whole.close();
  into.replaceChildren(canvas);
}
