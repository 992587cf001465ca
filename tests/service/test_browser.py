"""The buyer's page in a real browser, against the real server: what buyers see and can do."""

from __future__ import annotations

import re
from typing import Final

import httpx
import pytest
from playwright.sync_api import Browser, Route, expect

from tests.service.browsing import (
    OpenPage,
    expect_no_sideways_scrolling,
    order,
    outcome,
    row,
    stream_of,
)
from tests.service.serving import Served, served

COUNTDOWN = re.compile(r"^(9|10):\d\d$")
"""What is left of a hold of ten minutes."""

GONE = re.compile(r"net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INCOMPLETE_CHUNKED_ENCODING)")

BY_TOKEN: Final = {
    "auth__mode": "token",
    "auth__token_key": "a-token-key-that-is-long-enough-for-it",
    "auth__shop_secret": "a-shop-secret-that-is-long-enough-for-it",
}


def test_a_buyer_reserves_extends_and_gives_back(shop: Served, open_page: OpenPage) -> None:
    shop.open("BAG", stock=3, hold_seconds=600, limit_per_buyer=2)
    page = open_page(f"{shop.public}/shop/BAG")
    expect(page.get_by_text("At most 2 per buyer.")).to_be_visible()
    page.get_by_label("Units").fill("2")
    order(page, "alice")
    expect(outcome(page)).to_have_text("Reserved for you")
    expect(page.locator("#running-value")).to_have_text(COUNTDOWN)
    assert shop.stock("BAG")["available"] == 1

    page.reload()
    expect(outcome(page)).to_have_text("Reserved for you")
    expect_no_sideways_scrolling(page)
    extend = page.get_by_role("button", name="Extend once")
    with page.expect_response(re.compile("/extend$")) as extended:
        extend.click()
    assert extended.value.status == 200
    expect(extend).to_be_hidden()
    expect(page.locator("#running-value")).to_have_text(COUNTDOWN)

    page.get_by_role("button", name="Give it back").click()
    expect(outcome(page)).to_have_text("Given back")
    assert shop.stock("BAG")["available"] == 3
    page.get_by_role("button", name="Buy another").click()
    expect(page.get_by_role("button", name="Buy")).to_be_focused()


def test_a_second_buyer_is_told_that_it_is_sold_out(
    shop: Served, open_page: OpenPage, errors: list[str]
) -> None:
    shop.open("CUP", stock=1)
    first, second, blind = (open_page("about:blank") for _ in range(3))
    blind.route("**/v1/stream?*", lambda route: route.abort())
    for page in (first, second, blind):
        page.goto(f"{shop.public}/shop/CUP")
    order(first, "alice")
    expect(outcome(first)).to_have_text("It is yours")
    expect(second.locator("#stock-text")).to_have_text("sold out")
    expect(second.get_by_role("button", name="Sold out")).to_be_disabled()

    # Without live stock only the server knows, so a buyer may ask it.
    order(blind, "carol")
    expect(outcome(blind)).to_have_text("Sold out")
    expect(blind.get_by_text("You have bought nothing.")).to_be_visible()
    blind.close()
    errors[:] = [each for each in errors if "net::ERR_FAILED" not in each]


def test_a_keyboard_is_enough_to_buy(shop: Served, open_page: OpenPage) -> None:
    shop.open("PEN", stock=2, limit_per_buyer=1)
    page = open_page(f"{shop.public}/shop/PEN")
    button = page.get_by_role("button", name="Buy")
    expect(button).to_be_enabled()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Your name")).to_be_focused()
    page.keyboard.type("alice")
    page.keyboard.press("Tab")
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(outcome(page)).to_have_text("It is yours")
    expect(outcome(page)).to_be_focused()


