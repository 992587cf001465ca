"""Dead letters of checkout, settled by the command line while an engine runs and while none does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import load_settings
from engine.cqrs.send import Send
from engine.engine import Engine
from engine.inventory import checkout
from engine.inventory.order_messages import Line, OrderPlaced, PlaceOrder
from engine.runtime import open_engine
from tests.shell import Shell

TAKEN_UP = "The running engine takes them up in seconds, or the next one when it starts."


def seckill(*arguments: str) -> str:
    """Run the command in a process of its own; it must be content."""
    code = "import sys; from engine.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Orders that checkout cannot reserve."""
    bad: set[str] = set()
    reserve = checkout._reserve

    async def picky(order_id: str, event: OrderPlaced, send: Send) -> None:
        if order_id in bad:
            raise RuntimeError("I do not like it")
        await reserve(order_id, event, send)

    monkeypatch.setattr(checkout, "_reserve", picky)
    return bad


async def until_step(engine: Engine, order_id: str, step: str) -> None:
    while (order := await engine.queries.order(order_id)) is None or order.step != step:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def place(engine: Engine, *names: str) -> None:
    await engine.open_sale("PHONE", stock=9, hold_seconds=600, command_id="open")
    for name in names:
        await engine.execute(PlaceOrder(name, name, "ann", (Line("PHONE"),)))
    await engine.queries.caught_up()


async def test_a_running_engine_takes_up_what_another_process_hands_back(
    tmp_path: Path, poisoned: set[str]
) -> None:
    url = f"sqlite:{tmp_path / 'sale.db'}"
    poisoned |= {"o-1", "o-2"}
    async with open_engine(load_settings(None, {"store.url": url}, {})) as engine:
        await place(engine, "o-1", "o-2", "o-3")
        listed = await asyncio.to_thread(
            seckill, "dead-letters", "list", "checkout", "--store-url", url
        )
        assert "order o-1: RuntimeError('I do not like it')" in listed
        assert "2 dead letters\n" in listed
        poisoned.discard("o-1")
        told = await asyncio.to_thread(
            seckill, "dead-letters", "retry", "checkout", "--store-url", url
        )
        assert told.startswith(f"2 dead letters left\n{TAKEN_UP}\n")
        await until_step(engine, "o-1", "awaiting_payment")
        # Once it is written down that o-2 is still poison, nothing of it moves.
        while len(await engine.queries.dead_letters("checkout")) != 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
        told = await asyncio.to_thread(
            seckill, "dead-letters", "skip", "checkout", "--store-url", url
        )
        assert told == "0 dead letters left\n"
        order = await engine.queries.order("o-2")
        assert order is not None
        assert order.step == "reserving"


async def test_without_an_engine_they_wait_for_the_next_one(
    tmp_path: Path, poisoned: set[str]
) -> None:
    url = f"sqlite:{tmp_path / 'sale.db'}"
    settings = load_settings(None, {"store.url": url}, {})
    poisoned.add("o-1")
    async with open_engine(settings) as engine:
        await place(engine, "o-1")
    told = await asyncio.to_thread(seckill, "dead-letters", "retry", "checkout", "--store-url", url)
    assert told.startswith(f"1 dead letters left\n{TAKEN_UP}\n")
    poisoned.clear()
    async with open_engine(settings) as engine:
        await until_step(engine, "o-1", "awaiting_payment")


def test_a_name_that_nobody_has_is_refused_with_those_there_are(shell: Shell) -> None:
    assert shell.run("simulate", "--buyers", "5", "--store-url", "sqlite:sale.db") == 0
    for verb in ("list", "retry", "skip"):
        assert shell.run("dead-letters", verb, "cart", "--store-url", "sqlite:sale.db") == 2
        assert "nothing is called 'cart' here; there is: orders, sales, checkout" in shell.err
