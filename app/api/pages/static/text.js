// Text for people, as app/api/pages/text.py writes it: sizes, numbers, and names from files made visible.

const INVISIBLE = /[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]/g;
const PAIR = /[\ud800-\udbff][\udc00-\udfff]/g;
const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/**
 * Text that somebody else chose, cut, with its invisible characters escaped.
 * @param {string} text
 * @param {number} [length]
 */
export function shown(text, length = 200) {
  const cut = text.length <= length ? text : `${text.slice(0, length - 1)}…`;
  const pairs = cut.match(PAIR) ?? [];
  return cut
    .split(PAIR)
    .map((part, at) => part.replace(INVISIBLE, escaped) + (pairs[at] ?? ""))
    .join("");
}

/** @param {string} char */
function escaped(char) {
  const known = { "\n": "\\n", "\t": "\\t", "\r": "\\r" }[char];
  return known ?? `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** @param {number} nbytes */
export function size(nbytes) {
  let value = nbytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
  return `${digits} ${UNITS[unit]}`;
}

/** @param {number} value */
export function count(value) {
  return value.toLocaleString("en-US");
}

/** @param {number | null} value */
export function number(value) {
  if (value === null) return "–";
  return Number.isInteger(value) && Math.abs(value) < 1e6 ? String(value) : String(Number(value.toPrecision(5)));
}

/**
 * An element with a class and a text.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} [name]
 * @param {string} [text]
 */
export function made(tag, name = "", text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text) element.textContent = text;
  return element;
}
