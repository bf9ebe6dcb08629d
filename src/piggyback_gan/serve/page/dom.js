// Helpers: elements, formatting of sizes and counts, messages for screen readers.

/** Return the element with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Create an element. Strings are inserted as text, never as HTML. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Show or hide an element; if it had the focus, `elsewhere` gets it. */
export function show(shown, visible, elsewhere = null) {
  const hadFocus = !visible && shown.contains(document.activeElement);
  shown.hidden = !visible;
  if (hadFocus) elsewhere?.focus();
}

/** Set a text only if it differs, so that an unchanged live region stays silent. */
export function write(into, text) {
  if (into.textContent !== text) into.textContent = text;
}

/** "1 image", "3 images". */
export function count(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

/** "3.2 MB": decimal units, as file managers have them. */
export function bytes(number) {
  const units = ["bytes", "kB", "MB", "GB"];
  let unit = 0;
  while (number >= 1000 && unit < units.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${unit === 0 || number >= 100 ? Math.round(number) : number.toFixed(1)} ${units[unit]}`;
}

/** "< 0.1 s", "0.8 s", "12 s", "2 min 5 s". */
export function duration(seconds) {
  if (seconds < 0.1) return "< 0.1 s";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** Announce a text to screen readers, politely. */
export function say(text) {
  const line = element("p", {}, text);
  byId("said").append(line);
  setTimeout(() => line.remove(), 10_000);
}

/** Save a file by clicking a link to it. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  // The browser reads the URL after the click.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
