// The page of events: the newest appear by themselves, and the choice of a kind needs no button.

import { follow } from "./live.js";
import { replaceParts } from "./parts.js";

const rows = document.getElementById("rows");
const kind = /** @type {HTMLSelectElement | null} */ (document.getElementById("kind"));

if (kind) {
  kind.form?.querySelector("button")?.setAttribute("hidden", "");
  kind.addEventListener("change", () => kind.form?.submit());
}
if (rows?.dataset.api) follow(rows.dataset.api, rows.dataset.news ?? "newest", () => replaceParts(new URL(location.href), ["rows"]));
