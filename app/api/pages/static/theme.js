// Applies the theme before the first paint, so it is a plain script, and no module.
{
  const kept = localStorage.getItem("stateroom-theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
}
