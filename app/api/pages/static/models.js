// The search of models, as one types. Without this script, the form does the same with a new page.

import { asOneTypes } from "./parts.js";

const form = document.querySelector("form.search");
const input = document.getElementById("q");

if (form instanceof HTMLFormElement && input instanceof HTMLInputElement) {
  asOneTypes(form, input, ["found"]);
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLElement && /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
    if (event.key === "/" && !typing) {
      event.preventDefault();
      input.focus();
    }
  });
}
