// A map of bytes: each branch is as large as its tensors. A click goes into a branch; the tree beside it tells the same.

import { count, shown, size } from "./text.js";

/** @typedef {import("./tree.js").Node} Node */
/** @typedef {{ x: number, y: number, width: number, height: number }} Box */

const SVG = "http://www.w3.org/2000/svg";
const MOST_PARTS = 40;
const HUES = 8;
const LABEL = 17;
const LETTER = 6.6;

/**
 * Draw what is below `node` into `svg`, in its own pixels.
 * @param {SVGSVGElement} svg
 * @param {Node} node
 * @param {(node: Node) => void} open
 */
export function drawMap(svg, node, open) {
  const box = { x: 0, y: 0, width: svg.clientWidth, height: svg.clientHeight };
  svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  svg.setAttribute("aria-label", summary(node));
  svg.replaceChildren();
  layOut(largest(node), box, node.bytes, (part, place, number) => {
    const group = document.createElementNS(SVG, "g");
    group.dataset.hue = String(number % HUES);
    const label = `${shown(part.name, 60) || "(nothing)"} ${size(part.bytes)}`;
    const tip = document.createElementNS(SVG, "title");
    tip.textContent = `${label}, ${count(part.count)} ${part.count === 1 ? "tensor" : "tensors"}`;
    group.append(tip, rectangle(place, 1));
    const top = place.height > 2 * LABEL ? LABEL : 0;
    const inner = { x: place.x + 3, y: place.y + top + 1, width: place.width - 6, height: place.height - top - 4 };
    if (part.children.length && inner.width > 12 && inner.height > 12) {
      layOut(largest(part), inner, part.bytes, (_, small) => group.append(rectangle(small, 0.5)));
    }
    const letters = Math.floor((place.width - 10) / LETTER);
    if (letters > 3 && place.height > LABEL) {
      const text = document.createElementNS(SVG, "text");
      text.setAttribute("x", String(place.x + 6));
      text.setAttribute("y", String(place.y + 13));
      text.textContent = label.length <= letters ? label : shown(part.name, letters);
      group.append(text);
    }
    group.addEventListener("click", () => open(part));
    svg.append(group);
  });
}

/** @param {Node} node */
function largest(node) {
  return node.children
    .filter((child) => child.bytes > 0)
    .sort((one, other) => other.bytes - one.bytes)
    .slice(0, MOST_PARTS);
}

/** @param {Node} node */
function summary(node) {
  const parts = largest(node).slice(0, 5);
  const texts = parts.map((part) => `${shown(part.name, 40)} ${Math.round((100 * part.bytes) / Math.max(1, node.bytes))} %`);
  return `Map of ${size(node.bytes)}: ${texts.join(", ") || "no bytes"}. The tree below has the same.`;
}

/**
 * @param {Box} box
 * @param {number} gap
 */
function rectangle(box, gap) {
  const made = document.createElementNS(SVG, "rect");
  made.setAttribute("x", String(box.x + gap));
  made.setAttribute("y", String(box.y + gap));
  made.setAttribute("width", String(Math.max(0, box.width - 2 * gap)));
  made.setAttribute("height", String(Math.max(0, box.height - 2 * gap)));
  return made;
}

/**
 * Fill `box` with parts, largest first, in strips along its shorter side, each about as wide as high.
 * @param {Node[]} parts
 * @param {Box} box
 * @param {number} total what the whole box stands for; small parts that are left out leave a gap
 * @param {(part: Node, place: Box, number: number) => void} draw
 */
function layOut(parts, box, total, draw) {
  const scale = (box.width * box.height) / Math.max(1, total);
  let { x, y, width, height } = box;
  for (let start = 0; start < parts.length; ) {
    const side = Math.min(width, height);
    let end = start + 1;
    let area = /** @type {Node} */ (parts[start]).bytes * scale;
    while (end < parts.length) {
      const next = area + /** @type {Node} */ (parts[end]).bytes * scale;
      if (worst(parts, start, end + 1, next, side, scale) > worst(parts, start, end, area, side, scale)) break;
      area = next;
      end += 1;
    }
    const thickness = side > 0 ? area / side : 0;
    let along = 0;
    for (let at = start; at < end; at += 1) {
      const part = /** @type {Node} */ (parts[at]);
      const length = thickness > 0 ? (part.bytes * scale) / thickness : 0;
      const place =
        width >= height
          ? { x, y: y + along, width: thickness, height: length }
          : { x: x + along, y, width: length, height: thickness };
      draw(part, place, at);
      along += length;
    }
    if (width >= height) [x, width] = [x + thickness, width - thickness];
    else [y, height] = [y + thickness, height - thickness];
    start = end;
  }
}

/**
 * The worst ratio of sides in a strip of parts.
 * @param {Node[]} parts
 * @param {number} start
 * @param {number} end
 * @param {number} area
 * @param {number} side
 * @param {number} scale
 */
function worst(parts, start, end, area, side, scale) {
  const largestPart = /** @type {Node} */ (parts[start]).bytes * scale;
  const smallestPart = /** @type {Node} */ (parts[end - 1]).bytes * scale;
  const square = side * side;
  return Math.max((square * largestPart) / (area * area), (area * area) / (square * smallestPart));
}
