// The page of a checkpoint: its tensors as a tree and a map, a selection as one types it, and lines that load it.

import "./copy.js";
import { showTensor } from "./tensor.js";
import { count, made, shown, size } from "./text.js";
import { openAll, treeOf } from "./tree.js";
import { TreeGrid } from "./treegrid.js";
import { drawMap } from "./treemap.js";

/** @typedef {import("./tree.js").Node} Node */
/** @typedef {import("./tree.js").Tensors} Tensors */
/**
 * @typedef {object} Described the answer of selection.json
 * @property {number[]} matched
 * @property {number} count
 * @property {number | null} size
 * @property {string | null} problem
 * @property {string} path
 * @property {string} curl
 * @property {string} python
 * @property {string} cli
 */

/**
 * @template {HTMLElement} E
 * @param {string} id
 * @returns {E}
 */
const by = (id) => /** @type {E} */ (document.getElementById(id));

const section = by("tensors");
const page = section.dataset.page ?? "";
const api = section.dataset.api ?? "";
const root = new URL(document.documentElement.dataset.root ?? "./", location.href);
const form = /** @type {HTMLFormElement} */ (by("selection"));
const component = /** @type {HTMLSelectElement} */ (by("component"));
const include = /** @type {HTMLTextAreaElement} */ (by("include"));
const exclude = /** @type {HTMLTextAreaElement} */ (by("exclude"));
const device = /** @type {HTMLSelectElement} */ (by("device"));
const format = /** @type {HTMLSelectElement} */ (by("format"));
const told = by("told");
const download = /** @type {HTMLAnchorElement} */ (by("download"));
const panel = by("panel");
const map = /** @type {SVGSVGElement} */ (/** @type {unknown} */ (by("map")));
const grid = new TreeGrid(by("grid"), chosen);

/** @type {Tensors | null} */
let tensors = null;
/** @type {Node | null} */
let tree = null;
/** @type {Node | null} */
let mapped = null;
/** @type {AbortController | null} */
let asking = null;
/** @type {(() => Promise<void>) | null} */
let askSize = null;
let isInSight = false;
let asked = 0;

async function load() {
  const mine = ++asked;
  section.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(address("tensors.json", []));
    const found = await answer.json();
    if (mine !== asked) return;
    if (!answer.ok) return tell(shown(found.detail ?? found.title, 600));
    tensors = found;
    by("plain").hidden = true;
    by("browser").hidden = false;
    panel.replaceChildren(made("p", "dim", "Choose a tensor to see its statistics."));
    section.dataset.matched = `0,${found.key.length}`;
    grow(found.key.keys());
    performance.mark("tensors");
    await describe();
  } finally {
    if (mine === asked) section.setAttribute("aria-busy", "false");
  }
}

/** @param {Iterable<number>} numbers */
function grow(numbers) {
  if (!tensors) return;
  tree = treeOf(tensors, numbers);
  grid.show(tensors, tree);
  into(mostOf(tree));
}

/**
 * The first branch on the way down from which the bytes go to several places: a map of one thing says nothing.
 * @param {Node} node
 * @returns {Node}
 */
function mostOf(node) {
  const most = node.children.find((child) => child.tensor < 0 && child.bytes > 0.95 * node.bytes);
  return most ? mostOf(most) : node;
}

/**
 * Show a branch on the map, below the branches that lead to it.
 * @param {Node} node
 */
function into(node) {
  mapped = node;
  const way = [];
  for (let at = /** @type {Node | null} */ (node); at; at = at.parent) way.unshift(at);
  const crumbs = way.map((each) => {
    const text = each.parent ? shown(each.name, 40) || "(nothing)" : "All";
    if (each === node) return made("span", "", `${text}, ${size(each.bytes)}`);
    const button = made("button", "quiet", text);
    button.type = "button";
    button.addEventListener("click", () => into(each));
    return button;
  });
  by("way").replaceChildren(...crumbs);
  drawMap(map, node, (part) => {
    grid.selected = part;
    grid.reveal(part);
    chosen(part);
  });
}

/** @param {Node} node */
function chosen(node) {
  if (!tensors) return;
  if (node.tensor < 0 && node !== mapped) into(node);
  const stats = new URL(`${api}/stats`, location.href);
  stats.searchParams.set("component", component.value);
  showTensor(panel, tensors, node, stats.href, (pattern) => {
    include.value = pattern;
    exclude.value = "";
    void describe();
    form.scrollIntoView({ block: "nearest" });
  });
}

/** @param {string} text */
function tell(text) {
  told.textContent = text;
}

/**
 * The patterns of a field, one a line. A word that is no key and has no `*` means the keys that contain it.
 * @param {HTMLTextAreaElement} field
 */
