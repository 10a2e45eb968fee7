// One chart: the curves of a metric, a line a run. Its points lead to their checkpoints, by a click or by the keyboard.

import { runName, shown, smoothed } from "./curves.js";

/** @typedef {import("./curves.js").Curve} Curve */
/** @typedef {import("./curves.js").Run} Run */
/** @typedef {typeof import("uplot")} UPlot */
/** @typedef {{ x: string, smoothing: number, log: boolean, colors: (run: number) => string,
 *   open: (version: number) => void, zoom: (between: [number, number]) => void }} Look */
/** @typedef {{ series: number, at: number }} Place */

const HEIGHT = 260;

/** Steps between ticks: there is no half epoch. */
const INTEGERS = Array.from({ length: 16 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

/** @returns {UPlot | undefined} */
export function library() {
  return /** @type {{ uPlot?: UPlot }} */ (/** @type {unknown} */ (window)).uPlot;
}

export class Chart {
  /**
   * @param {HTMLElement} parent
   * @param {string} metric
   * @param {Look} look
   */
  constructor(parent, metric, look) {
    this.metric = metric;
    this.look = look;
    /** @type {Curve[]} */
    this.curves = [];
    /** @type {Run[]} */
    this.runs = [];
    /** @type {Place | null} */
    this.place = null;
    this.figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = shown(metric);
    this.canvas = document.createElement("div");
    this.canvas.className = "plot";
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "group");
    this.canvas.setAttribute("aria-roledescription", "chart");
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.setAttribute("role", "status");
    this.tip.hidden = true;
    this.figure.append(caption, this.canvas, this.tip);
    parent.append(this.figure);
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => this.show(null));
    this.resized = new ResizeObserver(() => this.fit());
    this.resized.observe(this.figure);
    /** @type {import("uplot") | null} */
    this.plot = null;
  }

  /**
   * Draw these curves. With `keep`, the zoom stays.
   * @param {Curve[]} curves
   * @param {Run[]} runs
   * @param {boolean} keep
   */
  draw(curves, runs, keep) {
    const uPlot = library();
    if (!uPlot) return;
    this.curves = curves;
    this.runs = runs;
    this.place = null;
    this.tip.hidden = true;
    const before = keep && this.plot ? this.plot.scales.x : null;
    this.plot?.destroy();
    this.plot = new uPlot(this.options(), this.data(uPlot), this.canvas);
    if (before?.min != null && before.max != null) this.plot.setScale("x", { min: before.min, max: before.max });
    const points = curves.reduce((sum, curve) => sum + curve.of, 0);
    this.canvas.setAttribute(
      "aria-label",
      `${shown(this.metric)} over ${this.look.x}: ${points} points in ${curves.length} runs. ` +
        "Left and right go from point to point, up and down to another run, Enter opens the checkpoint.",
    );
  }

  remove() {
    this.resized.disconnect();
    this.plot?.destroy();
    this.figure.remove();
  }

  fit() {
    const width = this.canvas.clientWidth;
    if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  /** The lines of all curves, and, where they are smoothed, behind them the numbers as they are. */
  lines() {
    const smooth = this.look.smoothing > 0;
    const raw = smooth ? this.curves.map((curve) => ({ curve, y: curve.y, faint: true })) : [];
    return [
      ...raw,
      ...this.curves.map((curve) => ({ curve, y: smoothed(curve.y, this.look.smoothing), faint: false })),
    ];
  }

  /** @param {UPlot} uPlot */
  data(uPlot) {
    const scale = this.look.x === "time" ? 1e-6 : 1;
    const tables = this.lines().map(({ curve, y }) => {
      const drawn = this.look.log ? y.map((value) => (value > 0 ? value : null)) : y;
      return /** @type {import("uplot").AlignedData} */ (unique(curve.x.map((x) => x * scale), drawn));
    });
    return tables.length ? uPlot.join(tables) : /** @type {import("uplot").AlignedData} */ ([[]]);
  }

  /** @returns {import("uplot").Options} */
  options() {
    const style = getComputedStyle(document.documentElement);
    const text = style.getPropertyValue("--chart-text") || getComputedStyle(this.tip).color;
    const line = getComputedStyle(this.figure).borderTopColor;
    const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 } };
    const font = "12px system-ui, sans-serif";
    return {
      width: this.canvas.clientWidth || 400,
      height: HEIGHT,
      legend: { show: false },
      padding: [8, 10, 0, 0],
      scales: { x: { time: this.look.x === "time" }, y: { distr: this.look.log ? 3 : 1 } },
      axes: [
        { ...axis, font, size: 30, ...(this.look.x === "time" ? {} : { incrs: INTEGERS }) },
        { ...axis, font, size: 56, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : short(tick))) },
      ],
      series: [
        {},
        ...this.lines().map(({ curve, faint }) => ({
          label: runName(this.runs[curve.run]),
          stroke: this.look.colors(curve.run),
          alpha: faint ? 0.28 : 1,
          width: faint ? 1 : 1.75,
          dash: curve.run % 16 >= 8 ? [6, 4] : [],
          spanGaps: true,
          points: { show: curve.x.length === 1, fill: this.look.colors(curve.run) },
        })),
      ],
      cursor: { points: { show: false }, drag: { x: true, y: false, dist: 6 }, y: false },
      hooks: {
        ready: [(plot) => this.listen(plot)],
        setSelect: [(plot) => this.zoomed(plot)],
      },
    };
  }

  /** @param {import("uplot")} plot */
  listen(plot) {
    let pressed = 0;
    plot.over.addEventListener("mousedown", (event) => (pressed = event.clientX));
    plot.over.addEventListener("mousemove", (event) => {
      const box = plot.over.getBoundingClientRect();
      this.show(this.nearest(event.clientX - box.left, event.clientY - box.top));
    });
    plot.over.addEventListener("mouseleave", () => this.show(null));
    plot.over.addEventListener("mouseup", (event) => {
      if (event.button === 0 && Math.abs(event.clientX - pressed) < 5) this.open();
    });
  }

  /** @param {import("uplot")} plot */
  zoomed(plot) {
    if (plot.select.width < 6) return;
    const ends = [plot.select.left, plot.select.left + plot.select.width].map((at) => plot.posToVal(at, "x"));
    const scale = this.look.x === "time" ? 1e6 : 1;
    this.look.zoom([Math.floor((ends[0] ?? 0) * scale), Math.ceil((ends[1] ?? 0) * scale)]);
  }

  /**
   * Where a point is drawn.
   * @param {Place} place
   * @returns {[number, number] | null}
   */
  position({ series, at }) {
    const curve = this.curves[series];
    if (!this.plot || !curve) return null;
    const x = curve.x[at];
    const y = curve.y[at];
    if (x === undefined || y === undefined || (this.look.log && y <= 0)) return null;
    return [this.plot.valToPos(this.look.x === "time" ? x / 1e6 : x, "x"), this.plot.valToPos(y, "y")];
  }

  /**
   * The point that is drawn nearest to a place, if it is near.
   * @param {number} left
   * @param {number} top
   * @returns {Place | null}
   */
  nearest(left, top) {
    let best = null;
    let least = 40 * 40;
    for (let series = 0; series < this.curves.length; series++) {
      const around = this.closest(series, left);
      for (let at = Math.max(0, around - 3); at <= around + 3; at++) {
        const position = this.position({ series, at });
        if (!position) continue;
        const distance = (position[0] - left) ** 2 + (position[1] - top) ** 2;
        if (distance < least) [best, least] = [{ series, at }, distance];
      }
    }
    return best;
  }

  /**
   * The point of a curve whose x is closest to a place, by halves.
   * @param {number} series
   * @param {number} left
   */
  closest(series, left) {
    const xs = this.curves[series]?.x ?? [];
    const wanted = (this.plot?.posToVal(left, "x") ?? 0) * (this.look.x === "time" ? 1e6 : 1);
    let low = 0;
    let high = xs.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((xs[middle] ?? 0) < wanted) low = middle + 1;
      else high = middle;
    }
    return low > 0 && wanted - (xs[low - 1] ?? 0) < (xs[low] ?? 0) - wanted ? low - 1 : low;
  }

  /** @param {Place | null} place */
  show(place) {
    this.place = place;
    const position = place && this.position(place);
    const curve = place && this.curves[place.series];
    this.tip.hidden = !position;
    if (!this.plot || !place || !position || !curve) return;
    const state = curve.gone[place.at];
    const x = curve.x[place.at] ?? 0;
    this.tip.replaceChildren(
      row("strong", runName(this.runs[curve.run])),
      row("span", `${shown(this.metric)} ${short(curve.y[place.at] ?? 0)}`),
      row("span", this.look.x === "time" ? new Date(x / 1000).toLocaleString() : `${this.look.x} ${x}`),
      row("span", `checkpoint ${curve.version[place.at]}${state ? `, ${state === "purged" ? "purged" : "in the trash"}` : ""}`),
    );
    this.tip.style.setProperty("--run", this.look.colors(curve.run));
    const left = this.canvas.offsetLeft + this.plot.over.offsetLeft + position[0];
    const top = this.canvas.offsetTop + this.plot.over.offsetTop + position[1];
    const width = this.figure.clientWidth;
    this.tip.style.left = `${Math.min(Math.max(left, 0), width)}px`;
    this.tip.style.top = `${top}px`;
    this.tip.classList.toggle("on-the-left", left > width / 2);
  }

  open() {
    const curve = this.place && this.curves[this.place.series];
    if (!curve || !this.place || curve.gone[this.place.at]) return;
    const version = curve.version[this.place.at];
    if (version !== undefined) this.look.open(version);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const steps = /** @type {Record<string, [number, number]>} */ ({
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
    });
    if (event.key === "Enter") return this.open();
    if (event.key === "Escape") return this.show(null);
    const step = steps[event.key];
    if (!step || !this.curves.length) return;
    event.preventDefault();
    if (!this.place) return this.show({ series: 0, at: (this.curves[0]?.x.length ?? 1) - 1 });
    const series = (this.place.series + step[0] + this.curves.length) % this.curves.length;
    const length = this.curves[series]?.x.length ?? 1;
    let at = Math.min(Math.max(this.place.at + step[1], 0), length - 1);
    const from = this.position(this.place);
    if (step[0] && from) at = this.closest(series, from[0]);
    this.show({ series, at });
  }
}

/**
 * Of points with the same x, the last one: the chart draws one.
 * @param {number[]} xs in ascending order
 * @param {(number | null)[]} ys
 */
function unique(xs, ys) {
  const keep = xs.map((x, at) => x !== xs[at + 1]);
  return [xs.filter((_, at) => keep[at]), ys.filter((_, at) => keep[at])];
}

/** @param {number} value */
function short(value) {
  return Number.isInteger(value) && Math.abs(value) < 1e6 ? String(value) : String(Number(value.toPrecision(4)));
}

/**
 * @param {string} tag
 * @param {string} text
 */
function row(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}
