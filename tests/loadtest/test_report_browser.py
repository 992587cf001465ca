"""A report in a real browser: on a wide screen, on a phone, in the dark, and on paper."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from loadtest.report import write_report
from tests.browsers import browser
from tests.loadtest.results_to_report import comparison, experiment, load_test, written

__all__ = ["browser"]

RESULTS = {"load test": load_test(), "experiment": experiment(), "strategies": comparison()}
PDF_BYTES_MIN = 20_000


@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize(("width", "scheme"), [(1_280, "light"), (400, "dark")])
def test_it_can_be_read_on_every_screen(
    browser: Browser, tmp_path: Path, kind: str, width: int, scheme: str
) -> None:
    path = write_report(written(tmp_path, RESULTS[kind]))
    dark = "dark" if scheme == "dark" else "light"
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=dark)  # type: ignore[arg-type]
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda each: said.append(each.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert said == []
    assert asked == [path.as_uri()]
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    plots = page.locator("figure svg")
    assert plots.count() >= 2
    for number in range(plots.count()):
        box = plots.nth(number).bounding_box()
        assert box is not None
        assert box["width"] > width / 2
        assert box["height"] > 60
    context.close()


def test_on_paper_all_settings_are_there_and_no_plot_is_cut(
    browser: Browser, tmp_path: Path
) -> None:
    path = write_report(written(tmp_path, experiment()))
    page = browser.new_page()
    page.goto(path.as_uri())
    last = page.locator("details dd").last
    assert not last.is_visible()
    page.emulate_media(media="print")
    assert last.is_visible()
    inside = "getComputedStyle(document.querySelector('figure')).breakInside"
    assert page.evaluate(inside) == "avoid"
    assert len(page.pdf(format="A4")) > PDF_BYTES_MIN
    page.close()
