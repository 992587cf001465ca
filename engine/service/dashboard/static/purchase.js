// One purchase from the press of the button to an answer that is certain.
//
// Its key is made once and sent with every repetition, so the server decides the order once,
// however often it is sent. The key is stored before the first request leaves: a reload asks what
// became of the order and does not buy again. Nothing here calls an order failed unless the
// server said so.

import { newKey, quote, readJson, retryAfterMs } from "./http.js";
import { words } from "./format.js";
import { Queue } from "./queue.js";
import { stored } from "./stored.js";

const BACKOFF_MS_MIN = 500;
const BACKOFF_MS_MAX = 15000;
const QUEUE_AFTER_MS = 300;
// Most orders are answered sooner, and need no second connection to tell their place.

export class Purchase {
  /**
   * `name` tells purchases of one product apart in the storage. headers() gives what authorises
   * the buyer; onState(state) is told every change.
   */
  constructor(sku, { name, headers, onState }) {
    this.sku = sku;
    this.headers = headers;
    this.onState = onState;
    this.turn = 0; // a new turn makes whatever still waits for an old one fall silent
    this.use(name);
  }

  /** The purchase of another name, as far as it has come; what became of the last one stays stored. */
  use(name) {
    this.stop();
    this.storedAs = `seckill.purchase.${name}`;
    this.attempt = JSON.parse(stored.get(this.storedAs) ?? "null");
  }

  /** The id of the command and of its reservation, as the API and so the shop's support know it. */
  get id() {
    return `${quote(this.sku)}:${this.attempt.key}`;
  }

  /** The id as one path segment. */
  get path() {
    return encodeURIComponent(this.id);
  }

  /** `key` is given where a purchase token fixes it. */
  buy(order, key) {
    const same = this.attempt && this.attempt.buyer === order.buyer &&
      this.attempt.quantity === order.quantity;
    // An order that was not answered is sent under its own key again.
    if (!same) this.attempt = { key: key ?? newKey(), unsure: false, ...order };
    this.#store();
    return this.#until(() => this.#send(), "sending");
  }

  /** After a reload: what became of the order? */
  resume() {
    return this.#until(() => this.#ask(), "asking");
  }

  stop() {
    this.turn++;
    this.#closeQueue();
  }

  forget() {
    this.stop();
    this.attempt = null;
    stored.remove(this.storedAs);
  }

  /** Asks, and asks again while the answer is not final. */
  async #until(ask, kind) {
    const turn = ++this.turn;
    this.failures = 0;
    this.onState({ kind });
    for (;;) {
      const answer = await this.#orQueue(ask);
      if (turn !== this.turn) return;
      const waitMs = this.#judge(answer);
      if (waitMs === null) return;
      await new Promise((resolve) => setTimeout(resolve, waitMs));
      if (turn !== this.turn) return;
    }
  }

  /** The answer of the request or the one that the queue's stream pushes, whichever is first. */
  async #orQueue(ask) {
    const pushed = new Promise((resolve) => {
      this.queueTimer = setTimeout(() => this.#openQueue(resolve), QUEUE_AFTER_MS);
    });
    try {
      return await Promise.race([ask(), pushed]);
    } finally {
      this.#closeQueue();
    }
  }

  #openQueue(resolve) {
    this.queue = new Queue(`/v1/commands/${this.path}/stream`, {
      headers: this.headers(),
      onPlace: (place) => this.onState({ kind: "queued", ...place }),
      onResult: ({ status, body }) => {
        // An order that is not known there may still be on its way: only the request can tell.
        if (body.reason !== "unknown_command") resolve({ status, body });
      },
    });
  }

  #closeQueue() {
    clearTimeout(this.queueTimer);
    this.queue?.close();
  }

  #send() {
    const { key, buyer, quantity } = this.attempt;
    return fetched(`/v1/skus/${encodeURIComponent(this.sku)}/reservations`, {
      method: "POST",
      headers: { ...this.headers(), "Content-Type": "application/json", "Idempotency-Key": key },
      body: JSON.stringify(buyer === null ? { quantity } : { buyer, quantity }),
    });
  }

  async #ask() {
    const answer = await fetched(`/v1/commands/${this.path}`, { headers: this.headers() });
    const { status, reservation, reason, detail } = answer.body ?? {};
    if (answer.status === 404) return { ...answer, status: "not_arrived" };
    if (answer.status !== 200) return answer;
    if (status === "executed") return { status: 201, body: reservation };
    return { status: 409, body: { reason, detail } };
  }

  /** Tells the state; gives the ms until the next try, or null when this was the last one. */
  #judge({ status, body, retryMs }) {
    const reason = body?.reason;
    const text = body?.detail || body?.title || (reason ? words(reason) : "");
    if (status === 201 || status === 200) return this.#end({ kind: "reserved", reservation: body });
    if (status === 409) return this.#end({ kind: "refused", reason, text });
    if (status === 404) return this.#end({ kind: "not_open" });
    if (status === "not_arrived") return this.#end({ kind: "not_arrived" });
    if (status === 202) {
      this.#unsure();
      return this.#again({ kind: "unknown" }, retryMs);
    }
    if (status === 429 && !this.attempt.unsure) {
      return this.#end({ kind: "too_fast", untilMs: Date.now() + (retryMs ?? 1000) });
    }
    if (status === 503 || status === 429) return this.#again({ kind: "busy" }, retryMs);
    if (status === 0 || status >= 500) {
      // No answer, or one of a proxy that got none: the order may be through.
      this.#unsure();
      return this.#again({ kind: "no_answer" }, retryMs);
    }
    return this.#end({ kind: "failed", status, reason, text, unsure: this.attempt.unsure });
  }

  #again(state, retryMs) {
    const backoff = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** this.failures++);
    // The server's wish is the least; the random part spreads the crowd that was sent away.
    const waitMs = Math.max(retryMs ?? 0, backoff) * (1 + Math.random() * 0.3);
    this.onState({ ...state, untilMs: Date.now() + waitMs, tries: this.failures,
      unsure: this.attempt.unsure });
    return waitMs;
  }

  /** A refusal is final and its key is used up; a reservation is kept for the next reload. */
  #end(state) {
    const keep = ["reserved", "too_fast", "not_arrived"].includes(state.kind) || state.unsure;
    this.onState(state);
    if (!keep) this.forget();
    return null;
  }

  #unsure() {
    this.attempt.unsure = true;
    this.#store();
  }

  #store() {
    stored.set(this.storedAs, JSON.stringify(this.attempt));
  }
}

async function fetched(path, options) {
  try {
    const response = await fetch(path, { cache: "no-store", ...options });
    const body = await readJson(response);
    return { status: response.status, body, retryMs: retryAfterMs(response, body) };
  } catch {
    return { status: 0 };
  }
}
