"""The pages in a real browser, against the real server: what operators and buyers see and can do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.testing.mariadb_server import find_program
from tests.servers import need
from tests.service.serving import Served, served

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
COUNTDOWN = re.compile(r"^(9|10):\d\d$")
"""What is left of a hold of ten minutes."""

FIGURE = re.compile(r"^[\d.,]+$")

REFUSED = re.compile(
    r"Failed to load resource: the server responded with a status of (401|404|409|503) "
)
"""The browser notes every refused request; these the pages ask for on purpose."""

GONE = re.compile(r"net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INCOMPLETE_CHUNKED_ENCODING)")

OpenPage = Callable[[str], Page]

expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need(*CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_program(*CHROMIUM))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server where nobody has to show who they are; every test sells SKUs of its own."""
    need(*CHROMIUM)
    with served(tmp_path_factory.mktemp("shop")) as server:
        yield server


@pytest.fixture
def errors() -> list[str]:
    """What the consoles of all pages have complained about; read by `open_page` in the end."""
    return []


@pytest.fixture
def open_page(browser: Browser, errors: list[str]) -> Iterator[OpenPage]:
    """Open an address as somebody new, with nothing stored. In the end no error may be left."""
    contexts = []

    def open_(url: str) -> Page:
        context = browser.new_context(viewport={"width": 360, "height": 740})
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda each: errors.append(each.text) if each.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [each for each in errors if not REFUSED.search(each)] == []


def sign_in(page: Page, secret: str = DEFAULT_ADMIN_SECRET) -> None:
    page.get_by_label("Admin secret").fill(secret)
    page.get_by_role("button", name="Log in").click()


def row(page: Page, sku: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=sku, exact=True))


def order(page: Page, buyer: str) -> None:
    """Fill the form and press the button."""
    page.get_by_label("Your name").fill(buyer)
    page.get_by_role("button", name="Buy").click()


def outcome(page: Page) -> Locator:
    return page.get_by_role("heading", level=2)


def expect_no_sideways_scrolling(page: Page) -> None:
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


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
    settings = {
        "auth__mode": "token",
        "auth__token_key": "the-key-that-signs-in-the-test-0001",
        "auth__shop_secret": "shop-of-the-test-1",
        # Long enough for the page to ask for its place.
        "batch__delay_ms_max": "1000",
    }
    with served(tmp_path_factory.mktemp("tokens"), **settings) as shop:
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
