// The comparison of two checkpoints: which tensors differ, from digests; by how much, when asked or when it is little to read.

import { size } from "./text.js";

/**
 * @typedef {{ dtype: string, shape: number[] | null, bytes: number }} Side
 * @typedef {{ component: string | null, key: string, status: string, base?: Side | null, other?: Side | null, moved_from?: string | null,
 *   note?: string | null, max_abs?: number | null, l2?: number | null, relative_l2?: number | null, cosine?: number | null }} Item
 * @typedef {{ name: string, items: Item[], status: string, l2: number | null, relative: number | null, bytes: number }} Row
 */

const STATUSES = ["changed", "added", "removed", "moved", "same"];
const AT_ONCE = 200_000_000;
const ROWS = 200;

const section = /** @type {HTMLElement} */ (document.getElementById("diff"));
const statuses = /** @type {HTMLFieldSetElement} */ (document.getElementById("statuses"));
const told = /** @type {HTMLElement} */ (document.getElementById("told"));
const bars = /** @type {HTMLElement} */ (document.getElementById("bars"));
const by = /** @type {HTMLSelectElement} */ (document.getElementById("by"));
const search = /** @type {HTMLInputElement} */ (document.getElementById("search"));
const measure = /** @type {HTMLButtonElement} */ (document.getElementById("measure"));

/** @type {Item[]} */
let items = [];
let measured = false;
let most = ROWS;

/**
 * Read all pages of the comparison.
 * @param {boolean} numeric
 * @param {(count: number) => void} onPage
 * @returns {Promise<{ items: Item[], summary: Record<string, number> }>}
 */
async function read(numeric, onPage) {
  const found = /** @type {Item[]} */ ([]);
  const address = new URL(section.dataset.address ?? "", location.href);
  if (numeric) address.searchParams.set("numeric", "true");
  address.searchParams.set("limit", numeric ? "1000" : "10000");
  for (;;) {
    const answer = await fetch(address);
    if (answer.status === 401) location.reload();
    const page = await answer.json();
    if (!answer.ok) throw new Error(page.detail ?? `The server answered ${answer.status}.`);
    found.push(...page.items);
    onPage(found.length);
    if (!page.next) return { items: found, summary: page.summary };
    address.searchParams.set("cursor", page.next);
  }
}

/** @param {string} key @returns {string} the module of a key */
function layer(key) {
  return key.includes(".") ? key.slice(0, key.lastIndexOf(".")) : key;
}

/** @returns {Row[]} the rows that are wanted, the greatest changes first */
function rows() {
  const wanted = new Set([...statuses.querySelectorAll("input:checked")].map((box) => /** @type {HTMLInputElement} */ (box).value));
  const words = search.value.trim().toLowerCase();
  const severalComponents = new Set(items.map((item) => item.component)).size > 1;
  /** @type {Map<string, Item[]>} */
  const groups = new Map();
  for (const item of items) {
    if (!wanted.has(item.status) || (words && !item.key.toLowerCase().includes(words))) continue;
    const component = severalComponents && item.component ? `${item.component} ` : "";
    const name = component + (by.value === "layer" ? layer(item.key) : item.key);
    const group = groups.get(name);
    if (group) group.push(item);
    else groups.set(name, [item]);
  }
  const found = [...groups].map(([name, group]) => row(name, group));
  return measured ? found.sort((a, b) => (b.relative ?? -1) - (a.relative ?? -1)) : found;
}

/** @param {string} name @param {Item[]} group @returns {Row} */
function row(name, group) {
  let [difference, norm, known] = [0, 0, false];
  for (const { l2, relative_l2: relative } of group) {
    if (l2 === null || l2 === undefined) continue;
    known = true;
    difference += l2 ** 2;
    if (relative) norm += (l2 / relative) ** 2;
  }
  const relative = known && norm ? Math.sqrt(difference / norm) : known && !difference ? 0 : null;
  const bytes = group.reduce((sum, item) => sum + ((item.other ?? item.base)?.bytes ?? 0), 0);
  const kinds = new Set(group.map((item) => item.status));
  return { name, items: group, status: kinds.size === 1 ? (group[0]?.status ?? "") : "changed", l2: known ? Math.sqrt(difference) : null, relative, bytes };
}

/** @param {number} value */
function percent(value) {
  return value === 0 ? "0%" : value >= 0.0001 ? `${Number((100 * value).toPrecision(3))}%` : value.toExponential(1);
}

