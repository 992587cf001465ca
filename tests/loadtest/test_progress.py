"""What is seen while a sale runs."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from loadtest.progress import Speedometer, describe, draw, show_progress
from loadtest.settings import WorkloadSettings
from loadtest.simulation.crowd import Tally
from loadtest.workload import GeneratedWorkload, generate


@pytest.fixture
def sale() -> tuple[Tally, GeneratedWorkload]:
    """Eight orders, seven SKUs of three units: SKU-2 sold out, one order of it refused."""
    workload = generate(WorkloadSettings(buyers=8, skus=7, stock=3))
    tally = Tally(workload)
    for number in range(3):
        order = Reserve(f"1-{number}", "SKU-2", f"buyer-{number}")
        tally.count(number, order, (Reserved(order.id, order.buyer, 1),))
        tally.latency.record(0.002)
    tally.rejected["sold_out"] = 1
    return tally, workload


def test_a_line_tells_the_state_of_the_sale(sale: tuple[Tally, GeneratedWorkload]) -> None:
    assert describe(*sale, 1_234.5) == (
        "4 of 8 orders answered, 1,234/s; 3 of 21 units sold, 1 refused; p99 2.0 ms"
    )


def test_the_panel_shows_the_skus_that_sell_most(sale: tuple[Tally, GeneratedWorkload]) -> None:
    console = Console(file=StringIO(), width=100, force_terminal=False)
    with console.capture() as capture:
        console.print(draw(*sale, 1_234.5))
    text = capture.get()
    assert "50%  4 of 8" in text
    assert "3 sold out" in text
    assert "0 sold, 3 left" in text
    assert "and 2 more" in text


@pytest.mark.parametrize("stock", [0, 5])
def test_the_panel_can_be_drawn_before_the_first_order(stock: int) -> None:
    workload = generate(WorkloadSettings(buyers=1, stock=stock))
    console = Console(file=StringIO(), width=100)
    with console.capture() as capture:
        console.print(draw(Tally(workload), workload, 0.0))
    assert "0%  0 of 1" in capture.get()


@pytest.mark.parametrize("terminal", [True, False])
async def test_a_sale_can_be_shorter_than_the_first_refresh(
    sale: tuple[Tally, GeneratedWorkload], terminal: bool
) -> None:
    console = Console(file=StringIO(), force_terminal=terminal)
    async with show_progress(*sale, console):
        pass
    assert isinstance(console.file, StringIO)
    assert "orders answered" not in console.file.getvalue()


def test_speed_is_measured_between_two_readings() -> None:
    speed = Speedometer(10.0)
    assert speed.read(100, 12.0) == pytest.approx(50)
    assert speed.read(100, 13.0) == 0
    assert speed.read(130, 13.5) == pytest.approx(60)
