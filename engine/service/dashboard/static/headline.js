// The figures on top of the dashboard.

import { byId, count, decimal, element, setText } from "./format.js";

// title, the value, and a line of detail below it; both of (headline, about).
const TILES = [
  ["Orders/s", (h) => decimal(h?.decided), () => "decided, last 2 s"],
  ["Accepted/s", (h) => decimal(h?.accepted), (h) => share(h)],
  ["Latency p50", (h) => milliseconds(h?.p50), (h) => `p99 ${milliseconds(h?.p99)}`],
  ["Batch size", (h) => decimal(h?.batch_mean ?? NaN),
    (h) => `mean; largest ${count(h?.batch_max ?? NaN)}`],
  ["Queue depth", (h) => count(h?.queue_depth), () => "orders waiting"],
  ["Projection lag", (h) => count(h?.lag_commits ?? NaN), (h) => (h?.lag_commits === 1 ? "commit behind" : "commits behind")],
  ["Told to retry", (h) => count(h?.retry_5min),
    (h) => `5 min; ${unserved(h)}in doubt ${count(h?.unknown_5min)}`],
  // "strict: write-ahead log, ...": the grade is the word before the colon.
  ["Durability", (h, about) => about?.store.durability.split(":")[0] ?? "–",
    (h, about) => (about ? `${about.store.kind} ${about.store.version}` : "store unknown")],
];

/** Only where it happens: most shops have one server, which owns everything. */
function unserved(headline) {
  return headline?.unserved_5min ? `no owner ${count(headline.unserved_5min)}; ` : "";
}

function share(headline) {
  if (!headline?.decided) return "no orders now";
  return `${Math.round((100 * headline.accepted) / headline.decided)} % of decided`;
}

function milliseconds(number) {
  return Number.isFinite(number) ? `${decimal(number)} ms` : "–";
}

export class Headline {
  constructor() {
    this.tiles = TILES.map(([title, value, detail]) => {
      const figure = element("div", { class: "value" });
      const below = element("div", { class: "detail" });
      byId("headline").append(element("div", {},
        element("dt", { text: title }), element("dd", {}, figure, below)));
      return { figure, below, value, detail };
    });
    this.show(null, null);
  }

  show(headline, about) {
    for (const tile of this.tiles) {
      setText(tile.figure, tile.value(headline, about));
      setText(tile.below, tile.detail(headline, about));
    }
  }
}

/** The line at the foot: what the figures come from. */
export function showAbout({ version, store, auth }) {
  const buyers = auth === "token" ? "buyers bring a purchase token" : "buyers name themselves";
  setText(byId("about"), `seckill ${version}. Store: ${store.kind} ${store.version}. ` +
    `Durability: ${store.durability}. Auth ${auth}: ${buyers}.`);
}
