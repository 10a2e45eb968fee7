// The panel beside the tree: a branch's bytes, or a tensor with its statistics, which the server computes when asked.

import { copies } from "./copy.js";
import { count, made, number, shown, size } from "./text.js";
import { patternOf, valueOf } from "./tree.js";
import { shapeText } from "./treegrid.js";

/** @typedef {import("./tree.js").Node} Node */
/** @typedef {import("./tree.js").Tensors} Tensors */
/**
 * @typedef {object} Stats
 * @property {string} key
 * @property {number | null} min
 * @property {number | null} max
 * @property {number | null} mean
 * @property {number | null} std
 * @property {number | null} l2
 * @property {number | null} zeros
 * @property {number | null} nan
 * @property {number | null} inf
 * @property {{ low: number | null, high: number | null, counts: number[] } | null} histogram
 * @property {string | null} skipped
 */

const SVG = "http://www.w3.org/2000/svg";
const SHARING = 12;

let asked = 0;

/**
 * @param {HTMLElement} panel
 * @param {Tensors} tensors
 * @param {Node} node
 * @param {string} stats the address of the component's statistics
 * @param {(pattern: string) => void} keep selects just what is shown
 */
export function showTensor(panel, tensors, node, stats, keep) {
  const mine = ++asked;
  const isBranch = node.tensor < 0;
  const title = made("h3");
  title.append(made("bdi", "", shown(node.path, 600)));
  const copy = made("button", "quiet", "Copy");
  copies(copy, () => node.path);
  const only = made("button", "", isBranch ? "Select this branch" : "Select this tensor");
  only.addEventListener("click", () => keep(patternOf(node)));
  const buttons = made("p", "panel-buttons");
  buttons.append(only, copy);
  panel.replaceChildren(title, facts(isBranch ? ofBranch(tensors, node) : ofTensor(tensors, node)), buttons);
  if (isBranch) return;
  const place = made("div", "stats");
  place.append(made("p", "dim", "Computing statistics…"));
  place.setAttribute("aria-live", "polite");
  panel.append(place);
  void fetchStats(stats, node).then((parts) => {
    if (mine === asked) place.replaceChildren(...parts);
  });
}

/**
 * @param {Tensors} tensors
 * @param {Node} node
 * @returns {[string, string][]}
 */
function ofBranch(tensors, node) {
  const names = new Set();
  const waiting = [node];
  for (let at = waiting.pop(); at; at = waiting.pop()) {
    if (at.tensor >= 0) names.add(valueOf(tensors.dtype, at.tensor));
    for (const child of at.children) waiting.push(child);
  }
  return [
    ["Tensors", count(node.count)],
    ["Size", size(node.bytes)],
    ["Dtypes", [...names].join(", ")],
  ];
}

/**
 * @param {Tensors} tensors
 * @param {Node} node
 * @returns {[string, string][]}
 */
function ofTensor(tensors, node) {
  const shape = valueOf(tensors.shape, node.tensor);
  const shared = valueOf(tensors.shared, node.tensor);
  /** @type {[string, string][]} */
  const pairs = [
    ["Shape", shapeText(shape)],
    ["Elements", shape === null ? "–" : count(shape.reduce((one, other) => one * other, 1))],
    ["Dtype", valueOf(tensors.dtype, node.tensor)],
    ["Device", shown(valueOf(tensors.device, node.tensor), 40)],
    ["Size", size(/** @type {number} */ (tensors.bytes[node.tensor]))],
  ];
  if (shared) pairs.push(["Shares its storage with", sharing(tensors, node.tensor, shared)]);
  return pairs;
}

/**
 * @param {Tensors} tensors
 * @param {number} tensor
 * @param {[number, number, number]} shared
 */
function sharing(tensors, tensor, shared) {
  const others = [];
  for (let at = 0; at < tensors.key.length && others.length < SHARING; at += 1) {
    if (at !== tensor && valueOf(tensors.shared, at)?.[0] === shared[0]) others.push(shown(tensors.key[at] ?? "", 80));
  }
  const left = shared[2] - 1 - others.length;
  return [...others, ...(left ? [`${left} others`] : [])].join(", ");
}

/** @param {[string, string][]} pairs */
function facts(pairs) {
  const list = made("dl", "pairs");
  for (const [name, text] of pairs) {
    const value = made("dd");
    value.append(made("bdi", "", text));
    list.append(made("dt", "", name), value);
  }
  return list;
}

/**
 * @param {string} address
 * @param {Node} node
 * @returns {Promise<HTMLElement[]>}
 */
async function fetchStats(address, node) {
  const url = new URL(address, location.href);
  url.searchParams.set("include", patternOf(node));
  url.searchParams.set("limit", "50");
  try {
    const answer = await fetch(url);
    const document_ = await answer.json();
    if (!answer.ok) return [made("p", "note", shown(document_.detail ?? document_.title, 600))];
    /** @type {Stats | undefined} */
    const found = document_.items.find((/** @type {Stats} */ each) => each.key === node.path);
    if (!found) return [made("p", "note", "The server has no statistics under this key.")];
    return found.skipped ? [made("p", "note", `No statistics: ${shown(found.skipped, 600)}`)] : drawn(found);
  } catch {
    return [made("p", "note", "The server was not reached.")];
  }
}

/** @param {Stats} stats */
function drawn(stats) {
  const list = facts([
    ["Minimum", number(stats.min)],
    ["Maximum", number(stats.max)],
    ["Mean", number(stats.mean)],
    ["Std", number(stats.std)],
    ["Norm", number(stats.l2)],
    ["Zeros", stats.zeros === null ? "–" : count(stats.zeros)],
  ]);
  /** @type {HTMLElement[]} */
  const parts = [list];
  if (stats.nan || stats.inf) {
    parts.unshift(made("p", "note warn", `${count(stats.nan ?? 0)} NaN and ${count(stats.inf ?? 0)} infinite elements`));
  }
  if (stats.histogram) parts.unshift(histogram(stats.histogram));
  return parts;
}

/** @param {{ low: number | null, high: number | null, counts: number[] }} histogram_ */
function histogram({ low, high, counts }) {
  const most = Math.max(1, ...counts);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${counts.length * 10} 80`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Histogram from ${number(low)} to ${number(high)}: ${counts.join(", ")}`);
  counts.forEach((each, at) => {
    const height = each ? Math.max(1.5, (78 * each) / most) : 0;
    const bar = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ x: at * 10 + 0.75, y: 80 - height, width: 8.5, height })) {
      bar.setAttribute(name, String(value));
    }
    const tip = document.createElementNS(SVG, "title");
    tip.textContent = count(each);
    bar.append(tip);
    svg.append(bar);
  });
  const figure = made("figure", "histogram");
  const ends = made("figcaption", "dim small");
  ends.append(made("span", "", number(low)), made("span", "", number(high)));
  figure.append(ends);
  figure.prepend(svg);
  return figure;
}
