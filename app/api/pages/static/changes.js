// What may be changed of a checkpoint: aliases, metrics and tags, its pin, and its place in the trash.

import { ask, refuse, send, tell } from "./actions.js";

const section = document.getElementById("changes");

/** @param {HTMLElement} place */
function start(place) {
  const { model = "", checkpoint = "", version = "" } = place.dataset;
  const here = Number(version);
  const again = () => location.reload();

  /** @param {string} name */
  async function point(name) {
    const address = `${model}/aliases/${encodeURIComponent(name)}`;
    const now = await send("GET", address);
    if (!now.ok && now.json?.code !== "alias-not-found") return refuse(now);
    if (now.ok && now.json.version === here) return tell(`${name} is here already.`);
    const from = now.ok ? `It is version ${now.json.version} now. ` : "";
    const guarded = now.ok && now.json.protected ? "It is protected: only an admin's token moves it. " : "";
    const given = await ask(`Point ${name} to version ${here}?`, `${from}${guarded}Whoever asks for ${name} gets version ${here} from then on.`, now.ok ? "Move it" : "Make it", (form) => {
      const box = document.createElement("label");
      const input = document.createElement("input");
      Object.assign(input, { name: "note", placeholder: "why, for the history", autocomplete: "off" });
      box.append("Note", input);
      form.append(box);
    });
    if (!given) return;
    /** @type {Record<string, string>} */
    const headers = now.etag ? { "If-Match": now.etag } : { "If-None-Match": "*" };
    const note = String(given.get("note") ?? "").trim();
    const moved = await send("PUT", address, { json: note ? { ref: version, note } : { ref: version }, headers });
    if (moved.status === 412) return tell(`${name} has been moved by somebody else meanwhile. Look again, then decide.`);
    if (!moved.ok) return refuse(moved);
    tell(now.ok ? `${name}: version ${now.json.version} → ${here}` : `${name} is version ${here}.`, async () => {
      /** @type {Record<string, string>} */
      const unmoved = moved.etag ? { "If-Match": moved.etag } : {};
      const back = now.ok ? await send("POST", `${address}/rollback`, { headers: unmoved }) : await send("DELETE", address, { headers: unmoved });
      if (!back.ok) return refuse(back);
      tell(now.ok ? `${name} is version ${now.json.version} again.` : `${name} is gone again.`);
    });
  }

  async function edit() {
    const now = await send("GET", checkpoint);
    if (!now.ok) return refuse(now);
    const kinds = /** @type {const} */ (["metrics", "tags"]);
    const given = await ask("Metrics and tags", "An empty value removes a name. Epoch, step and loss are fixed at the upload.", "Save", (form) => {
      for (const kind of kinds) {
        const table = document.createElement("table");
        const caption = document.createElement("caption");
        caption.className = "sr-only";
        caption.textContent = kind;
        table.append(caption);
        for (const [name, text] of [...Object.entries(now.json[kind]), ["", ""]]) table.append(pair(kind, name, text));
        form.append(table);
      }
    });
    if (!given) return;
    /** @type {Record<string, Record<string, string | number | null>>} */
    const json = {};
    for (const kind of kinds) {
      const names = given.getAll(`${kind}-name`).map(String);
      const values = given.getAll(`${kind}-value`).map(String);
      const changed = /** @type {Record<string, string | number | null>} */ ({});
      names.forEach((name, index) => {
        const text = (values[index] ?? "").trim();
        const before = Object.hasOwn(now.json[kind], name) ? now.json[kind][name] : undefined;
        const unchanged = text === String(before ?? "");
        if (!name.trim() || unchanged) return;
        changed[name] = text === "" ? null : kind === "metrics" ? Number(text) : text;
      });
      if (Object.keys(changed).length) json[kind] = changed;
    }
    if (!Object.keys(json).length) return tell("Nothing has changed.");
    if (Object.values(json.metrics ?? {}).some((value) => Number.isNaN(value))) return tell("A metric must be a number. Nothing was changed.");
    const saved = await send("PATCH", checkpoint, { json, headers: now.etag ? { "If-Match": now.etag } : {} });
    if (saved.status === 412) return tell("Somebody else has changed this checkpoint meanwhile. Nothing was changed: look again.");
    if (!saved.ok) return refuse(saved);
    again();
  }

  /** @param {string} kind @param {string} name @param {unknown} text */
  function pair(kind, name, text) {
    const row = document.createElement("tr");
    for (const [part, value, label] of [["name", name, `Name of one of the ${kind}`], ["value", String(text ?? ""), `Value of ${name || `new ${kind}`}`]]) {
      const cell = document.createElement("td");
      const input = document.createElement("input");
      Object.assign(input, { name: `${kind}-${part}`, value, autocomplete: "off", placeholder: name ? "" : part === "name" ? `add ${kind}` : "", readOnly: part === "name" && name !== "" });
      input.setAttribute("aria-label", label ?? "");
      cell.append(input);
      row.append(cell);
    }
    return row;
  }

  async function pin() {
    const given = await ask("Pin this checkpoint?", "It stays, whatever the rules of retention say, and cannot be deleted.", "Pin", (form) => {
      const box = document.createElement("label");
      const input = document.createElement("input");
      Object.assign(input, { name: "reason", placeholder: "in the paper", autocomplete: "off" });
      box.append("Reason", input);
      form.append(box);
    });
    if (!given) return;
    const reason = String(given.get("reason") ?? "").trim();
    const done = await send("PUT", `${checkpoint}/pin`, { json: reason ? { reason } : {} });
    if (!done.ok) return refuse(done);
    again();
  }

  async function unpin() {
    const done = await send("DELETE", `${checkpoint}/pin`);
    if (!done.ok) return refuse(done);
    again();
  }

  async function remove() {
    if (!(await ask(`Move version ${here} to the trash?`, "It is gone for every reader. It can be restored until the trash is emptied.", "Move to the trash"))) return;
    const done = await send("DELETE", checkpoint);
    if (!done.ok) return refuse(done);
    place.hidden = true;
    tell(`Version ${here} is in the trash.`, async () => {
      const back = await send("POST", `${checkpoint}/restore`);
      if (!back.ok) return refuse(back);
      again();
    });
  }

  /** @param {string} alias */
  async function removeAlias(alias) {
    if (!(await ask(`Remove the alias ${alias}?`, `Whoever asks for ${alias} gets an error from then on.`, "Remove it"))) return;
    const done = await send("DELETE", `${model}/aliases/${encodeURIComponent(alias)}`);
    if (!done.ok) return refuse(done);
    again();
  }

  place.hidden = false;
  const form = /** @type {HTMLFormElement} */ (document.getElementById("alias-form"));
  const alias = /** @type {HTMLInputElement} */ (document.getElementById("alias"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void point(alias.value.trim());
  });
  alias.addEventListener("focus", async () => {
    const known = await send("GET", `${model}/aliases`);
    const names = (known.json?.items ?? []).map((/** @type {{ alias: string }} */ each) => new Option(each.alias));
    document.getElementById("alias-names")?.replaceChildren(...names);
  }, { once: true });
  for (const [id, action] of /** @type {const} */ ([["edit", edit], ["pin", pin], ["unpin", unpin], ["remove", remove]])) {
    document.getElementById(id)?.addEventListener("click", () => void action());
  }
  for (const button of document.querySelectorAll("button.remove-alias")) {
    button.addEventListener("click", () => void removeAlias(/** @type {HTMLElement} */ (button).dataset.alias ?? ""));
  }
}

if (section) start(section);
