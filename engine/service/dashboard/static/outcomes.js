// What the buyer reads in every state of a purchase. `busy` states go on by themselves.
// `until` is a time to count down to, `value` a number that stands still; `label` explains either.

import { count, words } from "./format.js";

const SAME_NUMBER = "It keeps its order number, so you cannot buy twice.";

const REFUSED = {
  sold_out: ["Sold out", "All units were gone when it was your turn. You have bought nothing."],
  over_limit: ["Over the limit", "That is more than one buyer may have."],
  paused: ["The sale is paused", "You have bought nothing. Try again when it goes on."],
  closed: ["The sale is over", "You have bought nothing."],
};

export function describe(state) {
  return DESCRIPTIONS[state.kind](state);
}

const DESCRIPTIONS = {
  sending: () => ({ tone: "", busy: true, title: "Your order is on its way" }),

  asking: () => ({ tone: "", busy: true, title: "Asking what became of your order" }),

  queued: ({ position, ahead }) => ({
    tone: "", busy: true, title: "You are in the queue",
    text: "Orders are decided first come, first served.", value: count(position),
    label: `is your place in the queue, ${ahead === 0 ? "nobody" : count(ahead)} before you`,
  }),

  unknown: ({ untilMs }) => ({
    tone: "warn", busy: true, title: "We do not know yet",
    text: "Your order reached us, but whether it is stored is not certain yet. We keep asking " +
      "under the same order number. Please keep this page open.",
    until: untilMs, label: "until the next question",
  }),

  no_answer: ({ untilMs, tries }) => ({
    tone: "warn", busy: true, title: "No answer yet",
    text: `The connection broke before the answer came. Your order is sent again. ${SAME_NUMBER}`,
    until: untilMs, label: `until try ${tries + 1}`,
  }),

  busy: ({ untilMs, tries, unsure }) => ({
    tone: "warn", busy: true, title: "The shop is very busy",
    text: (unsure ? "We are still asking what became of your order. "
      : "Your order was not taken yet. It is sent again by itself. ") + SAME_NUMBER,
    until: untilMs, label: `until try ${tries + 1}`,
    // An order that may be through must be followed to its end.
    actions: unsure ? [] : ["stop"],
  }),

  too_fast: ({ untilMs }) => ({
    tone: "warn", title: "Too fast", text: "Too many orders in a short time. You may try again soon.",
    until: untilMs, label: "until you may try again",
  }),

  refused: ({ reason, text }) => {
    const [title, sentence] = REFUSED[reason] ?? ["Not possible", text];
    return { tone: "bad", title, text: sentence };
  },

  not_open: () => ({
    tone: "warn", title: "Not open yet",
    text: "The sale has not begun. This page turns live when it does.",
  }),

  not_arrived: () => ({
    tone: "warn", title: "Your order did not reach us",
    text: "Nothing is stored under its number. Press Buy to send it again.",
  }),

  failed: ({ status, reason, text, unsure }) => ({
    tone: "bad",
    title: status === 401 || status === 403 ? "Your purchase token is not accepted"
      : "The order cannot be taken",
    text: [reason === "command_id_reused" ? "Its order number belongs to another order." : text,
      unsure ? "An earlier try may be through; reload this page to ask." : ""].join(" "),
  }),

  reserved: ({ reservation }) => (RESERVED[reservation.state] ?? otherwise)(reservation),
};

const RESERVED = {
  held: ({ quantity, held_until_ms: until, timeUp }) => (timeUp
    ? { tone: "warn", title: "Your time is up",
      text: "The reservation is being given back. A payment that was on its way may still count." }
    : { tone: "good", title: "Reserved for you", text: `${unitsOf(quantity)}. Pay before the time is up.`,
      until, label: "left to pay", actions: ["extend", "release"] }),

  final: ({ quantity }) => ({
    tone: "good", title: "It is yours", text: `${unitsOf(quantity)}, sold to you.`, actions: ["another"],
  }),

  paid: ({ quantity }) => ({
    tone: "good", title: "Paid", text: `${unitsOf(quantity)}, paid. Thank you.`, actions: ["another"],
  }),

  released: () => ({
    tone: "", title: "Given back", text: "The reservation has ended and its units are for sale again.",
    actions: ["another"],
  }),
};

function otherwise({ state, quantity }) {
  return { tone: "", title: "Your order", text: `${unitsOf(quantity)}: ${words(state)}.` };
}

function unitsOf(quantity) {
  return quantity === 1 ? "1 unit" : `${count(quantity)} units`;
}
