// A reservation that is held for its buyer: followed until it is paid or given back.

import { request, requestJson } from "./http.js";

const ASK_MS = 5000;
// The payment arrives at the shop and not here, so the page asks for it now and then.

const ASK_MS_WHEN_DUE = 2000;

export class Hold {
  constructor(purchase, { headers, onState }) {
    this.purchase = purchase;
    this.headers = headers;
    this.onState = onState;
    this.reservation = null;
  }

  follow(reservation) {
    this.reservation = reservation;
    clearTimeout(this.timer);
    if (reservation.state !== "held") return;
    this.timer = setTimeout(() => this.#ask(), reservation.timeUp ? ASK_MS_WHEN_DUE : ASK_MS);
  }

  end() {
    clearTimeout(this.timer);
    this.reservation = null;
  }

  /** The countdown reached zero. Only the server knows what that means for the hold. */
  timeUp() {
    if (this.reservation?.timeUp) return;
    this.#tell({ ...this.reservation, timeUp: true });
  }

  extend() {
    return this.#change("extend", { extended: true });
  }

  release() {
    return this.#change("release");
  }

  /** Its own key, derived from the purchase's: pressed twice or sent twice, it is done once. */
  async #change(action, marks = {}) {
    const before = this.reservation;
    const headers = { ...this.headers(), "Idempotency-Key": `${this.purchase.attempt.key}.${action}`.slice(-64) };
    try {
      const after = await requestJson(`${this.#path()}/${action}`, { method: "POST", headers });
      this.#tell({ ...before, ...after, ...marks });
    } catch (error) {
      if (this.reservation === null) return;
      const used = error.reason === "already_extended" ? { extended: true } : {};
      this.#tell({ ...this.reservation, ...used }, error.message);
    }
  }

  async #ask() {
    const { extended } = this.reservation;
    try {
      const response = await request(this.#path(), { headers: this.headers() });
      const now = await response.json();
      if (this.reservation === null) return;
      const timeUp = this.reservation.timeUp && now.held_until_ms === this.reservation.held_until_ms;
      this.#tell({ ...now, extended, timeUp });
    } catch {
      // Not reachable: the countdown goes on, and so do the questions.
      if (this.reservation !== null) this.follow(this.reservation);
    }
  }

  #path() {
    const id = this.reservation.id ?? this.purchase.id;
    return `/v1/reservations/${encodeURIComponent(id)}`;
  }

  #tell(reservation, problem) {
    this.onState({ kind: "reserved", reservation, problem });
  }
}
