// A tree of any length as a grid: only the rows in sight are elements. Arrow keys move, open and close; Enter chooses.

import { count, made, shown, size } from "./text.js";
import { levelOf, rowsOf, valueOf } from "./tree.js";

/** @typedef {import("./tree.js").Node} Node */
/** @typedef {import("./tree.js").Tensors} Tensors */

const ROW = 32;
const AROUND = 10;
const MOST_INDENTS = 10;

export class TreeGrid {
  /**
   * @param {HTMLElement} box the element that scrolls
   * @param {(node: Node) => void} chosen is told which row was chosen
   */
  constructor(box, chosen) {
    this.box = box;
    this.chosen = chosen;
    this.body = /** @type {HTMLElement} */ (box.querySelector(".grid-body"));
    this.head = /** @type {HTMLElement} */ (box.querySelector(".grid-head"));
    /** @type {Tensors | null} */
    this.tensors = null;
    /** @type {Node | null} */
    this.root = null;
    /** @type {Node[]} */
    this.rows = [];
    /** @type {Node | null} */
    this.selected = null;
    this.active = 0;
    /** @type {Map<number, HTMLElement>} */
    this.drawn = new Map();
    this.waiting = false;
    box.addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => this.later()).observe(box);
    box.addEventListener("keydown", (event) => this.pressed(event));
    this.body.addEventListener("click", (event) => this.clicked(event));
  }

  /**
   * @param {Tensors} tensors
   * @param {Node} root
   */
  show(tensors, root) {
    this.tensors = tensors;
    this.root = root;
    this.active = 0;
    this.box.scrollTop = 0;
    this.relist();
  }

  /** Draw all again, after branches were opened or closed. */
  relist() {
    this.rows = this.root ? rowsOf(this.root) : [];
    this.active = Math.max(0, Math.min(this.active, this.rows.length - 1));
    this.box.style.setProperty("--rows", String(this.rows.length));
    this.body.style.height = `${this.rows.length * ROW}px`;
    this.box.setAttribute("aria-rowcount", String(this.rows.length + 1));
    for (const row of this.drawn.values()) row.remove();
    this.drawn.clear();
    this.draw();
  }

  /**
   * Open the branches above a node, and go to it.
   * @param {Node} node
   */
  reveal(node) {
    for (let at = node.parent; at; at = at.parent) at.open = true;
    if (node.tensor < 0) node.open = true;
    this.relist();
    this.goTo(this.rows.indexOf(node), false);
  }

  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - AROUND);
    const last = Math.min(this.rows.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + AROUND);
    for (const [at, row] of this.drawn) {
      if ((at < first || at >= last) && at !== this.active) {
        row.remove();
        this.drawn.delete(at);
      }
    }
    for (let at = first; at < last; at += 1) this.drawRow(at);
    if (this.rows.length) this.drawRow(this.active);
  }

  /** @param {number} at */
  drawRow(at) {
    const node = this.rows[at];
    const tensors = this.tensors;
    if (!node || !tensors || this.drawn.has(at)) return;
    const isBranch = node.tensor < 0;
    const level = levelOf(node);
    const row = made("div", isBranch ? "grid-row branch" : "grid-row");
    row.setAttribute("role", "row");
    row.setAttribute("aria-rowindex", String(at + 2));
    row.setAttribute("aria-level", String(level));
    row.setAttribute("aria-posinset", String(node.place));
    row.setAttribute("aria-setsize", String(node.parent?.children.length ?? 1));
    if (isBranch) row.setAttribute("aria-expanded", String(node.open));
    row.setAttribute("aria-selected", String(node === this.selected));
    row.tabIndex = at === this.active ? 0 : -1;
    row.dataset.at = String(at);
    row.style.transform = `translateY(${at * ROW}px)`;
    const name = this.cell(row, "grid-name", "");
    name.style.paddingInlineStart = `${Math.min(level - 1, MOST_INDENTS) * 14}px`;
    name.append(made("i", "twisty"));
    const text = made("bdi", "", shown(node.name) || "(nothing)");
    if (node.name.length > 60) text.title = shown(node.path, 1000);
    name.append(text);
    if (isBranch) {
      name.append(made("span", "dim small", `${count(node.count)}`));
      this.cell(row, "grid-shape", "");
      this.cell(row, "grid-dtype", "");
      this.cell(row, "grid-device", "");
    } else {
      const shape = valueOf(tensors.shape, node.tensor);
      const shared = valueOf(tensors.shared, node.tensor);
      if (shared) {
        const mark = made("span", "chip", "shared");
        mark.title = `${shared[2]} tensors use the same storage of ${size(shared[1])}`;
        name.append(mark);
      }
      this.cell(row, "grid-shape", shapeText(shape));
      this.cell(row, "grid-dtype", valueOf(tensors.dtype, node.tensor));
      this.cell(row, "grid-device", shown(valueOf(tensors.device, node.tensor), 40));
    }
    const bytes = isBranch ? node.bytes : /** @type {number} */ (tensors.bytes[node.tensor]);
    const last = this.cell(row, "grid-size", "");
    const bar = made("i", "bar");
    bar.style.setProperty("--part", String(node.bytes / Math.max(1, this.root?.bytes ?? 1)));
    last.append(bar, size(bytes));
    this.drawn.set(at, row);
    this.body.append(row);
  }

  /**
   * @param {HTMLElement} row
   * @param {string} name
   * @param {string} text
   */
  cell(row, name, text) {
    const cell = made("span", name, text);
    cell.setAttribute("role", "gridcell");
    row.append(cell);
    return cell;
  }

  /**
   * @param {number} at
   * @param {boolean} [focus]
   */
  goTo(at, focus = true) {
    const next = Math.max(0, Math.min(at, this.rows.length - 1));
    this.drawn.get(this.active)?.setAttribute("tabindex", "-1");
    this.active = next;
    const top = next * ROW;
    const room = this.box.clientHeight - this.head.offsetHeight - ROW;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top > this.box.scrollTop + room) this.box.scrollTop = top - room;
    this.draw();
    const row = this.drawn.get(next);
    row?.setAttribute("tabindex", "0");
    if (focus) row?.focus({ preventScroll: true });
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    const node = this.rows[this.active];
    if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW) - 2);
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowDown: () => this.goTo(this.active + 1),
      ArrowUp: () => this.goTo(this.active - 1),
      PageDown: () => this.goTo(this.active + page),
      PageUp: () => this.goTo(this.active - page),
      Home: () => this.goTo(0),
      End: () => this.goTo(this.rows.length - 1),
      ArrowRight: () => (node.tensor < 0 && !node.open ? this.toggle(node) : this.goTo(this.active + 1)),
      ArrowLeft: () => this.outwards(node),
      Enter: () => this.choose(node),
      " ": () => this.choose(node),
    };
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** @param {Node} node */
  outwards(node) {
    if (node.open) this.toggle(node);
    else if (node.parent?.parent) this.goTo(this.rows.indexOf(node.parent));
  }

  /** @param {Node} node */
  toggle(node) {
    node.open = !node.open;
    this.relist();
    this.goTo(this.rows.indexOf(node));
  }

  /** @param {Node} node */
  choose(node) {
    this.selected = node;
    if (node.tensor < 0) node.open = !node.open;
    this.relist();
    this.goTo(this.rows.indexOf(node));
    this.chosen(node);
  }

  /** @param {MouseEvent} event */
  clicked(event) {
    const row = event.target instanceof Element ? event.target.closest(".grid-row") : null;
    const node = row instanceof HTMLElement ? this.rows[Number(row.dataset.at)] : undefined;
    if (node) this.choose(node);
  }
}

/** @param {number[] | null} shape */
export function shapeText(shape) {
  if (shape === null) return "not known";
  return `[${shape.join(", ")}]`;
}
