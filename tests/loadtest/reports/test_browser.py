"""A report in a real browser: on a wide screen, on a phone, in the dark, and on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, ViewportSize

from loadtest.reports.command import write_report
from tests.browsers import browser
from tests.loadtest.reports.results_to_report import comparison, experiment, load_test, written

__all__ = ["browser"]

RESULTS = {"load test": load_test(), "experiment": experiment(), "strategies": comparison()}
PDF_BYTES_MIN = 20_000
WIDE: Final = 1_280
PAPER_WIDTH: Final = 688
"""A4 without its margins, in CSS pixels."""

SIDEWAYS: Final = """
[...document.querySelectorAll('.scroll')].filter(each => each.scrollWidth > each.clientWidth).length
"""

CUT_OFF: Final = """
[...document.querySelectorAll('figure svg')].flatMap(svg => {
    const edge = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text')].filter(text => {
        const box = text.getBoundingClientRect();
        return box.left < edge.left - 1 || box.right > edge.right + 1 ||
            box.top < edge.top - 1 || box.bottom > edge.bottom + 1;
    }).map(text => text.textContent);
})
"""

LEGEND_OVER_PLOT: Final = """
[...document.querySelectorAll('figure svg')].flatMap(svg => {
    const grounds = [...svg.querySelectorAll('[id^=axes] > [id^=patch]:first-child')]
        .map(ground => ground.getBoundingClientRect());
    return [...svg.querySelectorAll('[id^=legend]')].filter(legend => {
        const box = legend.getBoundingClientRect();
        return grounds.some(ground => box.left < ground.right && ground.left < box.right &&
            box.top < ground.bottom - 1 && ground.top < box.bottom - 1);
    }).map(legend => legend.textContent.trim());
})
"""

OVER_EACH_OTHER: Final = """
[...document.querySelectorAll('figure svg')].flatMap(svg => {
    const boxes = [...svg.querySelectorAll('text')]
        .filter(text => text.textContent.trim())
        .map(text => [text.textContent, text.getBoundingClientRect()]);
    return boxes.flatMap(([name, one], at) => boxes.slice(at + 1)
        .filter(([, other]) =>
            Math.min(one.right, other.right) - Math.max(one.left, other.left) > 2 &&
            Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 3)
        .map(([other]) => name + ' / ' + other));
})
"""
"""Texts of a plot that share more than their margins."""


@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize(
    ("width", "scheme"), [(WIDE, "light"), (WIDE, "dark"), (400, "light"), (400, "dark")]
)
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
        assert box["x"] >= 0, "no plot has to be scrolled to"
        assert box["x"] + box["width"] <= width
        # On a dark page too they lie on the light ground that they are drawn for.
        ground = plots.nth(number).evaluate("node => getComputedStyle(node.parentNode).background")
        assert "rgb(255, 255, 255)" in ground
    assert page.evaluate(CUT_OFF) == []
    assert page.evaluate(OVER_EACH_OTHER) == []
    assert page.evaluate(LEGEND_OVER_PLOT) == []
    if width == WIDE:
        assert page.evaluate(SIDEWAYS) == 0, "every column is seen without scrolling"
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


@pytest.mark.parametrize("kind", RESULTS)
def test_a_dark_screen_prints_on_white_paper_with_every_column(
    browser: Browser, tmp_path: Path, kind: str
) -> None:
    path = write_report(written(tmp_path, RESULTS[kind]))
    viewport: ViewportSize = {"width": PAPER_WIDTH, "height": 1_000}
    context = browser.new_context(viewport=viewport, color_scheme="dark")
    page = context.new_page()
    page.goto(path.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    context.close()
