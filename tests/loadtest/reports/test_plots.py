"""Every repeat is drawn, every setting is named, and no name is more than text."""

from __future__ import annotations

import random
import re
from xml.etree import ElementTree

import pytest

from loadtest.reports.latency_plot import (
    NAMES_MAX,
    Place,
    free_place,
    latency_against_throughput,
    named_places,
)
from loadtest.reports.plots import (
    NAME_CHARACTERS_MAX,
    Series,
    bars,
    dots,
    heat_map,
    lines,
    over_the_run,
)
from loadtest.results import Second

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ["秒杀", "$\\frac$", "_hidden", "a\x1bb", "<b>&amp;", "$x_1$ and $y$"]

SERIES = [Series("one", {1: [10, 11, 12], 10: [20, 21]}), Series("two", {1: [5], 10: [6, 7, 8]})]
TIMELINE = [Second(float(at), 1.0, 9, 5, 5, 2.0, 8.0 + at) for at in range(20)]
PLACES = [Place(f"s{n}", 100.0 * n, 3.0, 9.0 + n, "sizes", n == 3) for n in range(1, 9)]

PLOTS = {
    "lines": lambda: lines(SERIES, "x", "y", levels={"level": 4.0}, named={"named": (3, [9, 8])}),
    "latency": lambda: latency_against_throughput(PLACES),
    "heat map": lambda: heat_map({(1, 0): 5.0, (2, 0): 6.0, (1, 5): 7.0}, "x", "y"),
    "over time": lambda: over_the_run(TIMELINE, 100, given_back=False),
    "bars": lambda: bars({"1": 5.0, "2": 0.0}, "x", "y"),
    "dots": lambda: dots({"one": [1, 2, 3], "two": [500]}, "x"),
}


def texts(svg: bytes) -> list[str]:
    """What an SVG says, in the order of its elements."""
    return ["".join(each.itertext()) for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def marks(svg: bytes) -> int:
    """Dots outside the legend."""
    root = ElementTree.fromstring(svg)
    parents = {child: parent for parent in root.iter() for child in parent}
    found = 0
    for group in root.iter(f"{SVG}g"):
        if not group.get("id", "").startswith("PathCollection"):
            continue
        above = group
        while above in parents and not above.get("id", "").startswith("legend"):
            above = parents[above]
        if not above.get("id", "").startswith("legend"):
            found += len(list(group.iter(f"{SVG}use"))) or len(group.findall(f"{SVG}path"))
    return found


@pytest.mark.parametrize("name", PLOTS)
def test_the_same_figures_give_the_same_bytes(name: str) -> None:
    assert PLOTS[name]() == PLOTS[name]()


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_a_file_of_its_own_that_asks_for_nothing(name: str) -> None:
    svg = PLOTS[name]()
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    links = [
        value
        for each in root.iter()
        for key, value in each.items()
        if key.endswith(("href", "src"))
    ]
    assert [each for each in links if not each.startswith(("#", "data:image/png"))] == []


def test_every_repeat_is_a_dot() -> None:
    assert marks(PLOTS["lines"]()) == 3 + 2 + 1 + 3 + 2
    assert marks(dots({"one": [1, 2, 3]}, "x")) == 3 + 1  # and the stroke at the median


def test_every_setting_is_named_once_and_has_both_latencies() -> None:
    svg = latency_against_throughput(PLACES)
    assert marks(svg) == 2 * len(PLACES)
    assert [texts(svg).count(each.label) for each in PLACES] == [1] * len(PLACES)


@pytest.mark.parametrize("seed", range(3))
def test_settings_that_lie_close_are_all_named(seed: int) -> None:
    draw = random.Random(seed).uniform
    close = [
        Place(f"s{n}", draw(90_000, 110_000), 18.0, draw(20, 34), f"delay {n % 3}")
        for n in range(14)
    ]
    said = texts(latency_against_throughput([*close, Place("far", 600.0, 2_600.0, 3_400.0, "one")]))
    assert {each.label for each in close} <= set(said)
    assert "far" in said


def test_a_name_covers_neither_a_dot_nor_another_name() -> None:
    inside = (0.0, 0.0, 200.0, 200.0)
    dot = (96.0, 96.0, 104.0, 104.0)
    first = free_place((100.0, 100.0), "one", [dot], inside)
    assert first is not None
    assert first[1] > 104.0, "above its dot where nothing is in the way"
    over = (60.0, 104.0, 140.0, 140.0)
    second = free_place((100.0, 100.0), "one", [dot, over], inside)
    assert second is not None
    assert second != first
    assert free_place((100.0, 100.0), "one", [inside], inside) is None


def test_a_name_at_the_edge_stays_on_the_plot() -> None:
    inside = (0.0, 0.0, 200.0, 200.0)
    place = free_place((199.0, 199.0), "a long name", [], inside)
    assert place is not None
    assert place[0] < 170.0


def test_of_very_many_settings_the_best_and_the_chosen_are_named() -> None:
    worse = [Place(f"w{n}", 10.0 + n, 50.0, 900.0 - n, "sizes") for n in range(NAMES_MAX)]
    best, chosen = Place("best", 500.0, 1.0, 2.0, "sizes"), Place("c", 5.0, 1.0, 999.0, "x", True)
    assert [each.label for each in named_places([*worse, best, chosen])] == ["c", "best"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_whatever_it_is_made_of(name: str) -> None:
    shown = name.replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    by_legend = lines(SERIES, "x", "y", named={name: (3, [9, 8])})
    by_point = latency_against_throughput([Place(name, 5.0, 1.0, 2.0, "one")])
    by_row = dots({name: [1, 2]}, "x")
    assert shown in [each.strip() for each in texts(by_legend)]
    assert shown in [each.strip() for each in texts(by_row)]
    assert shown in [each.strip() for each in texts(by_point)]


def test_a_name_that_would_take_all_the_room_is_cut() -> None:
    said = texts(dots({"x" * 200: [1, 2]}, "durable orders/s"))
    assert "x" * (NAME_CHARACTERS_MAX - 1) + "…" in said


def test_a_stall_does_not_press_all_other_seconds_flat() -> None:
    stalled = [*TIMELINE, Second(20.0, 1.0, 9, 0, 0, 2.0, 4_000.0)]
    said = texts(over_the_run(stalled, 100, given_back=False))
    assert "1,000" in said
    assert "2,000" not in said, "powers of ten, so that 8 ms can be told from 16"


def test_an_axis_of_dots_says_when_it_is_logarithmic() -> None:
    assert "orders/s" in texts(dots({"one": [100, 110]}, "orders/s"))
    assert "orders/s (logarithmic)" in texts(dots({"one": [100], "two": [90_000]}, "orders/s"))


def test_sizes_that_lie_close_have_no_numbers_over_each_other() -> None:
    near = texts(lines([Series("a", {1: [1], 5_000: [2], 5_001: [3]})], "x", "y"))
    assert "5,000" in near
    assert "5,001" not in near


def test_few_powers_of_ten_are_numbered_between_too() -> None:
    svg = latency_against_throughput(
        [Place("a", 1.0, 20.0, 60.0, ""), Place("b", 2.0, 30.0, 90.0, "")]
    )
    assert sum(bool(re.fullmatch(r"[125]0+", each)) for each in texts(svg)) >= 2


def test_a_setting_without_latency_has_no_point() -> None:
    svg = latency_against_throughput([*PLACES, Place("none", 0.0, 0.0, 0.0, "sizes")])
    assert marks(svg) == 2 * len(PLACES)
    assert "none" not in texts(svg)
