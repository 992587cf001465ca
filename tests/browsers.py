"""A real Chromium for tests, as a fixture to import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from engine.testing.mariadb_server import find_program
from tests.servers import need

CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome")

expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need(*CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_program(*CHROMIUM))
        yield browser
        browser.close()
