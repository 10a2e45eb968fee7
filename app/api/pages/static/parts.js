// Replacing a part of a page by the same part of another page of the server, so that the rest stays as it is.

let asked = 0;

/**
 * Replace the elements of `ids` by those of the page at `address`. Of several calls, the last one counts.
 * @param {URL} address
 * @param {string[]} ids
 * @returns {Promise<boolean>} whether that was done
 */
export async function replaceParts(address, ids) {
  const mine = ++asked;
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  if (answer.redirected) {
    location.assign(answer.url); // to the sign-in
    return false;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (mine !== asked) return false;
  for (const id of ids) {
    const part = page.getElementById(id);
    if (part) document.getElementById(id)?.replaceWith(document.adoptNode(part));
  }
  return true;
}

/**
 * Let a form show its answer as one types, in the parts `ids`.
 * @param {HTMLFormElement} form
 * @param {HTMLInputElement} input
 * @param {string[]} ids
 */
export function asOneTypes(form, input, ids) {
  let timer = 0;
  const show = async () => {
    clearTimeout(timer);
    const address = new URL(form.action);
    for (const [name, value] of new FormData(form)) {
      if (typeof value === "string" && value.trim()) address.searchParams.set(name, value.trim());
    }
    if (await replaceParts(address, ids)) history.replaceState(null, "", address);
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(show, 150);
  });
  if (input.value !== input.defaultValue) void show(); // typed before this script had come
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    show();
  });
}
