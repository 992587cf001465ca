// The table of products: 50 rows at first, the busiest on top, filtered by the search field.

import { byId, count, element, setText, sum, words } from "./format.js";

const ROWS_AT_FIRST = 50;
const SORT_MS = 5000;
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
    this.order = [];
    this.limit = ROWS_AT_FIRST;
    this.sortedAt = 0;
    this.body = byId("rows");
    this.search = byId("search");
    this.search.addEventListener("input", () => this.#sort());
    byId("show-more").addEventListener("click", () => {
      this.limit += ROWS_AT_FIRST;
      this.#sort();
    });
  }

  replace(rows) {
    this.rows = new Map(rows.map((row) => [row.sku, row]));
    for (const sku of this.lines.keys()) if (!this.rows.has(sku)) this.lines.delete(sku);
    this.#sort();
  }

  update(rows) {
    const known = this.rows.size;
    for (const row of rows) {
      const before = this.rows.get(row.sku);
      const orders = before ? decisions(row) - decisions(before) : 0;
      this.activity.set(row.sku, (this.activity.get(row.sku) ?? 0) + Math.max(0, orders));
      this.rows.set(row.sku, row);
      if (this.lines.has(row.sku)) this.#fill(row);
    }
    const inUse = this.body.matches(":hover") || this.body.contains(document.activeElement);
    const due = Date.now() - this.sortedAt > SORT_MS;
    if (this.rows.size !== known || (due && !inUse)) this.#sort();
  }

  /** Row actions depend on who is logged in. */
  rebuild() {
    this.lines.clear();
    this.#sort();
  }

  #sort() {
    this.sortedAt = Date.now();
    for (const [sku, orders] of this.activity) this.activity.set(sku, orders / 2);
    const wanted = this.search.value.trim().toLowerCase();
    const found = [...this.rows.values()].filter((row) => row.sku.toLowerCase().includes(wanted));
    found.sort((a, b) =>
      (this.activity.get(b.sku) ?? 0) - (this.activity.get(a.sku) ?? 0) ||
      decisions(b) - decisions(a) || (a.sku < b.sku ? -1 : 1));
    const shown = found.slice(0, this.limit);
    const lines = shown.map((row) => this.#fill(row));
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
