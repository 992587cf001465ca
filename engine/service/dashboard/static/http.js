// Requests whose failures are sentences.

import { words } from "./format.js";

/** Any answer that is not a success. `reason` is the machine's word, the message the human's. */
export class Problem extends Error {
  constructor(status, { reason, title, detail } = {}) {
    super(sentence(status, reason, title, detail));
    this.status = status;
    this.reason = reason;
  }
}

/** No answer arrived: what was asked for may have happened all the same. */
export class NoAnswer extends Error {}

/** 202: it arrived, and whether it is stored is not known yet. */
export class InDoubt extends Error {}

export async function request(path, { method = "GET", headers = {}, body } = {}) {
  const sent = { method, headers: { ...headers }, cache: "no-store" };
  if (body !== undefined) {
    sent.headers["Content-Type"] = "application/json";
    sent.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, sent);
  } catch (error) {
    throw new NoAnswer("No answer from the server.", { cause: error });
  }
  if (!response.ok) throw new Problem(response.status, await readJson(response));
  if (response.status === 202) throw new InDoubt("It is not certain yet whether that is done.");
  return response;
}

export async function requestJson(path, options) {
  return (await request(path, options)).json();
}

/** The body as an object; a proxy's error page is not JSON and counts as empty. */
export async function readJson(response) {
  try {
    return (await response.json()) ?? {};
  } catch {
    return {};
  }
}

/** When to try again; undefined when that is not said. The body knows ms, the header, which a
 *  proxy may have set, whole seconds. */
export function retryAfterMs(response, body) {
  if (Number.isFinite(body.retry_after_ms)) return body.retry_after_ms;
  const inSeconds = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  return Number.isFinite(inSeconds) ? Math.max(0, inSeconds * 1000) : undefined;
}

/** The address with "/" at its end. A server that listens on every address names none of them;
 *  the host of this page reaches it. */
export function reachable(address) {
  const found = new URL(address);
  if (["0.0.0.0", "[::]"].includes(found.hostname)) found.hostname = location.hostname;
  return found.href;
}

/** As Python's quote(sku, safe=""), which is how the server makes ids: encodeURIComponent alone
 *  leaves five more characters as they are. */
export function quote(text) {
  return encodeURIComponent(text).replace(/[!'()*]/g, (each) =>
    `%${each.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** A key that makes a repeated request the same request. randomUUID is missing on plain HTTP
 *  from another machine, getRandomValues is not. */
export function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function sentence(status, reason, title, detail) {
  const text = detail || title || (reason ? words(reason) : `The server answered ${status}`);
  const capital = text[0].toUpperCase() + text.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}
