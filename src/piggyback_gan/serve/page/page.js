// Connects the page's parts: user actions and the server's responses.

import { forgetToken, hasToken, keepToken } from "./api.js";
import { Cards } from "./cards.js";
import { Choice } from "./choice.js";
import { byId, bytes, count, say, show, write } from "./dom.js";
import { watchFiles } from "./files.js";
import { List } from "./list.js";
import { Queue } from "./queue.js";
import { Tasks } from "./tasks.js";
import { Viewer } from "./viewer.js";

const UNFIT = ["not-an-image", "too-large", "too-many-pixels"];

const tasks = new Tasks();
const cards = new Cards();
const choice = new Choice();
const queue = new Queue();
const list = new List(queue);
const viewer = new Viewer();
let images = []; // All added images, {file, path, tried}; `unfit` ones can't be translated by any task.

// Images and settings.

function take(brought, leftOut) {
  const left = leftOut > 0 ? `${count(leftOut, "file")} left out: not ${leftOut === 1 ? "an image" : "images"}.` : "";
  write(byId("drop-note"), brought.length === 0 ? `No images found. ${left}` : left);
  if (brought.length === 0) return;
  const added = brought.map((image) => ({ ...image, tried: new Set() }));
  images.push(...added);
  if (choice.settings === null) say(`${count(added.length, "image")} added. Choose a task to translate.`);
  else translate(added);
  offer();
}

function translate(wanted) {
  const plan = { settings: choice.settings, words: choice.words, labels: choice.direction.output.labels };
  const jobs = queue.add(wanted, plan, tasks.limits);
  list.add(jobs);
  view(jobs[0]);
  const open = jobs.filter((job) => job.isOpen).length;
  if (open > 0) say(`Translating ${count(open, "image")} with ${plan.words}.`);
  else say(jobs[0].problem.message);
  jobs.forEach(noteUnfit);
}

function view(job) {
  viewer.show(job);
  list.mark(job);
  const at = queue.jobs.indexOf(job);
  byId("steps").hidden = queue.jobs.length < 2;
  byId("previous").disabled = at <= 0;
  byId("next").disabled = at === queue.jobs.length - 1;
}

function step(by) {
  const job = queue.jobs[queue.jobs.indexOf(viewer.job) + by];
  if (job) view(job);
}

function noteUnfit(job) {
  if (job.state === "failed" && UNFIT.includes(job.problem.type)) job.image.unfit = true;
}

// Images not yet translated with the current settings.
function untranslated() {
  const settings = JSON.stringify(choice.settings);
  return images.filter((image) => !image.unfit && !image.tried.has(settings));
}

// Images that wait for a task to be chosen.
function waiting() {
  return images.filter((image) => image.tried.size === 0);
}

function offer() {
  const chosen = choice.settings !== null;
  const left = chosen ? untranslated() : waiting();
  const here = `${count(left.length, "image")} ${left.length === 1 ? "is" : "are"} here.`;
  if (left.length > 0) {
    write(byId("offer-text"), chosen ? here : `${here} Choose a task, and translation begins.`);
    if (chosen) write(byId("offer-take"), `Translate ${count(left.length, "image")} with ${choice.words}`);
  }
  show(byId("offer"), left.length > 0, byId("images-title"));
  byId("offer-take").hidden = !chosen;
  document.body.classList.toggle("has-images", images.length > 0);
}

function clear() {
  queue.clear();
  list.clear();
  viewer.show(null);
  images = [];
  offer();
  byId("pick").focus();
}

// The server.

function show401() {
  show(byId("access"), true);
  if (tasks.tasks === null) byId("main").hidden = true;
  if (hasToken()) {
    forgetToken();
    write(byId("access-error"), "This token is not accepted.");
  }
  if (document.activeElement === document.body) byId("token").focus();
}

