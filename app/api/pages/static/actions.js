// Changes by way of the API: what is asked before, what is told after, and how it is undone.

import { replaceParts } from "./parts.js";

/**
 * An answer of the API. `detail` is what it says if it refuses.
 * @typedef {{ ok: boolean, status: number, detail: string, etag: string | null, json: any }} Answer
 */

/**
 * Send a request to the API.
 * @param {string} method
 * @param {string} address
 * @param {{ json?: unknown, headers?: Record<string, string> }} [more]
 * @returns {Promise<Answer>}
 */
export async function send(method, address, { json, headers = {} } = {}) {
  /** @type {Record<string, string>} */
  const all = json === undefined ? headers : { "Content-Type": "application/json", ...headers };
  try {
    const answer = await fetch(new URL(address, location.href), {
      method,
      headers: { Accept: "application/json", ...all },
      body: json === undefined ? null : JSON.stringify(json),
    });
    const isJson = answer.headers.get("Content-Type")?.includes("json");
    const said = isJson ? await answer.json() : null;
    const detail = answer.ok ? "" : (said?.detail ?? `The server answered ${answer.status}.`);
    return { ok: answer.ok, status: answer.status, detail, etag: answer.headers.get("ETag"), json: said };
  } catch {
    return { ok: false, status: 0, detail: "The server cannot be reached.", etag: null, json: null };
  }
}

/**
 * Tell the visitor something, for a while; with `undo`, beside a button that does it.
 * @param {string} text
 * @param {() => void} [undo]
 */
export function tell(text, undo) {
  const told = document.createElement("div");
  const words = document.createElement("span");
  words.textContent = text;
  told.append(words);
  if (undo) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Undo";
    button.addEventListener("click", () => {
      told.remove();
      undo();
    });
    told.append(button);
  }
  place().append(told);
  setTimeout(() => told.remove(), undo ? 30_000 : 8_000);
}

function place() {
  const there = document.querySelector(".toasts");
  if (there) return there;
  const made = document.createElement("div");
  made.className = "toasts";
  made.setAttribute("role", "status");
  document.body.append(made);
  return made;
}

/**
 * Open a dialog, and return the values of its fields, or null if it was cancelled.
 * @param {string} title
 * @param {string} why
 * @param {string} verb the label of the button that goes on
 * @param {(body: HTMLElement) => void} [fill] adds fields
 * @returns {Promise<FormData | null>}
 */
export function ask(title, why, verb, fill) {
  const dialog = document.createElement("dialog");
  const form = document.createElement("form");
  form.method = "dialog";
  const heading = document.createElement("h2");
  heading.id = "dialog-title";
  heading.textContent = title;
  dialog.setAttribute("aria-labelledby", heading.id);
  const text = document.createElement("p");
  text.textContent = why;
  const buttons = document.createElement("div");
  buttons.className = "buttons";
  const cancel = document.createElement("button");
  cancel.type = "button";
  cancel.textContent = "Cancel";
  cancel.addEventListener("click", () => dialog.close());
  const go = document.createElement("button");
  go.className = "primary";
  go.value = "go";
  go.textContent = verb;
  buttons.append(cancel, go);
  form.append(heading, text);
  fill?.(form);
  form.append(buttons);
  dialog.append(form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "go" ? new FormData(form) : null);
      dialog.remove();
    });
  });
}

/**
 * Show a refusal. A session that has ended leads to the sign-in.
 * @param {Answer} answer
 */
export function refuse(answer) {
  if (answer.status === 401) location.reload();
  else tell(answer.detail);
}

/** @param {HTMLButtonElement} button */
async function act(button) {
  const { method = "POST", address = "", confirm, why = "", verb = "Go on", told = "Done.", parts = "" } = button.dataset;
  if (confirm && !(await ask(confirm, why, verb))) return;
  button.disabled = true;
  const answer = await send(method, address);
  button.disabled = false;
  if (!answer.ok) return refuse(answer);
  await replaceParts(new URL(location.href), parts.split(" "));
  unhide();
  tell(told);
}

/** Buttons that need this script are hidden without it. */
function unhide() {
  for (const button of document.querySelectorAll("button[data-method]")) button.removeAttribute("hidden");
}

unhide();
document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("button[data-method]") : null;
  if (button instanceof HTMLButtonElement) void act(button);
});
