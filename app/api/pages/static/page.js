// What every page has: the switch of the theme, times that go on, and the server's address as the browser knows it.

const THEMES = /** @type {const} */ (["system", "light", "dark"]);

/** @returns {"system" | "light" | "dark"} */
function theme() {
  const kept = document.documentElement.dataset.theme;
  return kept === "light" || kept === "dark" ? kept : "system";
}

/** @param {HTMLElement} button */
function showTheme(button) {
  const name = button.querySelector(".theme-name");
  if (name) name.textContent = `Theme: ${theme()}`;
  button.dataset.shows = theme();
}

const button = document.getElementById("theme");
if (button) {
  button.hidden = false;
  showTheme(button);
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
    if (next === "light" || next === "dark") {
      document.documentElement.dataset.theme = next;
      localStorage.setItem("stateroom-theme", next);
    } else {
      delete document.documentElement.dataset.theme;
      localStorage.removeItem("stateroom-theme");
    }
    showTheme(button);
    document.dispatchEvent(new CustomEvent("theme"));
  });
}

// A proxy may serve us under another name, and below a path, which only the browser knows.
const root = new URL(document.documentElement.dataset.root ?? "./", location.href);
for (const place of document.querySelectorAll(".base")) place.textContent = root.href.replace(/\/$/, "");
