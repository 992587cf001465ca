// The report of an audit, as the list of what was checked.

import { count, element, say } from "./format.js";

export function showAudit(report, verdict, place) {
  if (report.ok) say(verdict, "Every check that could be made holds.", "good");
  else say(verdict, "The audit found faults; they are listed below.", "bad");
  const checks = element("ul", { class: "checks" }, ...report.checks.map(checkLine));
  const units = report.units ?? {};
  const where = element("p", { text: unitsSentence(units) });
  const notes = (report.notes ?? []).map((note) => element("p", { class: "muted", text: note }));
  place.replaceChildren(...(units.added ? [where] : []), checks, ...notes);
}

function checkLine({ name, unit, ok, checked, found, findings }) {
  // A check that had nothing to look at proves nothing: it gets a dash, not a tick.
  const [mark, said, look] = !ok ? ["✗", "failed", "fail"]
    : checked ? ["✓", "holds", "pass"] : ["–", "nothing to check", "count"];
  const line = element("li", {},
    element("span", { class: look, "aria-hidden": "true", text: mark }),
    element("span", { text: name }, element("span", { class: "visually-hidden", text: `: ${said}` })),
    element("span", { class: "count", text: `${count(checked)} ${unit}` }));
  if (findings?.length) {
    const items = findings.map((finding) => element("li", { text: finding }));
    if (found > findings.length) {
      items.push(element("li", { text: `and ${count(found - findings.length)} more` }));
    }
    line.append(element("ul", {}, ...items));
  }
  return line;
}

function unitsSentence({ added, final, paid, held, withdrawn, left }) {
  return `Units: ${count(added)} came in; ${count(final)} sold for good, ${count(paid)} paid, ` +
    `${count(held)} held, ${count(withdrawn)} withdrawn, ${count(left)} left.`;
}