async function open(event) {
  event.preventDefault();
  const token = byId("token").value.trim();
  write(byId("access-error"), "");
  if (!/^[\x21-\x7e]+$/.test(token)) {
    write(byId("access-error"), "A token consists of letters, digits and symbols, without spaces.");
    return;
  }
  await tasks.settled();
  keepToken(token);
  if (!(await tasks.ask())) {
    byId("token").select();
    return;
  }
  byId("token").value = "";
  byId("main").hidden = false;
  show(byId("access"), false, byId("tasks-title"));
}

function trouble(problem) {
  byId("loading").hidden = true;
  if (problem.isUnauthorized) {
    show401();
    return;
  }
  write(byId("trouble-text"), problem.message);
  show(byId("trouble"), true);
}

function changed({ added, removed }) {
  byId("loading").hidden = true;
  cards.draw(tasks.tasks, added);
  const { max_bytes: limit } = tasks.limits;
  write(byId("limit"), limit ? `, up to ${bytes(limit)} each` : "");
  if (added?.length) say(`New ${added.length === 1 ? "task" : "tasks"}: ${added.join(", ")}.`);
  if (removed.length) say(`No longer in the bank: ${removed.join(", ")}.`);
  const known = choice.task && tasks.find(choice.task.name);
  if (choice.task !== null && known === null) {
    const { name } = choice.task;
    choice.leave();
    cards.mark(null);
    write(byId("chosen-facts"), `${name} is no longer in the bank. Choose another task.`);
  } else if (known && JSON.stringify(known) !== JSON.stringify(choice.task)) {
    choice.take(known, choice.direction.direction);
    cards.mark(known.name);
  } else if (choice.task === null) {
    takeWanted(added === null);
  }
}

// Choose the task that the URL names, or at first the only one.
function takeWanted(isFirst) {
  const only = isFirst && choice.wanted === null && tasks.tasks.length === 1 ? tasks.tasks[0] : null;
  const task = tasks.find(choice.wanted) ?? only;
  if (task !== null) {
    choice.take(task);
    cards.mark(task.name);
    cards.reveal(task.name);
  } else if (choice.wanted !== null) {
    write(byId("chosen-facts"), `The bank does not have a task ${choice.wanted} (yet). Choose one by its sample picture.`);
  }
}

tasks.addEventListener("change", ({ detail }) => changed(detail));
tasks.addEventListener("problem", ({ detail }) => trouble(detail));
tasks.addEventListener("reached", () => {
  show(byId("trouble"), false, byId("tasks-title"));
  if (queue.isHeld) queue.resume();
});
cards.addEventListener("choose", ({ detail: { name, byArrow } }) => {
  choice.take(tasks.find(name));
  if (waiting().length > 0 && !byArrow) translate(waiting());
  offer();
});
choice.addEventListener("change", offer);
choice.addEventListener("wanted", () => tasks.tasks && takeWanted(false));
queue.addEventListener("change", ({ detail: job }) => {
  if (job === viewer.job) viewer.update();
  noteUnfit(job);
  if (!job.isOpen) offer();
});
// Fetching the tasks shows whether the server can be reached; "reached" then resumes.
queue.addEventListener("stopped", ({ detail: problem }) => (problem.isUnauthorized ? show401() : tasks.ask()));
list.addEventListener("show", ({ detail: job }) => {
  view(job);
  byId("view").scrollIntoView({ block: "nearest" });
});

byId("offer-take").addEventListener("click", () => {
  translate(untranslated());
  offer();
});
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("view-retry").addEventListener("click", () => queue.retry([viewer.job]));
byId("clear").addEventListener("click", clear);
byId("access-form").addEventListener("submit", open);
byId("trouble-again").addEventListener("click", async () => {
  if (await tasks.ask()) queue.retry(queue.jobs.filter((job) => job.problem?.isUnreachable));
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // The fragment holds the chosen task.
  byId("work").focus();
});
watchFiles(take);
tasks.ask();
