// The search of models, as one types. Without this script, the form does the same with a new page.

const form = /** @type {HTMLFormElement | null} */ (document.querySelector("form.search"));
const input = /** @type {HTMLInputElement | null} */ (document.getElementById("q"));

let asked = 0;

/** @param {string} search */
async function show(search) {
  const mine = ++asked;
  const address = new URL(form?.action ?? "", location.href);
  if (search) address.searchParams.set("q", search);
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  if (answer.redirected || !answer.ok) return location.assign(address);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const found = page.getElementById("found");
  if (mine !== asked || !found) return; // something else was typed meanwhile
  document.getElementById("found")?.replaceWith(document.adoptNode(found));
  history.replaceState(null, "", address);
}

if (form && input) {
  let timer = 0;
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => show(input.value.trim()), 120);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    show(input.value.trim());
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLElement && /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
    if (event.key === "/" && !typing) {
      event.preventDefault();
      input.focus();
    }
  });
}
