// The table of products: 50 rows at first, the busiest on top, filtered by the search field.

import { byId, count, element, setText, sum, words } from "./format.js";

const ROWS_AT_FIRST = 50;
const RANK_MS_MIN = 5000;
// Rows that change places more often cannot be read, nor hit with the pointer.

/** Where the units of a product are. Without holds a reserved unit is sold, with them it is held. */
export function units(row) {
  const held = row.hold_seconds > 0 ? row.reserved : 0;
  return { left: row.available, held, sold: row.paid + row.reserved - held };
}

/** An open sale with nothing left is what a reader calls sold out. */
export function showPhase(chip, row) {
  const soldOut = row.phase === "open" && row.available <= 0;
  setText(chip, soldOut ? "sold out" : row.phase);
  chip.className = soldOut ? "chip" : `chip ${row.phase}`;
}

export function refusals(row) {
  return Object.entries(row.refused ?? {}).filter(([, number]) => number > 0);
}

export class SkuTable {
  /** actionsOf(sku) gives the elements of a row's last cell. */
  constructor(actionsOf) {
    this.actionsOf = actionsOf;
    this.rows = new Map(); // sku -> the newest row of the stream
    this.activity = new Map(); // sku -> orders of late, fading
    this.lines = new Map(); // sku -> its <tr> and cells
    this.ranking = []; // every SKU, in the order of the rows
    this.limit = ROWS_AT_FIRST;
    this.rankedAt = -Infinity;
    this.box = byId("table-box");
    this.body = byId("rows");
    this.search = byId("search");
    this.search.addEventListener("input", () => this.#show());
    byId("show-more").addEventListener("click", () => {
      this.limit += ROWS_AT_FIRST;
      this.#show();
    });
  }

  replace(rows) {
    this.rows = new Map(rows.map((row) => [row.sku, row]));
    for (const sku of this.lines.keys()) if (!this.rows.has(sku)) this.lines.delete(sku);
    this.#rank();
    this.#show();
  }

  update(rows) {
    for (const row of rows) {
      const before = this.rows.get(row.sku);
      const orders = before ? decisions(row) - decisions(before) : 0;
      this.activity.set(row.sku, (this.activity.get(row.sku) ?? 0) + Math.max(0, orders));
      this.rows.set(row.sku, row);
      if (this.lines.has(row.sku)) this.#fill(row);
    }
    if (this.#rank()) this.#show();
  }

  /** Row actions depend on who is logged in. */
  rebuild() {
    this.lines.clear();
    this.#show();
  }

  /** True when the ranking is another one than before. New products wait at its end for their
   *  place, so that nothing moves under a pointer. */
  #rank() {
    const before = this.ranking;
    const placed = new Set(before);
    const added = [...this.rows.keys()].filter((sku) => !placed.has(sku));
    this.ranking = [...before.filter((sku) => this.rows.has(sku)), ...added];
    const due = performance.now() - this.rankedAt >= RANK_MS_MIN;
    if (before.length === 0 || (due && !this.#isInUse())) {
      this.rankedAt = performance.now();
      for (const [sku, orders] of this.activity) this.activity.set(sku, orders / 2);
      this.ranking.sort((a, b) =>
        (this.activity.get(b) ?? 0) - (this.activity.get(a) ?? 0) ||
        decisions(this.rows.get(b)) - decisions(this.rows.get(a)) || (a < b ? -1 : 1));
    }
    return this.ranking.length !== before.length ||
      this.ranking.some((sku, at) => sku !== before[at]);
  }

  /** Somebody points at a row, has come to one with the keyboard, or is in the midst of a command. */
  #isInUse() {
    return this.box.matches(":hover") || this.box.contains(document.activeElement) ||
      document.querySelector("dialog[open]") !== null;
  }

  #show() {
    const wanted = this.search.value.trim().toLowerCase();
    const found = this.ranking.filter((sku) => sku.toLowerCase().includes(wanted));
    const shown = found.slice(0, this.limit);
    const lines = shown.map((sku) => this.#fill(this.rows.get(sku)));
    // Untouched when the order is the same: moving a node takes the focus away from it.
    if (lines.length !== this.body.children.length ||
        lines.some((line, at) => line !== this.body.children[at])) {
      this.body.replaceChildren(...lines);
    }
    byId("show-more").hidden = found.length <= shown.length;
    setText(byId("shown"), this.#summary(wanted, found.length, shown.length));
  }

  #summary(wanted, found, shown) {
    if (this.rows.size === 0) return "";
    if (found === 0) return `none of ${count(this.rows.size)} matches`;
    const all = wanted ? `${count(found)} of ${count(this.rows.size)} match` : count(this.rows.size);
    return shown < found ? `${all}, the ${count(shown)} busiest shown` : all;
  }

  #fill(row) {
    let line = this.lines.get(row.sku);
    if (!line) {
      line = makeLine(row.sku, this.actionsOf(row.sku));
      this.lines.set(row.sku, line);
    }
    const where = units(row);
    showPhase(line.phase, row);
    for (const name of ["left", "held", "sold"]) {
      setText(line[name], count(where[name]));
      // Through the object model: a style attribute would break the content security policy.
      line.parts[name].style.flexGrow = where[name];
      line.parts[name].hidden = where[name] <= 0;
    }
    const reasons = refusals(row);
    setText(line.refused, count(sum(reasons.map(([, number]) => number))));
    // A line breaks between reasons, and not between a reason and its number.
    setText(line.reasons, reasons.map(([why, number]) =>
      `${words(why)} ${count(number)}`.replaceAll(" ", "\u00a0")).join(", "));
    return line.node;
  }
}

function decisions(row) {
  return row.reserved + row.paid + sum(refusals(row).map(([, number]) => number));
}

function makeLine(sku, actions) {
  const cell = (label, className, ...children) =>
    element("td", { role: "cell", class: className, ...(label && { "data-label": label }) },
      ...children);
  const span = (className = "") => element("span", { class: className });
  const line = {
    phase: span("chip"), left: span(), held: span(), sold: span(),
    refused: span(), reasons: span("reasons"),
    parts: { sold: span("sold"), held: span("held"), left: span("left") },
  };
  const bar = element("div", { class: "units", "aria-hidden": "true" },
    line.parts.sold, line.parts.held, line.parts.left);
  line.node = element("tr", { role: "row" },
    element("th", { role: "rowheader", scope: "row", text: sku }),
    cell("", "cell-phase", line.phase),
    cell("Left", "number cell-left", line.left),
    cell("Held", "number cell-held", line.held),
    cell("Sold", "number cell-sold", line.sold),
    cell("", "wide", bar),
    cell("Refused", "number", line.refused, line.reasons),
    cell("", "cell-actions", element("div", { class: "links" }, ...actions)));
  return line;
}
