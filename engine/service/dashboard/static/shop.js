// Wires the buyer's page: the stock from the stream, the form, and the state of the purchase.

import { byId, count, countdown, element, seconds, setText } from "./format.js";
import { requestJson } from "./http.js";
import { Live } from "./live.js";
import { describe } from "./outcomes.js";
import { Purchase } from "./purchase.js";
import { Hold } from "./hold.js";
import { stored } from "./stored.js";
import { Token } from "./token.js";

const BUYER = "seckill.buyer";
const SILENCE_MS_MAX = 60_000;
// Of one product only changes are told, and the heartbeats between them no page can see.

const sku = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const token = new Token(sku);
const purchase = new Purchase(sku, {
  name: purchaseName(),
  headers: () => token.headers(),
  onState: show,
});
const hold = new Hold(purchase, { headers: () => token.headers(), onState: show });

let about = null;
let row; // of the stream; undefined before the first snapshot, null when the SKU is unknown
let state = null;
let shown = {};
let blind = true; // no live stock
let clockAheadMs = 0; // the server's clock against the buyer's, whose phone may be wrong

const ACTIONS = {
  extend: ["Extend once", () => hold.extend()],
  release: ["Give it back", () => hold.release()],
  stop: ["Stop trying", () => startAgain()],
  another: ["Buy another", () => startAgain()],
};

start();

function start() {
  setText(byId("product"), sku);
  document.title = `${sku}: flash sale`;
  byId("buyer").value = stored.get(BUYER) ?? "";
  byId("buy").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  addEventListener("hashchange", () => token.takeFromAddress() && location.reload());
  setInterval(tick, 250);
  const url = `/v1/stream?sku=${encodeURIComponent(sku)}`;
  const live = new Live(url, { onSnapshot, onPoint, onState, silenceMsMax: SILENCE_MS_MAX });
  // A browser has six connections to a server for all its tabs: hidden tabs give theirs back.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) live.pause();
    else live.resume();
  });
  askAbout();
  if (purchase.attempt) purchase.resume();
}

/** A new token is a new purchase, whatever became of the last one. */
function purchaseName() {
  return `${sku}.${token.commandId() ?? ""}`;
}

/** Buying must not depend on the stream, which is the first to be turned away in a rush. */
async function askAbout() {
  try {
    about ??= await requestJson("/v1/about");
    showForm();
  } catch {
    setTimeout(askAbout, 3000);
  }
}

function onSnapshot(snapshot) {
  about = snapshot.about;
  row = snapshot.skus.find((each) => each.sku === sku) ?? null;
  clockAheadMs = snapshot.at_ms - Date.now();
  showStock();
}

function onPoint(point) {
  row = point.skus.find((each) => each.sku === sku) ?? row;
  showStock();
}

function onState(connection, ageSeconds) {
  const before = blind;
  blind = connection !== "live";
  document.body.classList.toggle("is-stale", blind);
  if (blind !== before) showForm();
  byId("stale").hidden = !blind;
  setText(byId("stale"), ageSeconds === null ? "No live stock yet; trying to connect."
    : `Connection lost: the stock is ${seconds(ageSeconds)} old. Trying to connect again.`);
}

function showStock() {
  const chip = byId("stock-text");
  const [text, look, detail] = stockWords();
  setText(chip, text);
  chip.className = `chip ${look}`;
  setText(byId("stock-detail"), detail);
  if (row && state?.kind === "not_open") startAgain();
  showForm();
}

function stockWords() {
  if (!row) return ["not open yet", "paused", "This page turns live when the sale opens."];
  if (row.phase === "closed") return ["sale over", "", ""];
  if (row.phase === "paused") return ["paused", "paused", "Nobody can buy at the moment."];
  const limit = row.limit_per_buyer ? `At most ${count(row.limit_per_buyer)} per buyer.` : "";
  if (row.available > 0) return [`${count(row.available)} available`, "open", limit];
  if (row.hold_seconds > 0 && row.reserved > 0) {
    return ["sold out", "held-only", `${count(row.reserved)} are reserved and may come back.`];
  }
  return ["sold out", "", ""];
}

