"""The dashboard in a real browser, against the real server: what operators see and can do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Route, expect

from engine.testing.nats_server import NatsServer
from tests.service.browsing import (
    OpenPage,
    expect_no_sideways_scrolling,
    manage,
    row,
    sign_in,
    stream_of,
)
from tests.service.serving import Served, served

FIGURE = re.compile(r"^[\d.,]+$")


def test_an_operator_opens_a_sale_and_sees_it_sell_out(shop: Served, open_page: OpenPage) -> None:
    page = open_page(shop.admin)
    sign_in(page, "a guess")
    expect(page.get_by_role("alert")).to_have_text("That is not the admin secret.")
    sign_in(page)

    page.get_by_role("button", name="Open a sale").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Product (SKU)").fill("PHONE")
    dialog.get_by_label("Units for sale").fill("50")
    dialog.get_by_label("Seconds a unit is held").fill("0")
    dialog.get_by_role("button", name="Open the sale").click()
    phone = row(page, "PHONE")
    expect(phone.locator(".cell-left")).to_have_text("50")

    assert sorted(shop.sell("PHONE", 60)) == [201] * 50 + [409] * 10
    expect(phone.locator(".cell-left")).to_have_text("0")
    expect(phone.locator(".cell-sold")).to_have_text("50")
    expect(phone.get_by_role("cell").nth(5)).to_contain_text("10")
    expect(phone).to_contain_text("sold out")
    # What was counted is a figure also when it is none; a dash is for what nobody knows.
    for title in ("Orders/s", "Waiting", "Batches/s closed by"):
        figures = page.locator(".chart").filter(has_text=title).locator("output")
        expect(figures).to_have_text([FIGURE] * figures.count())
    expect_no_sideways_scrolling(page)

    phone.get_by_role("link", name="Shop").click()
    expect(page).to_have_url(f"{shop.public}/shop/PHONE")
    expect(page.get_by_role("button", name="Sold out")).to_be_disabled()


def test_an_operator_pauses_restocks_resumes_exports_and_audits(
    shop: Served, open_page: OpenPage
) -> None:
    shop.open("LAMP", stock=5)
    buyers = open_page(f"{shop.public}/shop/LAMP")
    stock = buyers.locator("#stock-text")
    expect(stock).to_have_text("5 available")
    page = open_page(shop.admin)
    sign_in(page)
    page.get_by_role("button", name="Manage LAMP").click()
    dialog = page.get_by_role("dialog")

    dialog.get_by_role("button", name="Pause").click()
    expect(stock).to_have_text("paused")
    expect(buyers.get_by_role("button", name="Buy")).to_be_disabled()
    dialog.get_by_label("Units").fill("7")
    dialog.get_by_role("button", name="Restock").click()
    expect(dialog.get_by_role("status")).to_have_text("7 units added to the stock.")
    dialog.get_by_role("button", name="Resume").click()
    expect(stock).to_have_text("12 available")
    expect(buyers.get_by_role("button", name="Buy")).to_be_enabled()

    with page.expect_download() as exported:
        dialog.get_by_role("button", name="Export CSV").click()
    assert exported.value.path().read_text().count("\n") == 5, "a head and four events"
    dialog.get_by_role("button", name="Done").click()
    page.get_by_role("button", name="Audit").click()
    expect(page.locator("#audit-verdict")).to_have_text("Every check that could be made holds.")


def test_the_owners_of_a_clusters_partitions_are_shown_to_operators(
    tmp_path: Path, nats: NatsServer, open_page: OpenPage
) -> None:
    with served(
        tmp_path,
        store__partitions="3",
        cluster__servers=json.dumps(nats.urls),
        cluster__monitor_urls=json.dumps(nats.monitor_urls),
        cluster__prefix="shown",
        cluster__node="node-a",
    ) as node:
        buyers = open_page(node.public)
        page = open_page(node.admin)
        expect(page.locator("#connection")).to_have_text("live")
        expect(page.get_by_text("Partitions by owner")).to_be_hidden()
        sign_in(page)
        expect(page.locator("#nodes")).to_have_text("node-a30-2; 0 waiting")

        told: dict[str, int] = {}

        def one_is_lost(route: Route) -> None:
            found = httpx.get(f"{node.admin}/readyz").json()
            found["served"].pop(1)
            found.update(told)
            route.fulfill(json=found, status=503)

        page.route("**/readyz", one_is_lost)
        tiles = page.locator("#nodes > div")
        expect(tiles).to_have_text(["node-a20, 2; 0 waiting", "nobody11; orders wait"])
        told["stopped_partitions"] = 1
        expect(tiles.nth(1)).to_have_text("nobody11; orders are refused")
        told["brokers_silent_seconds"] = 12
        expect(tiles.nth(1)).to_have_text(
            "nobody11; the brokers have not been heard for 12 seconds, orders are refused"
        )
        expect(tiles.nth(1)).to_have_class("lost")
        expect_no_sideways_scrolling(page)
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_text("Partitions by owner")).to_be_hidden()
        expect(buyers.get_by_text("Partitions by owner")).to_be_hidden()
        # Before the server goes, which they would complain about.
        page.close()
        buyers.close()


def test_a_server_alone_shows_no_owners_of_partitions(shop: Served, open_page: OpenPage) -> None:
    page = open_page(shop.admin)
    with page.expect_response("**/readyz"):
        sign_in(page)
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    expect(page.get_by_text("Partitions by owner")).to_be_hidden()


def test_rows_stand_still_while_somebody_is_about_to_use_them(
    shop: Served, open_page: OpenPage
) -> None:
    shop.open("ROW-A", stock=900)
    shop.open("ROW-B", stock=900)
    page = open_page("about:blank")
    page.clock.install()
    page.goto(shop.admin)
    page.set_viewport_size({"width": 1_100, "height": 900})
    sign_in(page)
    search = page.get_by_label("Search products")
    search.fill("row-")
    names = page.get_by_role("rowheader")
    expect(names).to_have_text(["ROW-A", "ROW-B"])
    page.clock.pause_at(page.evaluate("Date.now()") + 1_000)

    def sell_and_wait(sku: str, orders: int, sold: int) -> None:
        """Then two points have come: the second finds the clock where it is now."""
        shop.sell(sku, orders, prefix=f"{sku}-{sold}")
        expect(row(page, sku).locator(".cell-sold")).to_have_text(str(sold))
        page.clock.run_for(6_000)
        shop.sell(sku, 1, prefix=f"{sku}-{sold}-more")
        expect(row(page, sku).locator(".cell-sold")).to_have_text(str(sold + 1))

    page.get_by_role("button", name="Manage ROW-A").hover()
    sell_and_wait("ROW-B", 9, 9)
    expect(names).to_have_text(["ROW-A", "ROW-B"])
    # A product that is new moves nothing either.
    shop.open("ROW-C", stock=1)
    expect(names).to_have_text(["ROW-A", "ROW-B", "ROW-C"])

    dialog = manage(page, "ROW-A")
    page.mouse.move(1, 1)
    sell_and_wait("ROW-B", 10, 20)
    expect(names).to_have_text(["ROW-A", "ROW-B", "ROW-C"])
    dialog.get_by_role("button", name="Done").click()
    page.mouse.move(1, 1)
    page.locator("#table-box").focus()
    sell_and_wait("ROW-B", 9, 30)
    expect(names).to_have_text(["ROW-A", "ROW-B", "ROW-C"])

    search.focus()
    sell_and_wait("ROW-B", 9, 40)
    expect(names).to_have_text(["ROW-B", "ROW-A", "ROW-C"])
    # Not before five seconds have passed, which on this clock they do not.
    shop.sell("ROW-A", 500)
    expect(row(page, "ROW-A").locator(".cell-sold")).to_have_text("500")
    search.fill("row")
    expect(names).to_have_text(["ROW-B", "ROW-A", "ROW-C"])
    page.clock.run_for(5_000)
    expect(names).to_have_text(["ROW-A", "ROW-B", "ROW-C"])


def point(at_ms: int, interval_ms: int, decided: int) -> dict[str, object]:
    """A point of the stream in which so many orders were decided."""
    return {
        "id": at_ms,
        "at_ms": at_ms,
        "interval_ms": interval_ms,
        "decided": decided,
        "accepted": decided,
        "refused": {},
        "overloaded": 0,
        "expired": 0,
        "unserved": 0,
        "unknown": 0,
        "skus": [],
        "latency_ms": {"p50": decided, "p99": 2 * decided},
        "batches": decided,
        "batch_size_mean": 1.0,
        "batch_size_max": decided,
        "closed_by": {"idle": decided},
        "queue_depth": 0,
        "lag_commits": 0,
    }


def test_a_figure_is_the_same_in_its_tile_and_in_the_legend_of_its_chart(
    shop: Served, open_page: OpenPage
) -> None:
    begin = 1_764_086_400_000
    points = [point(begin, 1_000, 3), point(begin + 1_000, 1_000, 4), point(begin + 1_200, 200, 0)]
    points[2].update(overloaded=5, expired=3, unserved=4)
    about = httpx.get(f"{shop.public}/v1/about").json()
    snapshot = {"id": begin, "at_ms": begin, "about": about, "skus": [], "history": points[:2]}
    page = open_page("about:blank")
    page.route("**/v1/stream", stream_of(("snapshot", snapshot), ("point", points[2])))
    page.goto(shop.public)

    def tile(title: str) -> Locator:
        return page.locator("#headline > div").filter(has=page.get_by_text(title, exact=True))

    def legend(title: str) -> Locator:
        return page.locator(".chart").filter(has_text=title).locator("output")

    expect(tile("Told to retry").locator(".value")).to_have_text("12")
    detail = tile("Told to retry").locator(".detail")
    expect(detail).to_have_text("5 min; no owner 4; in doubt 0")
    expect(tile("Orders/s").locator(".value")).to_have_text("3.2")
    expect(legend("Orders/s")).to_have_text(["3.2", "3.2"])
    expect(tile("Latency p50").locator(".value")).to_have_text("3.6 ms")
    expect(legend("Latency, ms")).to_have_text(["8", "3.6"])
    expect(legend("Batch size, orders")).to_have_text(["4", "1"])


@pytest.mark.parametrize("fates", [("lost",), ("in doubt",), ("lost", "shed"), ("lost", "denied")])
def test_a_command_whose_answer_is_open_is_sent_again_under_its_key(
    fates: tuple[str, ...], shop: Served, open_page: OpenPage, errors: list[str]
) -> None:
    sku = f"DESK-{'-'.join(fates).replace(' ', '-')}"
    shop.open(sku, stock=5)
    page = open_page(shop.admin)
    sign_in(page)
    keys = []

    def lose(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        fate = dict(enumerate(fates, 1)).get(len(keys))
        if fate in ("lost", "in doubt"):
            route.fetch()  # it is done, but the page does not hear that
        if fate == "lost":
            route.abort()
        elif fate is not None:
            status = {"in doubt": 202, "shed": 503, "denied": 401}[fate]
            route.fulfill(status=status, json={})
        else:
            route.continue_()

    page.route("**/restock", lose)
    dialog = manage(page, sku)
    dialog.get_by_label("Units").fill("7")
    restock, answer = dialog.get_by_role("button", name="Restock"), page.locator("#manage-answer")
    for fate in fates:
        restock.click()
        expect(restock).to_be_enabled()
        if fate in ("lost", "in doubt"):
            expect(answer).to_contain_text("Do the same again to ask; it is done once.")
    restock.click()
    expect(answer).to_have_text("7 units added to the stock. Counted once, with the try before.")
    assert shop.stock(sku)["available"] == 12
    assert len(keys) == len(fates) + 1
    assert len(set(keys)) == 1

    restock.click()
    expect(answer).to_have_text("7 units added to the stock.")
    assert shop.stock(sku)["available"] == 19
    errors[:] = [each for each in errors if "net::ERR_FAILED" not in each]


def test_a_pause_is_no_repetition_of_one_before_the_sale_was_resumed(
    shop: Served, open_page: OpenPage, errors: list[str]
) -> None:
    shop.open("SHELF", stock=5)
    page = open_page(shop.admin)
    sign_in(page)

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/pause", lose, times=1)
    dialog = manage(page, "SHELF")
    dialog.get_by_role("button", name="Pause").click()
    dialog.get_by_role("button", name="Resume").click()
    dialog.get_by_role("button", name="Pause").click()
    expect(dialog.get_by_role("button", name="Resume")).to_be_visible()
    assert shop.stock("SHELF")["phase"] == "paused"
    errors[:] = [each for each in errors if "net::ERR_FAILED" not in each]
