// The purchase token of a shop with auth "token". It comes in the address as #token=..., which
// browsers never send to a server, and is taken out of the address at once: an address is copied.

import { stored } from "./stored.js";

export class Token {
  constructor(sku) {
    this.storedAs = `seckill.token.${sku}`;
    this.takeFromAddress();
  }

  get text() {
    return stored.get(this.storedAs) ?? "";
  }

  set text(token) {
    stored.set(this.storedAs, token.trim());
  }

  /** True when the address brought one. */
  takeFromAddress() {
    const found = new URLSearchParams(location.hash.slice(1)).get("token");
    if (!found) return false;
    this.text = found;
    history.replaceState(null, "", location.pathname + location.search);
    return true;
  }

  headers() {
    return this.text ? { Authorization: `Bearer ${this.text}` } : {};
  }

  /** The command id that the token fixes, so that one token buys once; else undefined. */
  commandId() {
    try {
      const payload = this.text.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
      const bytes = Uint8Array.from(atob(payload), (each) => each.charCodeAt(0));
      const { nonce } = JSON.parse(new TextDecoder().decode(bytes));
      return typeof nonce === "string" ? nonce : undefined;
    } catch {
      // Not a token of this form; the server will say what it thinks of it.
      return undefined;
    }
  }
}
