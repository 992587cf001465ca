// Figures as words, and elements with text. Names of products and buyers come from outside:
// they reach the page as text nodes only, never as markup.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const oneDigit = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const NOTHING = "–";

/** 12,345; a figure that is not known is a dash, never a zero. */
export function count(number) {
  return Number.isFinite(number) ? whole.format(number) : NOTHING;
}

/** Small figures keep one decimal, large ones need none. */
export function decimal(number) {
  if (!Number.isFinite(number)) return NOTHING;
  return Math.abs(number) < 100 ? oneDigit.format(number) : whole.format(number);
}

export function clock(seconds) {
  return new Date(seconds * 1000).toTimeString().slice(0, 8);
}

/** 9:05 of minutes and seconds, 1:02:03 with hours. */
export function countdown(ms) {
  const total = Math.max(0, Math.ceil(ms / 1000));
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(total / 3600);
  const minutes = Math.floor(total / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(total % 60)}` : `${minutes}:${two(total % 60)}`;
}

/** 1 second, 2 seconds. */
export function seconds(number) {
  return `${count(number)} second${number === 1 ? "" : "s"}`;
}

/** 0-3, 7 of 0, 1, 2, 3, 7. */
export function ranges(numbers) {
  const runs = [];
  for (const number of numbers) {
    const run = runs.at(-1);
    if (run && number === run.last + 1) run.last = number;
    else runs.push({ first: number, last: number });
  }
  return runs.map(({ first, last }) => (first === last ? first : `${first}-${last}`)).join(", ");
}

/** sold_out -> sold out */
export function words(reason) {
  return String(reason).replaceAll("_", " ");
}

export function sum(numbers) {
  let total = 0;
  for (const each of numbers) total += each;
  return total;
}

/** One element: attributes as given, `text` as its text, then the children. */
export function element(tag, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

/** Writes only what differs, so that the browser lays out only what moved. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows words in a .note; kind is good, warn, bad or nothing. */
export function say(note, text, kind = "") {
  setText(note, text);
  note.className = `note ${kind}`;
}

export function byId(id) {
  return document.getElementById(id);
}
