// The dialogs of the admin: open a sale, manage one product, audit.

import { byId, count, element, say, setText, words } from "./format.js";
import { showAudit } from "./audit_view.js";
import { refusals, showPhase, units } from "./sku_table.js";

export class Controls {
  constructor(admin, rowOf) {
    this.admin = admin;
    this.rowOf = rowOf;
    this.sku = null;
    for (const button of document.querySelectorAll("[data-close]")) {
      button.addEventListener("click", () => button.closest("dialog").close());
    }
    this.#openDialog();
    this.#manageDialog();
    byId("run-audit").addEventListener("click", (event) => this.#audit(event.currentTarget));
  }

  showOpen() {
    say(byId("open-form").querySelector("[data-answer]"), "");
    byId("open-dialog").showModal();
  }

  manage(sku) {
    this.sku = sku;
    setText(byId("manage-title"), sku);
    say(byId("manage-answer"), "");
    byId("close-confirm").hidden = true;
    this.refresh();
    byId("manage-dialog").showModal();
  }

  /** The figures in the open dialog follow the stream. */
  refresh() {
    const row = this.sku === null ? undefined : this.rowOf(this.sku);
    if (!row) return;
    const closed = row.phase === "closed";
    showPhase(byId("manage-phase"), row);
    setText(byId("pause"), row.phase === "paused" ? "Resume" : "Pause");
    for (const button of byId("quantity-form").querySelectorAll("button")) button.disabled = closed;
    byId("pause").disabled = closed;
    byId("close-sale").disabled = closed;
    const { left, held, sold } = units(row);
    const facts = [
      ["Left", count(left)], ["Held", count(held)], ["Sold", count(sold)],
      ["Limit per buyer", row.limit_per_buyer ? count(row.limit_per_buyer) : "none"],
      ["Held for", row.hold_seconds ? `${count(row.hold_seconds)} s` : "sold at once"],
      ...refusals(row).map(([why, number]) => [`Refused: ${words(why)}`, count(number)]),
    ];
    byId("manage-figures").replaceChildren(...facts.map(([name, value]) =>
      element("div", {}, element("dt", { text: name }), element("dd", { text: value }))));
  }

  #openDialog() {
    const form = byId("open-form");
    byId("open-sale").addEventListener("click", () => this.showOpen());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const sku = form.elements.sku.value.trim();
      const limit = form.elements.limit_per_buyer.value;
      const opened = await this.#run(form.querySelector("[data-answer]"), event.submitter, () =>
        this.admin.command(sku, "open", {
          stock: Number(form.elements.stock.value),
          limit_per_buyer: limit === "" ? 0 : Number(limit),
          hold_seconds: Number(form.elements.hold_seconds.value),
        }));
      if (!opened) return;
      byId("open-dialog").close();
      form.reset();
    });
  }

  #manageDialog() {
    const answer = byId("manage-answer");
    const command = async (button, action, done, body) => {
      const sent = await this.#run(answer, button, () =>
        this.admin.command(this.sku, action, body));
      if (!sent) return;
      say(answer, sent.repeated ? `${done} Counted once, with the try before.` : done, "good");
    };
    const form = byId("quantity-form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const quantity = Number(form.elements.quantity.value);
      const action = event.submitter.value;
      const done = action === "restock" ? "added to the stock" : "taken out of the sale";
      command(event.submitter, action, `${count(quantity)} units ${done}.`, { quantity });
    });
    byId("pause").addEventListener("click", ({ currentTarget }) => {
      if (currentTarget.textContent === "Resume") command(currentTarget, "resume", "Selling again.");
      else command(currentTarget, "pause", "Paused: nobody can buy until you resume.");
    });
    byId("export").addEventListener("click", async ({ currentTarget }) => {
      await this.#run(answer, currentTarget, () => this.admin.export(this.sku));
    });
    const confirm = byId("close-confirm");
    byId("close-sale").addEventListener("click", () => {
      confirm.hidden = false;
      say(answer, "");
      byId("close-no").focus();
    });
    byId("close-no").addEventListener("click", () => {
      confirm.hidden = true;
      byId("close-sale").focus();
    });
    byId("close-yes").addEventListener("click", async ({ currentTarget }) => {
      await command(currentTarget, "close", "The sale is closed.");
      confirm.hidden = true;
    });
    byId("manage-dialog").addEventListener("close", () => {
      this.sku = null;
    });
  }

  async #audit(button) {
    const verdict = byId("audit-verdict");
    byId("audit-report").replaceChildren();
    say(verdict, "Reading every stored event …");
    byId("audit-dialog").showModal();
    const report = await this.#run(verdict, button, () => this.admin.audit());
    if (report) showAudit(report, verdict, byId("audit-report"));
  }

  /** Runs one request; a failure becomes words beside the control. Gives nothing then. */
  async #run(answer, button, ask) {
    button.disabled = true;
    try {
      return await ask();
    } catch (error) {
      say(answer, error.message, "bad");
      return undefined;
    } finally {
      button.disabled = false;
      this.refresh();
    }
  }
}