function draw() {
  const all = rows();
  const shown = all.slice(0, most);
  const greatest = Math.max(...all.map((one) => one.relative ?? 0), 1e-300);
  const table = document.createElement("table");
  table.className = "diffs";
  const head = table.createTHead().insertRow();
  for (const [label, kind] of [[by.value === "layer" ? "Layer" : "Key", "key"], ["What", "what"], [measured ? "Relative change" : "Size", "amount"]]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.className = kind ?? "";
    cell.textContent = label ?? "";
    head.append(cell);
  }
  const body = table.createTBody();
  for (const one of shown) {
    const line = body.insertRow();
    const name = document.createElement("th");
    name.scope = "row";
    name.className = "key";
    const text = document.createElement("bdi");
    text.textContent = visible(one.name);
    name.append(text);
    line.append(name);
    const what = line.insertCell();
    const status = document.createElement("span");
    status.className = `status ${one.status}`;
    status.textContent = one.items.length > 1 ? `${one.items.length} ${one.status}` : one.status;
    what.append(status);
    const [item] = one.items;
    const detail = one.items.length === 1 && item ? about(item) : "";
    if (detail) {
      const small = document.createElement("div");
      small.className = "dim small";
      small.textContent = detail;
      what.append(small);
    }
    const amount = line.insertCell();
    if (one.relative === null) amount.textContent = size(one.bytes);
    else {
      const bar = document.createElement("div");
      bar.className = "bar";
      const drawn = document.createElement("i");
      drawn.style.width = `${(100 * one.relative) / greatest}%`;
      const number = document.createElement("span");
      number.textContent = percent(one.relative);
      bar.title = `L2 of the difference ${one.l2?.toPrecision(4)}, ${size(one.bytes)}`;
      bar.append(drawn, number);
      amount.append(bar);
    }
  }
  bars.replaceChildren(...(all.length ? [table] : []));
  if (all.length > most) {
    const more = document.createElement("button");
    more.type = "button";
    more.textContent = `Show ${Math.min(1000, all.length - most)} more of ${all.length}`;
    more.addEventListener("click", () => {
      most += 1000;
      draw();
    });
    bars.append(more);
  }
}

/** @param {Item} item */
function about({ base, other, moved_from: from, note }) {
  if (from) return `was ${visible(from)}`;
  if (note) return note;
  if (base && other && base.dtype !== other.dtype) return `${base.dtype} → ${other.dtype}`;
  if (base && other && String(base.shape) !== String(other.shape)) return `${base.shape?.join(" × ")} → ${other.shape?.join(" × ")}`;
  return "";
}

/** @param {string} text made by others: nothing in it stays invisible, or is longer than a line or two */
function visible(text) {
  const cut = text.length > 200 ? `${text.slice(0, 199)}…` : text;
  return cut.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (found) => `\\u${(found.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`);
}

/** @param {Record<string, number>} summary */
function choose(summary) {
  const differ = STATUSES.some((status) => status !== "same" && summary[status]);
  for (const status of STATUSES) {
    if (!summary[status]) continue;
    const label = document.createElement("label");
    label.className = "chip";
    const box = document.createElement("input");
    box.type = "checkbox";
    box.value = status;
    box.checked = status !== "same" || !differ;
    box.addEventListener("change", draw);
    const name = document.createElement("span");
    name.className = `status ${status}`;
    name.textContent = `${summary[status].toLocaleString("en")} ${status}`;
    label.append(box, name);
    statuses.append(label);
  }
  statuses.hidden = false;
}

async function compare() {
  const found = await read(false, (count) => (told.textContent = `Comparing … ${count.toLocaleString("en")} keys`));
  items = found.items;
  choose(found.summary);
  const changed = items.filter((item) => item.status === "changed");
  const bytes = changed.reduce((sum, item) => sum + (item.other?.bytes ?? 0), 0);
  told.textContent = changed.length || items.some((item) => item.status !== "same") ? "" : "All tensors are the same.";
  measure.hidden = !changed.length;
  measure.textContent = `Measure by how much (reads ${size(2 * bytes)})`;
  /** @type {HTMLElement} */ (document.getElementById("controls")).hidden = false;
  draw();
  if (changed.length && bytes <= AT_ONCE) await measureAll();
}

async function measureAll() {
  measure.disabled = true;
  const found = await read(true, (count) => (told.textContent = `Measuring … ${count.toLocaleString("en")} of ${items.length.toLocaleString("en")} keys`));
  items = found.items;
  measured = true;
  measure.hidden = true;
  told.textContent = "";
  draw();
}

/** @param {() => Promise<void>} work */
async function trying(work) {
  section.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    told.textContent = error instanceof Error ? error.message : String(error);
  } finally {
    measure.disabled = false;
    section.setAttribute("aria-busy", "false");
  }
}

measure.addEventListener("click", () => void trying(measureAll));
by.addEventListener("change", draw);
search.addEventListener("input", draw);
void trying(compare);
