// The large view: input and output of one image under a slider, or side by side.

import { byId, bytes, duration, save, show, write } from "./dom.js";
import { status } from "./list.js";

const LONGEST_VIEW = 2048;

export class Viewer {
  job = null;
  #urls = [];
  #drawn = null;

  constructor() {
    const compare = byId("compare");
    byId("split").addEventListener("input", () => this.#split(Number(byId("split").value)));
    compare.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || compare.classList.contains("beside")) return;
      event.preventDefault();
      compare.setPointerCapture(event.pointerId);
      byId("split").focus({ preventScroll: true });
      this.#point(event);
    });
    compare.addEventListener("pointermove", (event) => {
      if (compare.hasPointerCapture(event.pointerId)) this.#point(event);
    });
    for (const radio of document.getElementsByName("view")) {
      radio.addEventListener("change", () => {
        const beside = radio.value === "beside";
        compare.classList.toggle("beside", beside);
        byId("split").hidden = beside;
      });
    }
    byId("download").addEventListener("click", () => save(this.job.result.output, this.job.result.output.name));
    this.#split(50);
  }

  /** Show a job; null shows none. */
  show(job) {
    this.job = job;
    byId("view").hidden = job === null;
    this.#drawn = null;
    this.#free();
    if (job !== null) this.update();
  }

  /** Show the job's current state. */
  update() {
    const { job } = this;
    const drawn = `${job.state} ${job.wait}`;
    if (drawn === this.#drawn) return;
    const wasDone = this.#drawn?.startsWith("done");
    this.#drawn = drawn;
    const done = job.state === "done";
    write(byId("view-name"), job.name);
    write(byId("view-facts"), facts(job, null));
    this.#trouble(job.state === "failed" ? job.problem.message : "", job.canRetry);
    if (done) this.#both(job);
    else if (wasDone || this.#urls.length === 0) this.#alone(job);
  }

  async #both(job) {
    const { inputView, outputView, output } = job.result;
    this.#free();
    const [before, after] = [byId("before"), byId("after")];
    before.src = this.#url(inputView);
    after.src = this.#url(outputView);
    before.alt = `input: ${job.name}`;
    after.alt = `output: ${output.name}`;
    after.classList.toggle("labels", job.plan.labels);
    try {
      await Promise.all([before.decode(), after.decode()]);
    } catch {
      if (this.job !== job) return;
      this.#trouble("This browser can't show the pictures. You can download the output.", false);
    }
    const size = await pixels(output, after);
    if (this.job !== job) return;
    const compare = byId("compare");
    compare.style.setProperty("--aspect", `${after.naturalWidth / Math.max(1, after.naturalHeight)}`);
    compare.style.setProperty("--natural", `${after.naturalWidth}px`);
    write(byId("view-facts"), facts(job, size));
    show(byId("alone"), false);
    show(byId("pictures"), true);
  }

  // Show the input before the output arrives, if the browser can.
  #alone(job) {
    this.#free();
    show(byId("pictures"), false, byId("view-name"));
    show(byId("alone"), false);
    const image = byId("alone-image");
    image.alt = `input: ${job.name}`;
    image.onload = () => show(byId("alone"), this.job === job && job.state !== "done");
    image.src = this.#url(job.image.file);
  }

  #trouble(words, canRetry) {
    write(byId("view-error"), words);
    show(byId("view-retry"), canRetry, byId("view-name"));
    byId("view-trouble").hidden = words === "" && !canRetry;
  }

  #url(blob) {
    this.#urls.push(URL.createObjectURL(blob));
    return this.#urls.at(-1);
  }

  #free() {
    this.#urls.forEach((url) => URL.revokeObjectURL(url));
    this.#urls = [];
    for (const id of ["before", "after", "alone-image"]) byId(id).removeAttribute("src");
  }

  #point(event) {
    const { left, width } = byId("compare").getBoundingClientRect();
    const share = Math.min(100, Math.max(0, ((event.clientX - left) / width) * 100));
    byId("split").value = share;
    this.#split(share);
  }

  #split(share) {
    const whole = Math.round(share);
    byId("compare").style.setProperty("--split", `${share}%`);
    byId("split").setAttribute("aria-valuetext", `${whole} % input, ${100 - whole} % output`);
  }
}

function facts(job, size) {
  const words = [job.plan.words];
  if (job.state !== "done") {
    words.push(bytes(job.image.file.size));
    if (job.state !== "failed") words.push(status(job));
    return words.join(" · ");
  }
  const { output, seconds } = job.result;
  if (size !== null) words.push(`${size.width} × ${size.height} px`);
  words.push(`${bytes(job.image.file.size)} → ${bytes(output.size)}`, duration(seconds), `output: ${output.name}`);
  return words.join(" · ");
}

// The output's size. Views of large images are scaled down; then the size is read from the output if it is a PNG.
async function pixels(output, view) {
  if (Math.max(view.naturalWidth, view.naturalHeight) < LONGEST_VIEW) {
    return view.naturalWidth > 0 ? { width: view.naturalWidth, height: view.naturalHeight } : null;
  }
  const head = new DataView(await output.slice(0, 24).arrayBuffer());
  if (head.byteLength < 24 || head.getUint32(0) !== 0x89504e47) return null;
  return { width: head.getUint32(16), height: head.getUint32(20) };
}
