// Hearing of a model's changes while its page is open: by server-sent events, or by asking again and again.

const WAIT_SECONDS = 30;
const KINDS = ["checkpoint-", "alias-", "model-", "retention-"];

/**
 * Call `onNews` after each change of a model, until the page is left.
 * @param {string} api the model's address in the API
 * @param {string} after the newest event that the page shows
 * @param {(event: { kind: string, version: number | null }) => void} onNews
 */
export function follow(api, after, onNews) {
  let last = after;
  let heard = false;
  /** @param {string} text */
  const tell = (text) => {
    const event = JSON.parse(text);
    last = String(event.id);
    if (KINDS.some((kind) => event.kind.startsWith(kind))) onNews(event);
  };
  const source = new EventSource(new URL(`${api}/events?after=${after}`, location.href));
  source.onopen = () => (heard = true);
  source.onmessage = (message) => tell(message.data);
  source.onerror = () => {
    // Where a proxy lets no stream through, it never opens; else the browser connects again by itself.
    if (heard && source.readyState !== EventSource.CLOSED) return;
    source.close();
    void poll();
  };
  addEventListener("pagehide", () => source.close());

  async function poll() {
    for (let failures = 0; failures < 5; ) {
      try {
        const answer = await fetch(`${api}/events?after=${last}&wait=${WAIT_SECONDS}`);
        if (answer.status === 401 || answer.status === 410) return;
        if (!answer.ok) throw new Error(String(answer.status));
        const page = await answer.json();
        for (const event of page.items) tell(JSON.stringify(event));
        last = String(page.last);
        failures = 0;
      } catch {
        failures += 1;
        await new Promise((resolve) => setTimeout(resolve, 1000 * 2 ** failures));
      }
    }
  }
}
