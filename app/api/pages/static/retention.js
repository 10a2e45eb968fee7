// The preview of rules: what would go, and what that frees.

/**
 * @param {HTMLFormElement} form
 * @param {HTMLElement} answer
 * @param {string} api the model's address in the API
 */
export function previewing(form, answer, api) {
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const rules = rulesOf(new FormData(form));
    const sent = await fetch(`${api}/retention/preview`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ retention: rules }),
    });
    const found = await sent.json();
    answer.replaceChildren(...(sent.ok ? told(found) : [line(found.detail, "bad")]));
  });
}

/** @param {FormData} form */
function rulesOf(form) {
  /** @param {string} name */
  const text = (name) => String(form.get(name) ?? "").trim();
  /** @type {Record<string, unknown>} */
  const rules = {};
  if (text("keep_last")) rules.keep_last = Number(text("keep_last"));
  if (text("best_count")) rules.keep_best = [{ by: text("best_by"), count: Number(text("best_count")) }];
  if (text("keep_every")) rules.keep_every = { epochs: Number(text("keep_every")) };
  if (text("keep_for")) rules.keep_for = text("keep_for");
  return rules;
}

/**
 * @param {{ trashed_count: number, kept_count: number, trash_bytes: number, warnings: string[],
 *   trashed: { version: number }[] }} preview
 */
function told(preview) {
  const size = Intl.NumberFormat("en", { style: "unit", unit: "megabyte", maximumFractionDigits: 1 });
  const first = preview.trashed.slice(0, 20).map((each) => each.version);
  const more = preview.trashed_count > first.length ? ", …" : "";
  return [
    line(`${preview.trashed_count} checkpoints would go to the trash, ${preview.kept_count} would stay.`, "strong"),
    line(`Once the trash is purged, that frees ${size.format(preview.trash_bytes / 1e6)}.`, ""),
    ...(first.length ? [line(`Versions ${first.join(", ")}${more}`, "dim")] : []),
    ...preview.warnings.map((warning) => line(warning, "dim")),
  ];
}

/**
 * @param {string} text
 * @param {string} kind
 */
function line(text, kind) {
  const made = document.createElement("p");
  made.textContent = text;
  made.className = kind;
  return made;
}