def test_a_purchase_token_buys_once_and_its_buyer_sees_the_queue(
    browser: Browser, open_page: OpenPage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # The delay is long enough for the page to ask for its place.
    slow = {**BY_TOKEN, "batch__delay_ms_max": "1000"}
    with served(tmp_path_factory.mktemp("tokens"), **slow) as shop:
        shop.open("RING", stock=5, hold_seconds=600)
        purchase = {"buyer": "alice", "sku": "RING", "seconds": 600}
        token = shop.operate("tokens", purchase).json()["token"]
        page = open_page(f"{shop.public}/shop/RING#token={token}")
        expect(page).to_have_url(f"{shop.public}/shop/RING")
        expect(page.get_by_label("Your name")).to_be_hidden()
        with page.expect_request(re.compile("/v1/commands/.*/stream$")) as asked:
            page.get_by_role("button", name="Buy").click()
        assert asked.value.header_value("authorization") == f"Bearer {token}"
        expect(outcome(page)).to_have_text("You are in the queue")
        expect(outcome(page)).to_have_text("Reserved for you")

        # The same token in another browser is the same purchase.
        again = open_page(f"{shop.public}/shop/RING#token={token}")
        again.get_by_role("button", name="Buy").click()
        expect(outcome(again)).to_have_text("Reserved for you")
        assert shop.stock("RING")["available"] == 4

        stranger = open_page(f"{shop.public}/shop/RING")
        stranger.get_by_label("Purchase token").fill("v1.forged.token")
        stranger.get_by_role("button", name="Buy").click()
        expect(outcome(stranger)).to_have_text("Your purchase token is not accepted")
        for each in (page, again, stranger):
            each.close()


def test_a_typed_token_finds_its_reservation_again_after_a_reload(
    open_page: OpenPage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with served(tmp_path_factory.mktemp("typed"), **BY_TOKEN) as shop:
        shop.open("RING", stock=5, hold_seconds=600)
        page = open_page(f"{shop.public}/shop/RING")
        numbers = []
        for stock_left, buyer in ((4, "alice"), (3, "bob")):
            purchase = {"buyer": buyer, "sku": "RING", "seconds": 600}
            page.get_by_label("Purchase token").fill(
                shop.operate("tokens", purchase).json()["token"]
            )
            page.get_by_role("button", name="Buy").click()
            expect(outcome(page)).to_have_text("Reserved for you")
            numbers.append(page.locator("#order-number").text_content())

            page.reload()
            expect(outcome(page)).to_have_text("Reserved for you")
            expect(page.locator("#order-number")).to_have_text(numbers[-1] or "")
            assert shop.stock("RING")["available"] == stock_left
            assert page.evaluate("localStorage.length") == 0
            # A new tab knows nothing of it.
            page.close()
            page = open_page(f"{shop.public}/shop/RING")
        assert len(set(numbers)) == 2
        page.close()


def test_the_order_number_is_the_id_by_which_the_api_finds_the_order(
    shop: Served, open_page: OpenPage
) -> None:
    shop.open("MUG (red)", stock=3, hold_seconds=600)
    page = open_page(f"{shop.public}/shop/MUG (red)")
    with page.expect_response("**/reservations") as answered:
        order(page, "alice")
    id_ = answered.value.json()["id"]
    assert id_.startswith("MUG%20%28red%29:")
    number = page.locator("#order-number")
    expect(number).to_have_text(f"Order number {id_}")
    expect_no_sideways_scrolling(page)
    page.get_by_role("button", name="Give it back").click()
    expect(outcome(page)).to_have_text("Given back")
    expect(number).to_have_text(f"Order number {id_}")


def test_a_point_of_one_sku_needs_its_rows_only(shop: Served, open_page: OpenPage) -> None:
    sold = {"phase": "open", "reserved": 0, "paid": 0, "limit_per_buyer": 0, "hold_seconds": 0}
    at = {"id": 1, "at_ms": 1_764_086_400_000}
    about = httpx.get(f"{shop.public}/v1/about").json()
    first = {"sku": "TOY", "available": 9, "refused": {}, **sold}
    page = open_page("about:blank")
    events = stream_of(
        ("snapshot", {**at, "about": about, "skus": [first], "history": []}),
        ("point", {**at, "id": 2, "skus": [{**first, "available": 2}]}),
    )
    page.route("**/v1/stream?*", events)
    page.goto(f"{shop.public}/shop/TOY")
    expect(page.locator("#stock-text")).to_have_text("2 available")
    expect(page.get_by_role("button", name="Buy")).to_be_enabled()


def test_a_sale_in_which_nothing_happens_is_not_a_lost_one(
    shop: Served, open_page: OpenPage
) -> None:
    shop.open("TENT", stock=3)
    page = open_page("about:blank")
    page.clock.install()
    asked: list[str] = []
    page.on("request", lambda each: asked.append(each.url) if "/v1/stream" in each.url else None)
    page.goto(f"{shop.public}/shop/TENT")
    expect(page.locator("#stock-text")).to_have_text("3 available")
    page.clock.run_for(30_000)
    expect(page.locator("#stale")).to_be_hidden()
    assert len(asked) == 1
    # A silence that is much longer may be a dead connection; a new one shows that it was not.
    with page.expect_request("**/v1/stream?*"):
        page.clock.fast_forward(90_000)
    expect(page.locator("#stale")).to_be_hidden()


def test_buyers_need_no_figures_of_the_whole_sale(
    open_page: OpenPage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with served(tmp_path_factory.mktemp("hidden"), service__public_dashboard="false") as shop:
        shop.open("SOFA", stock=2, hold_seconds=600)
        page = open_page("about:blank")
        page.route(re.compile("/v1/stream$"), lambda route: route.fulfill(status=404, json={}))
        page.goto(f"{shop.public}/shop/SOFA")
        expect(page.locator("#stock-text")).to_have_text("2 available")
        order(page, "alice")
        expect(outcome(page)).to_have_text("Reserved for you")
        expect(page.locator("#stock-text")).to_have_text("1 available")
        page.get_by_role("button", name="Give it back").click()
        expect(page.locator("#stock-text")).to_have_text("2 available")
        page.close()


def test_an_order_that_is_shed_is_sent_again_under_its_number(
    shop: Served, open_page: OpenPage
) -> None:
    shop.open("HAT", stock=2)
    page = open_page(f"{shop.public}/shop/HAT")
    keys = []

    def shed_once(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) > 1:
            route.continue_()
            return
        # The body's time is the one that counts: the header's would outlast the test.
        problem = {"status": 503, "reason": "overloaded", "retry_after_ms": 900}
        route.fulfill(status=503, headers={"Retry-After": "600"}, json=problem)

    page.route("**/reservations", shed_once)
    order(page, "alice")
    expect(outcome(page)).to_have_text("The shop is very busy")
    expect(outcome(page)).to_have_text("It is yours")
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert shop.stock("HAT")["available"] == 1


def test_a_lost_server_is_shown_and_found_again(
    open_page: OpenPage, errors: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with served(tmp_path_factory.mktemp("crash")) as shop:
        shop.open("BOOK", stock=4)
        shop.sell("BOOK", 1)
        dashboard, buyers = open_page(shop.public), open_page(f"{shop.public}/shop/BOOK")
        chip = dashboard.locator("#connection")
        expect(chip).to_have_text("live")
        expect(buyers.locator("#stock-text")).to_have_text("3 available")
        shop.kill()
        expect(chip).to_have_text("connection lost")
        expect(dashboard.locator("#stale")).to_contain_text("Connection lost: the figures are")
        expect(buyers.locator("#stale")).to_contain_text("Connection lost: the stock is")
        shop.start()
        expect(chip).to_have_text("live")
        expect(row(dashboard, "BOOK").locator(".cell-left")).to_have_text("3")
        expect(buyers.locator("#stale")).to_be_hidden()
        dashboard.close()
        buyers.close()
    errors[:] = [each for each in errors if not GONE.search(each)]


def test_buyers_find_the_controls_on_the_operators_address_only(
    shop: Served, open_page: OpenPage
) -> None:
    page = open_page(shop.public)
    controls = page.get_by_role("link", name="Controls")
    expect(controls).to_have_attribute("href", f"{shop.admin}/")
    expect(page.get_by_label("Admin secret")).to_be_hidden()
    controls.click()
    expect(page.get_by_label("Admin secret")).to_be_visible()


def test_a_script_that_the_policy_forbids_does_not_run_and_is_noticed(
    shop: Served, open_page: OpenPage, errors: list[str]
) -> None:
    page = open_page(shop.public)
    ran = page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.ran = true';"
        " document.body.append(s); return window.ran ?? false; }"
    )
    assert ran is False
    expect(page.locator("#connection")).to_have_text("live")
    assert any("Content Security Policy" in each for each in errors)
    errors.clear()
