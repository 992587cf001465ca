// Wires the dashboard: one stream in; headline, table, charts and, for the admin, controls out.

import { Admin } from "./admin.js";
import { startCharts } from "./charts.js";
import { Controls } from "./controls.js";
import { byId, element, seconds, setText } from "./format.js";
import { Headline, showAbout } from "./headline.js";
import { History } from "./history.js";
import { reachable } from "./http.js";
import { Live } from "./live.js";
import { Nodes } from "./nodes.js";
import { SkuTable } from "./sku_table.js";

const DRAW_MS_MIN = 500;
// Points come four times a second; charts of five minutes need not be drawn that often.

const history = new History();
const headline = new Headline();
const charts = startCharts();
const admin = new Admin(onAdminChange);
const table = new SkuTable(actionsOf);
const nodes = new Nodes();
const controls = new Controls(admin, (sku) => table.rows.get(sku));
let about = null;
let drawnAt = 0;

new Live("/v1/stream", { onSnapshot, onPoint, onState });
admin.start();

function onSnapshot(snapshot) {
  about = snapshot.about;
  showAbout(about);
  history.addSnapshot(snapshot);
  table.replace(snapshot.skus);
  drawnAt = 0;
  showFigures();
  showAdminLink();
}

function onPoint(point) {
  history.add(point);
  table.update(point.skus);
  showFigures();
}

function showFigures() {
  const now = history.headline();
  headline.show(now, about);
  charts.show(now);
  controls.refresh();
  showEmpty();
  if (Date.now() - drawnAt < DRAW_MS_MIN) return;
  drawnAt = Date.now();
  charts.draw(history.seconds());
}

function onState(state, ageSeconds) {
  const live = state === "live";
  setText(byId("connection"), live ? "live" : "connection lost");
  byId("connection").className = `chip ${live ? "open" : "paused"}`;
  document.body.classList.toggle("is-stale", !live);
  byId("stale").hidden = live;
  // The chip above is announced once; this line counts on and is not.
  setText(byId("stale"), ageSeconds === null
    ? "No connection to the server yet; trying again."
    : `Connection lost: the figures are ${seconds(ageSeconds)} old. Trying to connect again.`);
}

function onAdminChange() {
  nodes.watch(admin.loggedIn);
  table.rebuild();
  byId("empty").replaceChildren();
  showEmpty();
  showAdminLink();
}

function showAdminLink() {
  const link = byId("admin-link");
  link.hidden = admin.served || !about?.admin_url;
  if (!link.hidden) link.href = reachable(about.admin_url);
}

function actionsOf(sku) {
  // Only the public listener serves the buyer's page; an engine of a cluster has none.
  const path = `shop/${encodeURIComponent(sku)}`;
  const shops = admin.served && !about.public_url ? []
    : [element("a", { text: "Shop", "aria-label": `Shop page of ${sku}`,
      href: admin.served ? reachable(about.public_url) + path : `/${path}` })];
  if (!admin.loggedIn) return shops;
  const button = element("button", { class: "small", text: "Manage", "aria-label": `Manage ${sku}` });
  button.addEventListener("click", () => controls.manage(sku));
  return [...shops, button];
}

/** Without any product the page says how to get the first one. */
function showEmpty() {
  const empty = about !== null && table.rows.size === 0;
  byId("empty").hidden = !empty;
  byId("table-box").hidden = about === null || empty;
  if (!empty || byId("empty").childElementCount) return;
  const admins = admin.served ? `${location.origin}/`
    : reachable(about.admin_url ?? "http://127.0.0.1:8081");
  const way = admin.loggedIn ? "Use “Open a sale” above, or ask the admin address:"
    : admin.served ? "Log in above to open one, or ask the admin address:"
      : "Open one on the admin page, or ask the admin address:";
  byId("empty").replaceChildren(
    element("p", { text: `No sale has been opened yet. ${way}` }),
    element("pre", { tabindex: "0", text: openingCommand(admins) }),
    element("p", { class: "muted",
      text: "seckill-local is the secret of a server that was given none." }));
}

function openingCommand(admins) {
  return `curl -X POST ${admins}v1/admin/skus/PHONE/open \\\n` +
    "  -H 'Authorization: Bearer seckill-local' -H 'Content-Type: application/json' \\\n" +
    `  -d '{"stock": 500, "limit_per_buyer": 2, "hold_seconds": 600}'`;
}
