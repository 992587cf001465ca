"""Pages in a real browser, for every test module of the service."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browsers import CHROMIUM, browser
from tests.servers import need
from tests.service.browsing import OpenPage
from tests.service.serving import Served, served

__all__ = ["browser"]

REFUSED = re.compile(
    r"Failed to load resource: the server responded with a status of (401|404|409|503) "
)
"""The browser notes every refused request; these the pages ask for on purpose."""


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
        context.set_default_timeout(60_000)
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
