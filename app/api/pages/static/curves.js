// The data of charts: fetching, decoding and smoothing of curves.

/**
 * A curve of one metric in one run. `gone` says of some places that their checkpoints are in the trash, or purged.
 * @typedef {{ metric: string, run: number, of: number, version: number[], x: number[], y: number[],
 *   gone: Record<number, string> }} Curve
 *
 * @typedef {{ name: string | null, checkpoints: number, latest: number }} Run
 *
 * @typedef {{ x: string, metrics: string[], runs: Run[], shown: number[], curves: Curve[] }} Curves
 *
 * @typedef {{ metrics: string[], x: string, runs: number[] | null, between: [number, number] | null }} Wanted
 */

/**
 * @param {string} page the address of the model's page
 * @param {Wanted} wanted
 * @returns {Promise<Curves>}
 */
export async function fetchCurves(page, { metrics, x, runs, between }) {
  const address = new URL(`${page}/curves.json`, location.href);
  for (const metric of metrics) address.searchParams.append("metric", metric);
  address.searchParams.set("x", x);
  for (const run of runs ?? []) address.searchParams.append("run", String(run));
  if (between) {
    address.searchParams.set("from", String(between[0]));
    address.searchParams.set("to", String(between[1]));
  }
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`the curves could not be fetched: ${answer.status}`);
  const found = await answer.json();
  return {
    ...found,
    runs: found.runs.map((/** @type {[string | null, number, number]} */ [name, checkpoints, latest]) => ({
      name,
      checkpoints,
      latest,
    })),
    curves: found.curves.map((/** @type {Curve & { metric: number }} */ curve) => ({
      ...curve,
      metric: found.metrics[curve.metric],
      version: sums(curve.version),
      x: sums(curve.x),
    })),
  };
}

/**
 * Add up differences.
 * @param {number[]} differences
 */
function sums(differences) {
  let sum = 0;
  return differences.map((more) => (sum += more));
}

/**
 * Smooth numbers by an exponential average that has no bias towards 0 at its start.
 * @param {number[]} values
 * @param {number} weight of what came before, 0 to less than 1
 */
export function smoothed(values, weight) {
  if (weight === 0) return values;
  let sum = 0;
  let total = 0;
  return values.map((value) => {
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

/**
 * Show the invisible characters of a name from a file, as the server does in its pages.
 * @param {string} text
 */
export function shown(text) {
  const cut = text.length > 200 ? `${text.slice(0, 199)}…` : text;
  return cut.replace(
    /[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g,
    (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** @param {Run | undefined} run */
export function runName(run) {
  return run?.name == null ? "no run" : shown(run.name);
}
