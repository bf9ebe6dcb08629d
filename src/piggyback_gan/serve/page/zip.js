// Writes a ZIP file without compression (APPNOTE 6.3.10): images would not get smaller.

const LIMIT = 0xffffffff;
const UTF8_NAMES = 0x0800;
const TABLE = Uint32Array.from({ length: 256 }, (_, number) => {
  for (let bit = 0; bit < 8; bit += 1) number = number & 1 ? (number >>> 1) ^ 0xedb88320 : number >>> 1;
  return number;
});

/** CRC-32 as ZIP and PNG have it. */
export function crc32(content) {
  let crc = 0xffffffff;
  for (let index = 0; index < content.length; index += 1) {
    crc = (crc >>> 8) ^ TABLE[(crc ^ content[index]) & 0xff];
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** Make a ZIP blob of [{path, blob}]; one file at a time is in memory. Equal paths get numbers. */
export async function zip(files) {
  const sum = files.reduce((total, { blob }) => total + blob.size + 2000, 0);
  if (sum > LIMIT || files.length >= 0xffff) {
    throw new Error("Too much for one ZIP file (limits: 4 GB, 65534 files): download the images one by one.");
  }
  const taken = new Set();
  const [parts, directory] = [[], []];
  let offset = 0;
  for (const { path, blob } of files) {
    const name = new TextEncoder().encode(unused(safe(path), taken));
    const crc = crc32(new Uint8Array(await blob.arrayBuffer()));
    const entry = { name, crc, size: blob.size, offset };
    const header = local(entry);
    parts.push(header, blob);
    directory.push(central(entry));
    offset += header.length + blob.size;
  }
  const length = directory.reduce((total, header) => total + header.length, 0);
  const end = record(22, [
    [4, 0x06054b50],
    [2, 0],
    [2, 0],
    [2, files.length],
    [2, files.length],
    [4, length],
    [4, offset],
    [2, 0],
  ]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

function local(entry) {
  return joined(record(30, [[4, 0x04034b50], ...common(entry), [2, 0]]), entry.name);
}

function central(entry) {
  const after = [
    [2, 0], // comment
    [2, 0], // disk
    [2, 0], // internal attributes
    [4, 0], // external attributes
    [4, entry.offset],
  ];
  return joined(record(46, [[4, 0x02014b50], [2, 20], ...common(entry), [2, 0], ...after]), entry.name);
}

// The fields from the needed version to the length of the name.
function common({ name, crc, size }) {
  const now = new Date();
  const time = (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1);
  const date = ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate();
  return [
    [2, 20],
    [2, UTF8_NAMES],
    [2, 0], // stored
    [2, time],
    [2, date],
    [4, crc],
    [4, size],
    [4, size],
    [2, name.length],
  ];
}

function record(length, fields) {
  const view = new DataView(new ArrayBuffer(length));
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += size;
  }
  return new Uint8Array(view.buffer);
}

function joined(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

// Paths must not lead out of the folder they are unpacked in.
function safe(path) {
  const parts = path.split(/[/\\]/).filter((part) => part !== "" && part !== "." && part !== "..");
  return parts.join("/") || "image";
}

// Paths are compared without case, as some file systems do.
function unused(path, taken) {
  const dot = path.lastIndexOf(".") > path.lastIndexOf("/") ? path.lastIndexOf(".") : path.length;
  let free = path;
  for (let number = 2; taken.has(free.toLowerCase()); number += 1) {
    free = `${path.slice(0, dot)} (${number})${path.slice(dot)}`;
  }
  taken.add(free.toLowerCase());
  return free;
}
