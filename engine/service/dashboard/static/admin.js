// Who may control the sale, and the requests of those who may. The secret stays in this tab.

import { byId, say } from "./format.js";
import { InDoubt, newKey, NoAnswer, Problem, request, requestJson } from "./http.js";
import { stored } from "./stored.js";

const SECRET = "seckill.admin-secret";

export class Admin {
  /** onChange() is called after every login and logout. */
  constructor(onChange) {
    this.onChange = onChange;
    this.served = false; // by the listener of this page
    this.loggedIn = false;
    this.pendingKeys = new Map();
    byId("login").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#login(byId("secret").value);
    });
    byId("logout").addEventListener("click", () => {
      stored.remove(SECRET);
      this.#changed(false);
      byId("secret").focus();
    });
  }

  /** Asks once whether this listener has controls; 404 means that it is the public one. */
  async start() {
    try {
      await this.#session(stored.get(SECRET));
      this.served = true;
      this.#changed(true);
    } catch (error) {
      this.served = error instanceof Problem && error.status === 401;
      this.#changed(false);
      if (error instanceof NoAnswer) setTimeout(() => this.start(), 5000);
    }
  }

  async #login(secret) {
    const answer = byId("login-answer");
    say(answer, "");
    try {
      await this.#session(secret);
      stored.set(SECRET, secret);
      byId("secret").value = "";
      this.#changed(true);
    } catch (error) {
      say(answer, error.status === 401 ? "That is not the admin secret." : error.message, "bad");
      byId("secret").select();
    }
  }

  #session(secret) {
    return request("/v1/admin/session", { headers: bearer(secret) });
  }

  #changed(loggedIn) {
    this.loggedIn = loggedIn;
    byId("login").hidden = !this.served || loggedIn;
    for (const id of ["logout", "open-sale", "run-audit"]) byId(id).hidden = !loggedIn;
    this.onChange();
  }

  /** One command for a SKU. Repeated while its outcome is open it carries the same key as before.
   *  Gives whether it was such a repetition. */
  async command(sku, action, body) {
    const what = JSON.stringify([sku, action, body]);
    const pending = this.pendingKeys.get(what);
    const key = pending ?? newKey();
    this.pendingKeys.set(what, key);
    try {
      await requestJson(skuPath(sku, action), {
        method: "POST", body, headers: { ...this.#headers(), "Idempotency-Key": key },
      });
      this.pendingKeys.delete(what);
      // A sale that was resumed may be paused again: that is no repetition of an earlier pause.
      const opposite = { pause: "resume", resume: "pause" }[action];
      this.pendingKeys.delete(JSON.stringify([sku, opposite, body]));
      return { repeated: pending !== undefined };
    } catch (error) {
      if (error instanceof NoAnswer) {
        throw new NoAnswer("No answer arrived, so it may or may not be done. " +
          "Do the same again to ask; it is done once.", { cause: error });
      }
      if (error instanceof InDoubt) {
        throw new InDoubt(`${error.message} Do the same again to ask; it is done once.`,
          { cause: error });
      }
      // Being sent away at the door tells nothing of an earlier try.
      const undecided = error.status >= 500 || (pending && [401, 408, 429].includes(error.status));
      if (!undecided) this.pendingKeys.delete(what);
      throw this.#explained(error);
    }
  }

  audit() {
    return requestJson("/v1/admin/audit", { method: "POST", headers: this.#headers() });
  }

  /** A plain link cannot carry the secret, so the file is fetched and then handed over. */
  async export(sku) {
    const response = await request(skuPath(sku, "export.csv"), { headers: this.#headers() });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = `${sku}.csv`;
    link.click();
    // The browser has its own hold on the file by then.
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  #headers() {
    return bearer(stored.get(SECRET));
  }

  #explained(error) {
    if (error.status !== 401) return error;
    this.#changed(false);
    return new Error("The admin secret is no longer accepted. Log in again.");
  }
}

function bearer(secret) {
  return secret ? { Authorization: `Bearer ${secret}` } : {};
}

function skuPath(sku, action) {
  return `/v1/admin/skus/${encodeURIComponent(sku)}/${action}`;
}
