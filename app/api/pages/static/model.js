// The page of a model: its charts, its table, the preview of rules, and news.

import { Chart, library } from "./chart.js";
import { fetchCurves, runName } from "./curves.js";
import { follow } from "./live.js";
import { asOneTypes, replaceParts } from "./parts.js";
import { previewing } from "./retention.js";

const COLORS = 8;

const section = /** @type {HTMLElement} */ (document.getElementById("curves"));
const api = section.dataset.api ?? "";
const page = section.dataset.page ?? "";
const axis = /** @type {HTMLSelectElement} */ (document.getElementById("axis"));
const smoothing = /** @type {HTMLInputElement} */ (document.getElementById("smoothing"));
const log = /** @type {HTMLInputElement} */ (document.getElementById("log"));
const unzoom = /** @type {HTMLButtonElement} */ (document.getElementById("unzoom"));
const runsBox = /** @type {HTMLFieldSetElement} */ (document.getElementById("runs"));
const metricsBox = /** @type {HTMLFieldSetElement} */ (document.getElementById("metrics"));
const chartsBox = /** @type {HTMLElement} */ (document.getElementById("charts"));

/** @type {Map<string, Chart>} */
const charts = new Map();
/** @type {import("./curves.js").Curves | null} */
let found = null;
/** @type {number[] | null} */
let shownRuns = null;
/** @type {[number, number] | null} */
let between = null;
let asked = 0;

/** @param {number} run */
function color(run) {
  const swatch = runsBox.querySelector(`[data-color="${run % COLORS}"]`) ?? probe(run % COLORS);
  return getComputedStyle(swatch).color;
}

/** @param {number} number */
function probe(number) {
  const made = document.createElement("i");
  made.dataset.color = String(number);
  made.className = "probe";
  runsBox.append(made);
  return made;
}

function wantedMetrics() {
  return [...metricsBox.querySelectorAll("input:checked")].map((box) => /** @type {HTMLInputElement} */ (box).value);
}

async function load() {
  const mine = ++asked;
  const metrics = wantedMetrics();
  chartsBox.setAttribute("aria-busy", "true");
  try {
    const now = await fetchCurves(page, { metrics: metrics.length ? metrics : ["loss"], x: axis.value, runs: shownRuns, between });
    if (mine !== asked) return;
    found = now;
    listRuns();
    draw();
    performance.mark("curves");
  } finally {
    if (mine === asked) chartsBox.setAttribute("aria-busy", "false");
  }
}

function draw() {
  const now = found;
  if (!now) return;
  const wanted = new Set(wantedMetrics());
  for (const [metric, chart] of charts) {
    if (!wanted.has(metric)) {
      chart.remove();
      charts.delete(metric);
    }
  }
  const look = {
    x: now.x,
    smoothing: Number(smoothing.value),
    log: log.checked,
    colors: color,
    /** @param {number} version */
    open: (version) => location.assign(`${page}/checkpoints/${version}`),
    /** @param {[number, number]} ends */
    zoom: (ends) => {
      between = ends;
      unzoom.hidden = false;
      void load();
    },
  };
  for (const metric of wanted) {
    const chart = charts.get(metric) ?? new Chart(chartsBox, metric, look);
    charts.set(metric, chart);
    chart.look = look;
    chart.draw(now.curves.filter((curve) => curve.metric === metric), now.runs, false);
  }
}

/** List the runs, each with a switch; the boxes that are there already stay, and so does the focus. */
function listRuns() {
  const now = found;
  if (!now) return;
  const shown = new Set(now.shown);
  runsBox.hidden = now.runs.length < 2;
  const listed = new Set([...runsBox.querySelectorAll("input")].map((box) => Number(box.value)));
  now.runs.forEach((run, number) => {
    if (listed.has(number) || (number >= 60 && !shown.has(number))) return;
    const label = document.createElement("label");
    label.className = "chip run-chip";
    const box = document.createElement("input");
    box.type = "checkbox";
    box.value = String(number);
    box.checked = shown.has(number);
    const swatch = document.createElement("i");
    swatch.dataset.color = String(number % COLORS);
    swatch.className = number % (2 * COLORS) >= COLORS ? "dashed" : "";
    const name = document.createElement("bdi");
    name.textContent = runName(run);
    const count = document.createElement("span");
    count.className = "dim";
    count.textContent = String(run.checkpoints);
    label.append(box, swatch, name, count);
    runsBox.append(label);
  });
}

const CHARTS = ["facts", "rows"];

/** @type {Promise<void>} */
let first = Promise.resolve();
if (library()) {
  document.getElementById("still")?.remove();
  for (const each of ["controls", "metrics"]) /** @type {HTMLElement} */ (document.getElementById(each)).hidden = false;
  axis.value = section.dataset.axis ?? "epoch";
  axis.addEventListener("change", () => {
    between = null;
    unzoom.hidden = true;
    void load();
  });
  smoothing.addEventListener("input", draw);
  log.addEventListener("change", draw);
  document.addEventListener("theme", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  metricsBox.addEventListener("change", load);
  runsBox.addEventListener("change", () => {
    shownRuns = [...runsBox.querySelectorAll("input:checked")].map((box) => Number(/** @type {HTMLInputElement} */ (box).value));
    if (!shownRuns.length) shownRuns = [-1]; // none, which is not the same as the usual ones
    void load();
  });
  unzoom.addEventListener("click", () => {
    between = null;
    unzoom.hidden = true;
    void load();
  });
  first = load().catch((error) => console.error(error));
}

const form = document.getElementById("filter-form");
const input = document.getElementById("filter");
if (form instanceof HTMLFormElement && input instanceof HTMLInputElement) asOneTypes(form, input, ["rows"]);

document.addEventListener("click", async (event) => {
  const link = event.target instanceof Element ? event.target.closest("a[data-part]") : null;
  if (!(link instanceof HTMLAnchorElement) || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const again = link.closest("thead") ? link.textContent : null;
  if (!(await replaceParts(new URL(link.href), ["rows"]))) return;
  history.pushState(null, "", link.href);
  const place = [...document.querySelectorAll("#rows thead a")].find((each) => again !== null && each.textContent === again);
  if (place instanceof HTMLElement) place.focus();
});
addEventListener("popstate", () => void replaceParts(new URL(location.href), ["rows"]));

const preview = document.getElementById("preview");
const answer = document.getElementById("preview-answer");
if (preview instanceof HTMLFormElement && answer) previewing(preview, answer, api);

let timer = 0;
await first; // the curves come before the news
follow(api, section.dataset.news ?? "newest", (event) => {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    await replaceParts(new URL(location.href), CHARTS);
    if (library()) await load();
    const news = document.getElementById("news");
    if (news) news.textContent = event.version === null ? "The model changed." : `Checkpoint ${event.version}: ${event.kind.replace("checkpoint-", "")}.`;
  }, 250);
});