function patterns(field) {
  const isWhole = (/** @type {string} */ line) => /[*?[]|^re:/.test(line) || tensors?.key.includes(line);
  return field.value
    .split("\n")
    .filter((line) => line.trim())
    .map((line) => (isWhole(line) ? line : `*${line.trim()}*`));
}

/**
 * @param {string} name
 * @param {[string, string][]} more
 */
function address(name, more) {
  const url = new URL(`${page}/${name}`, location.href);
  url.searchParams.set("component", component.value);
  for (const [key, value] of more) url.searchParams.append(key, value);
  return url;
}

async function describe() {
  asking?.abort();
  askSize = null;
  const mine = (asking = new AbortController());
  download.removeAttribute("href"); // what it led to is selected no more
  download.textContent = "Download";
  const isSafetensors = format.value === "safetensors";
  device.disabled = isSafetensors;
  const [kept, dropped] = [patterns(include), patterns(exclude)];
  /** @type {[string, string][]} */
  const choices = [
    ...kept.map((each) => /** @type {[string, string]} */ (["include", each])),
    ...dropped.map((each) => /** @type {[string, string]} */ (["exclude", each])),
    ["base", root.href],
    ["format", format.value],
  ];
  for (const choice of [device, /** @type {HTMLSelectElement} */ (by("dtype"))]) {
    if (choice.value && !choice.disabled) choices.push([choice.id, choice.value]);
  }
  try {
    const answer = await fetch(address("selection.json", choices), { signal: mine.signal });
    const found = await answer.json();
    if (!answer.ok) return tell(shown(found.detail ?? found.title, 600));
    showSelection(found, kept, dropped);
    if (found.problem !== null) return;
    askSize = () => showSize(choices, mine.signal);
    if (isInSight) await askSize();
  } catch (error) {
    if (!mine.signal.aborted) tell(`The server was not reached: ${error}`);
  }
}

/**
 * @param {Described} found
 * @param {string[]} kept
 * @param {string[]} dropped
 */
function showSelection(found, kept, dropped) {
  if (!tensors) return;
  const words = [...kept.map((each) => `include=${each}`), ...dropped.map((each) => `exclude=${each}`)];
  const now = found.matched.join();
  if (now !== section.dataset.matched) {
    section.dataset.matched = now;
    grow(numbers(found.matched, tensors.key.length));
    if (words.length && tree && found.count <= 2000) {
      openAll(tree, true);
      grid.relist();
    }
  }
  tell(summary(found, words));
  by("line-curl").textContent = found.curl;
  by("line-python").textContent = found.python;
  by("line-cli").textContent = found.cli;
  download.hidden = found.problem !== null;
  download.href = new URL(found.path.slice(1), root).href;
}

/**
 * Show how large the file is, once nothing was typed for a while, and if the button is in sight: that takes planning.
 * @param {[string, string][]} choices
 * @param {AbortSignal} signal
 */
async function showSize(choices, signal) {
  askSize = null;
  await new Promise((resolve) => setTimeout(resolve, 300));
  const answer = await fetch(address("selection.json", [...choices, ["sized", "true"]]), { signal }).catch(() => null);
  if (!answer?.ok) return;
  /** @type {Described} */
  const found = await answer.json();
  download.hidden = found.size === null;
  if (found.size !== null) download.textContent = `Download ${size(found.size)}`;
  if (found.problem !== null) tell(shown(found.problem, 600));
}

/**
 * @param {Described} found
 * @param {string[]} words
 */
function summary(found, words) {
  const [of, listed] = [tensors?.of ?? 0, tensors?.key.length ?? 0];
  const problem = found.problem === null ? "" : shown(found.problem, 600);
  if (problem && !found.count) return problem;
  const match = words.length ? `${found.count === 1 ? "matches" : "match"} ${shown(words.join(" "), 200)}: ` : "";
  const left = of > listed ? ` The first ${count(listed)} are listed.` : "";
  return `${count(found.count)} of ${count(of)} tensors ${match || "are selected: "}${size(tree?.bytes ?? 0)}.${left} ${problem}`;
}

/**
 * @param {number[]} runs
 * @param {number} end
 */
function* numbers(runs, end) {
  for (let at = 0; at < runs.length; at += 2) {
    const [start, length] = [runs[at] ?? 0, runs[at + 1] ?? 0];
    for (let each = start; each < Math.min(end, start + length); each += 1) yield each;
  }
}

new IntersectionObserver((entries) => {
  isInSight = entries.at(-1)?.isIntersecting ?? false;
  if (isInSight) askSize?.().catch(() => undefined); // another selection came between
}).observe(download);

form.hidden = false;
let timer = 0;
for (const field of [include, exclude]) {
  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(describe, 120);
  });
}
form.addEventListener("change", (event) => {
  if (event.target === component) {
    include.value = exclude.value = "";
    void load();
  } else if (event.target instanceof HTMLSelectElement) {
    void describe();
  }
});
form.addEventListener("submit", (event) => event.preventDefault());
for (const [id, open] of /** @type {[string, boolean][]} */ ([["open-all", true], ["close-all", false]])) {
  by(id).addEventListener("click", () => {
    if (tree) openAll(tree, open);
    grid.relist();
  });
}
new ResizeObserver(() => {
  if (mapped) into(mapped);
}).observe(map);
void load();
