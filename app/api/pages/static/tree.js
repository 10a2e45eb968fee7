// The tensors of a component as a tree by the dots of their keys, with the bytes of each branch. Pure.

/**
 * @template V
 * @typedef {{ values: V[], at: number[] }} Column
 */
/**
 * @typedef {object} Tensors the columns of tensors.json
 * @property {number} of
 * @property {string[]} key
 * @property {number[]} bytes
 * @property {Column<string>} dtype
 * @property {Column<string>} device
 * @property {Column<number[] | null>} shape
 * @property {Column<[number, number, number] | null>} shared number, bytes and users of a storage that several tensors use
 */
/**
 * @typedef {object} Node
 * @property {string} name
 * @property {string} path what the keys below begin with; a tensor's key
 * @property {Node | null} parent
 * @property {Node[]} children
 * @property {number} tensor the tensor's number; -1 for a branch
 * @property {number} bytes each storage counts once
 * @property {number} count tensors
 * @property {number} place among its siblings, from 1
 * @property {boolean} open
 */

const MOST_LEVELS = 24;
const FIRST_ROWS = 40;
const MOST_OF_A_PATTERN = 500;

/**
 * @param {Column<V>} column
 * @param {number} tensor
 * @template V
 * @returns {V}
 */
export function valueOf(column, tensor) {
  return /** @type {V} */ (column.values[/** @type {number} */ (column.at[tensor])]);
}

/**
 * Build the tree of some tensors. Its first rows are open.
 * @param {Tensors} tensors
 * @param {Iterable<number>} numbers
 * @returns {Node}
 */
export function treeOf(tensors, numbers) {
  const root = node("", "", null, -1);
  /** @type {Map<Node, Map<string, Node>>} */
  const branches = new Map();
  /** @type {Map<number, number>} */
  const unused = new Map();
  for (const tensor of numbers) {
    const key = /** @type {string} */ (tensors.key[tensor]);
    let at = root;
    let start = 0;
    for (let level = 1; level < MOST_LEVELS; level += 1) {
      const dot = key.indexOf(".", start);
      if (dot < 0) break;
      const part = key.slice(start, dot);
      start = dot + 1;
      const known = branches.get(at) ?? new Map();
      branches.set(at, known);
      const next = known.get(part) ?? node(part, key.slice(0, start), at, -1);
      known.set(part, next);
      at = next;
    }
    const leaf = node(key.slice(start), key, at, tensor);
    const bytes = bytesOnce(tensors, tensor, unused);
    for (let each = /** @type {Node | null} */ (leaf); each; each = each.parent) {
      each.bytes += bytes;
      each.count += 1;
    }
  }
  shorten(root);
  openFirst(root);
  return root;
}

/**
 * @param {string} name
 * @param {string} path
 * @param {Node | null} parent
 * @param {number} tensor
 * @returns {Node}
 */
function node(name, path, parent, tensor) {
  const made = { name, path, parent, children: [], tensor, bytes: 0, count: 0, place: 1, open: false };
  if (parent) made.place = parent.children.push(made);
  return made;
}

/**
 * The bytes of a tensor that no tensor before it has.
 * @param {Tensors} tensors
 * @param {number} tensor
 * @param {Map<number, number>} unused bytes of shared storages that are left
 */
function bytesOnce(tensors, tensor, unused) {
  const bytes = /** @type {number} */ (tensors.bytes[tensor]);
  const shared = valueOf(tensors.shared, tensor);
  if (!shared) return bytes;
  const left = unused.get(shared[0]) ?? shared[1];
  const own = Math.min(bytes, left);
  unused.set(shared[0], left - own);
  return own;
}

/**
 * Make one branch of each line of branches that have no other child.
 * @param {Node} root
 */
function shorten(root) {
  const waiting = [root];
  for (let at = waiting.pop(); at; at = waiting.pop()) {
    for (const child of at.children) {
      let only = child.children.length === 1 ? child.children[0] : undefined;
      while (only && only.tensor < 0) {
        child.name += `.${only.name}`;
        child.path = only.path;
        child.children = only.children;
        for (const each of child.children) each.parent = child;
        only = child.children.length === 1 ? child.children[0] : undefined;
      }
      if (child.tensor < 0) waiting.push(child);
    }
  }
}

/**
 * Open branches, from the root on, as long as few rows result.
 * @param {Node} root
 */
function openFirst(root) {
  let rows = root.children.length;
  root.open = true;
  const queue = root.children.filter((child) => child.tensor < 0);
  for (let at = queue.shift(); at; at = queue.shift()) {
    if (rows + at.children.length > FIRST_ROWS) return;
    at.open = true;
    rows += at.children.length;
    queue.push(...at.children.filter((child) => child.tensor < 0));
  }
}

/**
 * Open or close all branches below the root.
 * @param {Node} root
 * @param {boolean} open
 */
export function openAll(root, open) {
  const waiting = [...root.children];
  for (let at = waiting.pop(); at; at = waiting.pop()) {
    if (at.tensor >= 0) continue;
    at.open = open;
    for (const child of at.children) waiting.push(child);
  }
}

/**
 * The rows that are to be seen: all below open branches.
 * @param {Node} root
 * @returns {Node[]}
 */
export function rowsOf(root) {
  const rows = [];
  const waiting = [...root.children].reverse();
  for (let at = waiting.pop(); at; at = waiting.pop()) {
    rows.push(at);
    if (at.open) for (let child = at.children.length - 1; child >= 0; child -= 1) waiting.push(/** @type {Node} */ (at.children[child]));
  }
  return rows;
}

/** @param {Node} of */
export function levelOf(of) {
  let level = 0;
  for (let at = of.parent; at; at = at.parent) level += 1;
  return level;
}

/**
 * The pattern that matches just a tensor's key, or all keys of a branch. A pattern of thousands of characters that are
 * not all plain is more than the server compiles, so it is cut, and may match others that begin alike.
 * @param {Node} of
 */
export function patternOf(of) {
  const isPlain = !/[*?[\x00-\x1f\x7f]|^re:/.test(of.path);
  const isCut = !isPlain && of.path.length > MOST_OF_A_PATTERN;
  const text = (isCut ? of.path.slice(0, MOST_OF_A_PATTERN) : of.path).replace(/[*?[]/g, "[$&]").replace(/[\x00-\x1f\x7f]/g, "?");
  const pattern = text.startsWith("re:") ? `[r]${text.slice(1)}` : text;
  return isCut || of.tensor < 0 ? `${pattern}*` : pattern;
}
