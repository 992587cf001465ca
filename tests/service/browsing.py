"""What people do on the pages, in words: for tests in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable

from playwright.sync_api import Locator, Page, Route

from engine.auth_settings import DEFAULT_ADMIN_SECRET

OpenPage = Callable[[str], Page]


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


def manage(page: Page, sku: str) -> Locator:
    """Open the dialog of a product."""
    page.get_by_role("button", name=f"Manage {sku}").click()
    return page.get_by_role("dialog")


def stream_of(*events: tuple[str, object]) -> Callable[[Route], None]:
    """Answers the page's stream with these events, and then never again."""
    lines = [f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in events]
    body = "retry: 600000\n\n" + "".join(lines)
    return lambda route: route.fulfill(content_type="text/event-stream", body=body)
