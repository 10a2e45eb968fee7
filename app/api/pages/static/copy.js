// Buttons that copy a text: that of the element which they name, or one that a script gives them.

const SECONDS = 1.6;

/**
 * @param {HTMLButtonElement} button
 * @param {() => string} text
 */
export function copies(button, text) {
  const label = button.textContent ?? "";
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text())) ? "Copied" : "Select it and copy";
    setTimeout(() => (button.textContent = label), SECONDS * 1000);
  });
}

/**
 * Copy a text. A page without https has no clipboard, but may copy what is selected.
 * @param {string} text
 */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

for (const button of document.querySelectorAll("button[data-copies]")) {
  if (!(button instanceof HTMLButtonElement)) continue;
  copies(button, () => document.getElementById(button.dataset.copies ?? "")?.textContent ?? "");
}
