// The page that uploads files: one after another, each with its progress and with what the server says.

import { size } from "./text.js";

const form = /** @type {HTMLFormElement} */ (document.getElementById("upload"));
const drop = /** @type {HTMLElement} */ (document.getElementById("drop"));
const sent = /** @type {HTMLElement} */ (document.getElementById("sent"));
const files = /** @type {HTMLInputElement} */ (form.elements.namedItem("files"));

let last = Promise.resolve();

/** @param {string} name */
function value(name) {
  return /** @type {HTMLInputElement} */ (form.elements.namedItem(name)).value.trim();
}

/** @param {Iterable<File>} chosen */
function take(chosen) {
  if (!form.reportValidity()) return;
  const [model, run] = [value("model"), value("run")];
  for (const file of chosen) {
    const line = listed(file);
    last = last.then(() => send(file, model, run, line));
  }
}

/** @param {File} file */
function listed(file) {
  const item = document.createElement("li");
  const name = document.createElement("strong");
  name.textContent = file.name;
  const state = document.createElement("span");
  state.className = "dim";
  state.textContent = `${size(file.size)}, waits`;
  const bar = document.createElement("progress");
  bar.max = Math.max(1, file.size);
  bar.value = 0;
  bar.setAttribute("aria-label", `Progress of ${file.name}`);
  const words = document.createElement("p");
  words.className = "words small";
  item.append(name, state, bar, words);
  sent.prepend(item);
  return { item, state, bar, words };
}

/**
 * Send a file. A request of `fetch` would not say how far it is.
 * @param {File} file
 * @param {string} model
 * @param {string} run
 * @param {ReturnType<typeof listed>} line
 * @returns {Promise<void>}
 */
function send(file, model, run, line) {
  return new Promise((resolve) => {
    const address = new URL(`${form.dataset.api}${model}/checkpoints`, location.href);
    if (run) address.searchParams.set("run", run);
    const request = new XMLHttpRequest();
    request.open("POST", address);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => {
      line.bar.value = event.loaded;
      line.state.textContent = event.loaded < file.size ? `${size(event.loaded)} of ${size(file.size)}` : "is being checked";
    };
    request.onload = () => {
      const said = request.response;
      line.bar.remove();
      if (request.status === 201) {
        const link = document.createElement("a");
        link.href = `${form.dataset.page}${model}/checkpoints/${said.version}`;
        link.textContent = `${said.model}@${said.version}`;
        line.state.replaceChildren(link);
        line.words.textContent = `${size(said.bytes)}, ${size(said.new_bytes)} of it new`;
      } else {
        line.state.textContent = "was refused";
        line.state.className = "bad";
        line.words.textContent = said?.detail ?? `The server answered ${request.status}.`;
      }
      resolve();
    };
    request.onerror = () => {
      line.bar.remove();
      line.state.textContent = "was not sent";
      line.state.className = "bad";
      line.words.textContent = "The connection broke off. Nothing of the file is stored; choose it again.";
      resolve();
    };
    request.send(file);
  });
}

form.hidden = false;
form.addEventListener("submit", (event) => event.preventDefault());
files.addEventListener("change", () => {
  take([...(files.files ?? [])]);
  files.value = "";
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
  });
}
document.addEventListener("drop", (event) => take([...(event.dataTransfer?.files ?? [])]));
addEventListener("beforeunload", (event) => {
  if (document.querySelector(".sent progress")) event.preventDefault();
});
