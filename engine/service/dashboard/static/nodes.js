// Who owns the partitions of a cluster: asked of /readyz, which every node answers. Shown to operators.

import { byId, count, element, ranges, seconds, setText, sum } from "./format.js";
import { readJson } from "./http.js";

const ASK_MS = 1000;
const NOBODY = "nobody";

export class Nodes {
  constructor() {
    this.wanted = false;
    this.timer = null;
    this.tiles = new Map();
  }

  /** Ask every second while it is wanted. A server that is no node of a cluster is asked once. */
  watch(wanted) {
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    clearTimeout(this.timer);
    if (wanted) this.#ask();
    else byId("nodes-box").hidden = true;
  }

  async #ask() {
    let found = {};
    try {
      // 503 says as much as 200.
      found = await readJson(await fetch("/readyz", { cache: "no-store" }));
    } catch {
      // The line on top says that there is no connection; what was known stays.
    }
    if (!this.wanted || found.role === "embedded") return;
    if (found.served) this.#show(found);
    this.timer = setTimeout(() => this.#ask(), ASK_MS);
  }

  #show({ served, partitions, stopped_partitions: stopped, brokers_silent_seconds: silent }) {
    byId("nodes-box").hidden = false;
    const owned = Map.groupBy(served, (each) => each.owner);
    const known = new Set(served.map((each) => each.partition));
    const lost = Array.from({ length: partitions }, (_, number) => number)
      .filter((number) => !known.has(number));
    const names = [...owned.keys()].sort();
    this.#keep([...names, ...(lost.length ? [NOBODY] : [])]);
    for (const name of names) {
      const own = owned.get(name);
      const waiting = sum(own.map((each) => each.queue_depth));
      this.#fill(name, own.map((each) => each.partition), `${count(waiting)} waiting`);
    }
    if (!lost.length) return;
    const why = silent ? `the brokers have not been heard for ${seconds(silent)}, ` : "";
    // Between two owners they wait; after a while without one they are refused.
    this.#fill(NOBODY, lost, `${why}${stopped ? "orders are refused" : "orders wait"}`);
  }

  /** One tile for each name, in that order. */
  #keep(names) {
    if (names.join("\n") === [...this.tiles.keys()].join("\n")) return;
    const before = this.tiles;
    this.tiles = new Map(names.map((name) => [name, before.get(name) ?? tile(name)]));
    byId("nodes").replaceChildren(...[...this.tiles.values()].map((each) => each.box));
  }

  #fill(name, numbers, detail) {
    const { value, below } = this.tiles.get(name);
    setText(value, count(numbers.length));
    setText(below, `${ranges(numbers)}; ${detail}`);
  }
}

function tile(name) {
  const value = element("div", { class: "value" });
  const below = element("div", { class: "detail" });
  const box = element("div", { class: name === NOBODY ? "lost" : "" },
    element("dt", { text: name }), element("dd", {}, value, below));
  return { box, value, below };
}