/** The form as the sale and the purchase allow it. */
function showForm() {
  if (!about) return;
  const byToken = about.auth === "token";
  const settled = !state || ["refused", "not_open", "not_arrived", "too_fast", "failed"].includes(state.kind);
  byId("buy").hidden = !settled;
  byId("buyer-label").hidden = byToken;
  byId("buyer").required = !byToken;
  byId("token-label").hidden = !byToken || (token.text !== "" && state?.kind !== "failed");
  byId("token").required = byToken && token.text === "";
  const limit = row?.limit_per_buyer || ""; // 0 is no limit
  byId("quantity-label").hidden = byToken || limit === 1;
  byId("quantity").max = limit;
  const button = byId("buy-button");
  const waits = state?.kind === "too_fast" && state.untilMs > Date.now();
  // Without live stock only the server knows, so it is asked.
  const open = blind || (row?.phase === "open" && row.available > 0);
  button.disabled = waits || !open;
  setText(button, !open && row?.phase === "open" ? "Sold out" : "Buy");
}

function submit() {
  const typed = byId("token").value.trim();
  if (typed) {
    token.text = typed;
    // Where a reload looks for it, which finds the token in the storage.
    purchase.use(purchaseName());
  }
  byId("token").value = "";
  const byToken = about.auth === "token";
  const buyer = byToken ? null : byId("buyer").value.trim();
  if (buyer) stored.set(BUYER, buyer);
  const quantity = byId("quantity-label").hidden ? 1 : Number(byId("quantity").value);
  purchase.buy({ buyer, quantity }, byToken ? token.commandId() : undefined);
  // The button that was pressed is gone; the keyboard goes on from the outcome.
  byId("outcome-title").focus();
}

function startAgain() {
  hold.end();
  purchase.forget();
  state = null;
  byId("outcome").hidden = true;
  showForm();
  byId("buy-button").focus();
}

/** Every change of the purchase or of its hold comes through here. */
function show(next) {
  state = next;
  if (next.kind === "reserved") hold.follow(next.reservation);
  shown = describe(next);
  const box = byId("outcome");
  box.hidden = false;
  box.className = `outcome ${shown.tone} ${shown.busy ? "busy" : ""}`;
  setText(byId("outcome-title"), shown.title);
  setText(byId("outcome-text"), shown.text ?? "");
  setText(byId("outcome-problem"), next.problem ?? "");
  setText(byId("order-number"), purchase.attempt ? `Order number ${purchase.id}` : "");
  showActions((shown.actions ?? []).filter((name) => isOffered(name, next)));
  tick();
  showForm();
}

function isOffered(name, { reservation }) {
  if (name === "extend") return !reservation.extended;
  // A token is for one purchase; the shop gives another.
  if (name === "another") return token.text === "";
  return true;
}

function showActions(names) {
  const box = byId("outcome-actions");
  if (box.dataset.names === names.join()) return; // keeps the focus where it is
  box.dataset.names = names.join();
  box.replaceChildren(...names.map((name) => {
    const [text, act] = ACTIONS[name];
    const button = element("button", { type: "button", text });
    button.addEventListener("click", act);
    return button;
  }));
}

function tick() {
  const { value, until, label } = shown;
  byId("running").hidden = value === undefined && until === undefined;
  if (byId("running").hidden) return;
  // Retries are timed by this clock, holds by the server's.
  const now = Date.now() + (state.kind === "reserved" ? clockAheadMs : 0);
  setText(byId("running-value"), value ?? countdown(until - now));
  setText(byId("running-label"), label);
  if (state.kind === "too_fast") showForm();
  if (state.kind === "reserved" && until <= now) hold.timeUp();
}
