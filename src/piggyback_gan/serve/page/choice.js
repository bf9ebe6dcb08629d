// Settings of translations: task and direction, kept in the URL's fragment, and options.

import { arrow, takesAndGives } from "./cards.js";
import { byId, element, show, write } from "./dom.js";

/** The settings; dispatches "change", and "wanted" when the URL names another task. */
export class Choice extends EventTarget {
  task = null;
  direction = null;
  #wanted = { task: null, direction: null };

  constructor() {
    super();
    this.#read();
    for (const id of ["format", "tile", "tile-pixels"]) {
      byId(id).addEventListener("change", () => this.#options());
    }
    byId("direction-choices").addEventListener("change", (event) => this.take(this.task, event.target.value));
    addEventListener("hashchange", () => {
      this.#read();
      this.dispatchEvent(new CustomEvent("wanted"));
    });
  }

  /** The name of the task that the URL asks for, or null. */
  get wanted() {
    return this.#wanted.task;
  }

  /** The settings of a translation, or null if no task is chosen. */
  get settings() {
    if (this.task === null) return null;
    const tile = byId("tile").value === "pixels" ? byId("tile-pixels").value : byId("tile").value;
    return { task: this.task.name, direction: this.direction.direction, format: byId("format").value, tile };
  }

  /** The settings in a few words: "winter, B → A, as tif". */
  get words() {
    const { task, direction, format, tile } = this.settings;
    const words = [task];
    if (this.task.directions.length > 1) words.push(arrow(direction));
    if (format !== "best") words.push(`as ${format}`);
    if (tile !== "") words.push(tile === "0" ? "without tiles" : `in tiles of ${tile} px`);
    return words.join(", ");
  }

  /** Choose a task, and one of its directions: the named one, else the one wanted by the URL, else the trained one. */
  take(task, direction = null) {
    const [trained] = task.directions;
    const find = (name) => task.directions.find((way) => way.direction === name);
    this.direction = find(direction) ?? (task.name === this.wanted ? find(this.#wanted.direction) : null) ?? trained;
    this.task = task;
    this.#wanted = { task: task.name, direction: this.direction.direction };
    this.#keep();
    this.#draw();
    this.dispatchEvent(new CustomEvent("change"));
  }

  /** Choose no task: it was removed. */
  leave() {
    this.task = this.direction = null;
    this.#wanted = { task: null, direction: null };
    this.#keep();
    this.#draw();
    this.dispatchEvent(new CustomEvent("change"));
  }

  #read() {
    const words = new URLSearchParams(location.hash.slice(1));
    this.#wanted = { task: words.get("task"), direction: words.get("direction") };
  }

  #keep() {
    const { task, direction } = this.#wanted;
    const words = new URLSearchParams(task === null ? {} : { task, direction });
    // Replaces the history entry, so that Back does not step through tasks.
    history.replaceState(null, "", task === null ? location.pathname + location.search : `#${words}`);
  }

  #options() {
    const pixels = byId("tile-pixels");
    show(byId("tile-box"), byId("tile").value === "pixels");
    if (!pixels.checkValidity()) pixels.value = pixels.defaultValue;
    this.#draw();
    this.dispatchEvent(new CustomEvent("change"));
  }

  #draw() {
    const { task, direction } = this;
    byId("settings").hidden = task === null;
    write(byId("chosen-name"), task?.name ?? "No task chosen");
    byId("chosen-description").hidden = !task?.description;
    byId("chosen-description").textContent = task?.description ?? "";
    if (task === null) {
      write(byId("chosen-facts"), "Choose one by its sample picture. You can add images before or after.");
      return;
    }
    const facts = [task.mode, `trained at ${task.image_size} px`];
    facts.unshift(takesAndGives(direction));
    facts.push(task.license ? `licence ${task.license}` : "licence not stated");
    write(byId("chosen-facts"), facts.join(" · "));
    byId("format").options[0].textContent = `automatic (${direction.output_format})`;
    this.#drawDirections();
    const { format, tile } = this.settings;
    const set = [format === "best" ? "" : format, tile === "" ? "" : tile === "0" ? "no tiles" : `tiles of ${tile} px`];
    write(byId("options-set"), set.some(Boolean) ? `: ${set.filter(Boolean).join(", ")}` : "");
  }

  #drawDirections() {
    const ways = this.task.directions;
    byId("directions").hidden = ways.length < 2;
    const names = ways.map((way) => way.direction);
    const shown = [...byId("direction-choices").querySelectorAll("input")];
    if (shown.map((radio) => radio.value).join() !== names.join()) {
      byId("direction-choices").replaceChildren(
        ...names.map((name) => {
          const radio = element("input", { type: "radio", name: "direction", value: name });
          return element("label", {}, radio, element("span", {}, arrow(name)));
        }),
      );
    }
    for (const radio of byId("direction-choices").querySelectorAll("input")) {
      radio.checked = radio.value === this.direction.direction;
    }
  }
}
