// Image input: chosen, dropped (with folders) or pasted. Each is {file, path}; the path begins with the folder.

import { byId } from "./dom.js";

const IMAGE = /\.(png|jpe?g|webp|bmp|tiff?)$/i;
const byName = new Intl.Collator("en", { numeric: true });
let pasted = 0;

/** Call `take(images, leftOut)` with added images; `leftOut` counts files in folders that are not images. */
export function watchFiles(take) {
  const [files, folder] = [byId("files"), byId("folder")];
  byId("pick").addEventListener("click", () => files.click());
  byId("pick-folder").addEventListener("click", () => folder.click());
  files.addEventListener("change", () => {
    take([...files.files].map((file) => ({ file, path: file.name })), 0);
    files.value = ""; // Allows choosing the same file again.
  });
  folder.addEventListener("change", () => {
    takeFolder([...folder.files].map((file) => ({ file, path: file.webkitRelativePath })), take);
    folder.value = "";
  });
  document.addEventListener("paste", (event) => {
    const images = [...(event.clipboardData?.files ?? [])];
    if (images.length === 0) return;
    event.preventDefault();
    take(images.map((file) => ({ file, path: pastedName(file) })), 0);
  });
  watchDrops(take);
}

function watchDrops(take) {
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let inside = 0; // Counts enter and leave events, which come from every element.
  const mark = () => document.body.classList.toggle("dragging", inside > 0);
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    inside += 1;
    mark();
  });
  addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    inside = Math.max(0, inside - 1);
    mark();
  });
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    inside = 0;
    mark();
    // Read before the first await, which empties the list.
    const dropped = [...event.dataTransfer.items].filter((item) => item.kind === "file").map((item) => ({
      entry: item.webkitGetAsEntry?.(),
      file: item.getAsFile(),
    }));
    const single = dropped.filter(({ entry, file }) => file && !entry?.isDirectory);
    if (single.length > 0) take(single.map(({ file }) => ({ file, path: file.name })), 0);
    for (const { entry } of dropped) {
      if (entry?.isDirectory) takeFolder(await walk(entry), take);
    }
  });
}

function takeFolder(found, take) {
  const visible = found.filter(({ path }) => !path.split("/").some((part) => part.startsWith(".")));
  const images = visible.filter(({ path }) => IMAGE.test(path));
  images.sort((one, other) => byName.compare(one.path, other.path));
  take(images, visible.length - images.length);
}

async function walk(folder) {
  const found = [];
  const reader = folder.createReader();
  for (;;) {
    // Returns some entries at a time, and none at the end.
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (entries.length === 0) return found;
    for (const entry of entries) {
      if (entry.isDirectory) {
        found.push(...(await walk(entry)));
      } else {
        const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
        found.push({ file, path: entry.fullPath.slice(1) });
      }
    }
  }
}

// Browsers name all pasted images image.png.
function pastedName(file) {
  pasted += 1;
  return file.name && file.name !== "image.png" ? file.name : `pasted-${pasted}.png`;
}
