// Task cards with sample pictures and facts, and their filter.

import { fetchSample } from "./api.js";
import { byId, count, element, show, write } from "./dom.js";

const FEW = 4; // Up to this number, cards are large.
const MANY = 8; // Above this number, there is a filter.

/** Format a direction: "A → B". */
export function arrow(direction) {
  return direction.replace("to", " → ");
}

/** Describe the input and output of a direction. */
export function takesAndGives({ input, output }) {
  return `${input.summary} → ${output.summary}`;
}

/** Describe a task in one line. */
export function facts(task) {
  const [trained] = task.directions;
  return [
    takesAndGives(trained),
    `trained at ${task.image_size} px`,
    task.license ? `licence ${task.license}` : "licence not stated",
  ].join(" · ");
}

/** The cards; dispatches "choose" (detail: {name, byArrow}; arrow keys pass over tasks that are not meant). */
export class Cards extends EventTarget {
  #cards = new Map();
  #made = 0;
  #byArrow = false;
  #seen;

  constructor() {
    super();
    const list = byId("cards");
    // Samples are fetched when their cards come near the viewport.
    this.#seen = new IntersectionObserver((entries) => this.#load(entries), { root: null, rootMargin: "200px" });
    list.addEventListener("keydown", (event) => {
      this.#byArrow = event.key.startsWith("Arrow");
    });
    list.addEventListener("pointerdown", () => {
      this.#byArrow = false;
    });
    list.addEventListener("change", (event) => {
      this.dispatchEvent(
        new CustomEvent("choose", { detail: { name: event.target.value, byArrow: this.#byArrow } }),
      );
    });
    byId("filter").addEventListener("input", () => this.filter());
  }

  /** Show these tasks; unchanged cards stay, and keep the focus. */
  draw(tasks, added) {
    const names = new Set(tasks.map((task) => task.name));
    for (const [name, card] of this.#cards) {
      if (!names.has(name)) this.#drop(card);
    }
    let last = null;
    for (const task of tasks) {
      const text = JSON.stringify(task);
      let card = this.#cards.get(task.name);
      if (card?.text !== text) {
        const checked = card?.radio.checked ?? false;
        if (card) this.#drop(card);
        card = this.#make(task, text, added?.includes(task.name));
        card.radio.checked = checked;
      }
      if (last === null ? card.label.previousSibling : card.label.previousSibling !== last) {
        if (last === null) byId("cards").prepend(card.label);
        else last.after(card.label);
      } else if (!card.label.isConnected) {
        byId("cards").append(card.label);
      }
      last = card.label;
    }
    byId("cards").classList.toggle("few", tasks.length <= FEW);
    byId("filter-box").hidden = tasks.length <= MANY && byId("filter").value === "";
    byId("no-tasks").hidden = tasks.length > 0;
    byId("cards").hidden = tasks.length === 0;
    this.filter();
  }

  /** Mark the chosen task; null marks none. */
  mark(name) {
    for (const card of this.#cards.values()) card.radio.checked = card.task.name === name;
  }

  /** Scroll the list of cards, but not the page, to a task's card. */
  reveal(name) {
    const [list, label] = [byId("cards"), this.#cards.get(name)?.label];
    if (label) list.scrollTop = label.offsetTop - 8;
  }

  /** Show the cards that contain every word of the filter. */
  filter() {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { label, task } of this.#cards.values()) {
      const text = [task.name, task.mode, task.description ?? "", facts(task)].join(" ").toLowerCase();
      label.hidden = !words.every((word) => text.includes(word));
      shown += label.hidden ? 0 : 1;
    }
    const all = this.#cards.size;
    show(byId("no-match"), all > 0 && shown === 0);
    write(byId("tasks-count"), shown < all ? `${shown} of ${count(all, "task")}` : all ? count(all, "task") : "");
  }

  #make(task, text, isNew) {
    const id = `task-${(this.#made += 1)}`;
    const picture = element("span", { class: "picture", "aria-hidden": "true" });
    picture.append(element("span", { class: "initials" }, initials(task.name)));
    const radio = element("input", {
      type: "radio",
      name: "task",
      value: task.name,
      "aria-labelledby": `${id}-name`,
      "aria-describedby": `${id}-facts`,
    });
    const title = element("span", { class: "title" }, radio);
    title.append(element("span", { class: "name", id: `${id}-name` }, task.name));
    if (isNew) title.append(element("span", { class: "badge new" }, "new"));
    title.append(element("span", { class: "badge" }, task.mode));
    const about = element("span", { class: "about" }, title);
    about.append(element("span", { class: "facts", id: `${id}-facts` }, facts(task)));
    if (task.description) about.append(element("span", { class: "words" }, task.description));
    const label = element("label", { class: "card" }, picture, about);
    const card = { task, text, label, radio, picture, url: null };
    this.#cards.set(task.name, card);
    if (task.has_sample) this.#seen.observe(label);
    return card;
  }

  #drop(card) {
    this.#seen.unobserve(card.label);
    this.#cards.delete(card.task.name);
    const hadFocus = card.label.contains(document.activeElement);
    card.label.remove();
    if (card.url !== null) URL.revokeObjectURL(card.url);
    if (hadFocus) byId("tasks-title").focus();
  }

  #load(entries) {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      this.#seen.unobserve(target);
      const card = [...this.#cards.values()].find(({ label }) => label === target);
      if (card) this.#picture(card);
    }
  }

  async #picture(card) {
    let blob;
    try {
      blob = await fetchSample(card.task.name);
    } catch {
      return; // The initials stay.
    }
    if (this.#cards.get(card.task.name) !== card) return;
    card.url = URL.createObjectURL(blob);
    const image = element("img", { src: card.url, alt: "", draggable: "false" });
    image.addEventListener("load", () => card.picture.replaceChildren(image), { once: true });
  }
}

function initials(name) {
  const parts = name.split(/[._-]+/).filter(Boolean);
  const letters = parts.length > 1 ? parts[0][0] + parts[1][0] : name.slice(0, 2);
  return letters.toUpperCase();
}
