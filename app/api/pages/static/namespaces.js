// The page of the namespaces: setting quotas.

import { ask, refuse, send, tell } from "./actions.js";
import { replaceParts } from "./parts.js";

const UNITS = /** @type {Record<string, number>} */ ({ "": 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 });
const SIZE = /^\s*([0-9]+(?:\.[0-9]+)?)\s*([kMGTP]?)B?\s*$/;

/** @param {string} text */
function bytes(text) {
  const found = SIZE.exec(text);
  return found ? Math.round(Number(found[1]) * (UNITS[found[2] ?? ""] ?? 1)) : Number.NaN;
}

/** @param {number} count */
function sizeText(count) {
  const [unit, size] = Object.entries(UNITS).findLast(([, size]) => count >= size && count % (size / 1000 || 1) === 0) ?? ["", 1];
  return `${count / size} ${unit}B`;
}

/** @param {HTMLElement} form @param {string} name @param {string} label @param {string} value @param {string} placeholder @param {string} pattern */
function field(form, name, label, value, placeholder, pattern) {
  const box = document.createElement("label");
  const input = document.createElement("input");
  Object.assign(input, { name, value, placeholder, pattern, autocomplete: "off" });
  box.append(label, input);
  form.append(box);
}

/** @param {HTMLButtonElement} button */
async function change(button) {
  const { name = "", address = "", bytes: limit = "", checkpoints = "" } = button.dataset;
  const given = await ask(`Quotas of ${name}`, "An empty field means no limit. What is there already stays.", "Set", (form) => {
    field(form, "bytes", "Most bytes in the store", limit && sizeText(Number(limit)), "500 GB", SIZE.source.slice(1, -1));
    field(form, "checkpoints", "Most checkpoints", checkpoints, "no limit", "\\s*[0-9]*\\s*");
  });
  if (!given) return;
  const [most, count] = [String(given.get("bytes")).trim(), String(given.get("checkpoints")).trim()];
  const json = { quota_bytes: most ? bytes(most) : null, quota_checkpoints: count ? Number(count) : null };
  const answer = await send("PUT", address, { json });
  if (!answer.ok) return refuse(answer);
  await replaceParts(new URL(location.href), ["rows"]);
  unhide();
  tell(`The quotas of ${name} are set.`);
}

function unhide() {
  for (const button of document.querySelectorAll("button.quota")) button.removeAttribute("hidden");
}

unhide();
document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("button.quota") : null;
  if (button instanceof HTMLButtonElement) void change(button);
});
