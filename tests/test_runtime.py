"""The library as a program uses it: open, sell, read, close, on a real file."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from engine import (
    ConfigError,
    EngineClosed,
    InvalidCommand,
    Rejected,
    Reserve,
    Reserved,
    open_engine,
    open_reader,
)
from engine.config import Settings, load_settings
from engine.engine import new_command_id
from engine.errors import CommandIdReused, StoreLocked
from engine.inventory.events import (
    Restocked,
    SaleClosed,
    SaleOpened,
    SalePaused,
    SaleResumed,
    Withdrawn,
)
from engine.live_stock import StockRow
from engine.runtime import tune_garbage_collector


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, {"store.url": f"sqlite:{tmp_path / 'sale.db'}"}, {})


async def test_a_sale_from_its_opening_to_its_end(settings: Settings) -> None:
    async with open_engine(settings) as engine:
        assert await engine.stock("PHONE") is None
        opened = await engine.open_sale("PHONE", stock=10, limit_per_buyer=3, command_id="o")
        assert opened == SaleOpened("o", 10, 3)
        sold = await engine.reserve("PHONE", buyer="alice", quantity=2, command_id="a")
        assert sold == Reserved("a", "alice", 2)
        assert isinstance(await engine.restock("PHONE", quantity=5), Restocked)
        assert isinstance(await engine.withdraw("PHONE", quantity=1), Withdrawn)
        assert isinstance(await engine.pause_sale("PHONE"), SalePaused)
        paused = await engine.reserve("PHONE", buyer="bob")
        assert isinstance(paused, Rejected)
        assert paused.reason == "paused"
        assert isinstance(await engine.resume_sale("PHONE"), SaleResumed)
        assert isinstance(await engine.reserve("PHONE", buyer="bob"), Reserved)
        assert isinstance(await engine.close_sale("PHONE"), SaleClosed)
        assert await engine.stock("PHONE") == StockRow("PHONE", "closed", 11, 3, 0, 3, 0, 8)
        assert engine.statistics().accepted == 8


async def test_a_list_has_one_outcome_each_in_its_order(settings: Settings) -> None:
    async with open_engine(settings) as engine:
        for sku in ("A", "B"):
            await engine.open_sale(sku, stock=2)
        orders = [Reserve(f"{n}", "AB"[n % 2], "bob", 1) for n in range(6)]
        outcomes = await engine.reserve_many([*orders, Reserve("0", "A", "eve", 1)])
        assert [type(each) for each in outcomes] == [Reserved] * 4 + [Rejected] * 2 + [
            CommandIdReused
        ]
        assert await engine.reserve_many([]) == []
        with pytest.raises(InvalidCommand, match=r"quantity must be from 1 to"):
            await engine.reserve_many([Reserve("new", "A", "bob", 1), Reserve("x", "A", "bob", 0)])
        assert await engine.reserve_many([Reserve("new", "B", "bob", 1)]) == [
            Rejected("sold_out", "not enough units are left")
        ]


async def test_every_order_without_an_id_is_a_new_one(settings: Settings) -> None:
    async with open_engine(settings) as engine:
        await engine.open_sale("A", stock=5)
        first, second = [await engine.reserve("A", buyer="bob") for _ in range(2)]
        assert isinstance(first, Reserved)
        assert isinstance(second, Reserved)
        assert first.command_id != second.command_id
        with pytest.raises(InvalidCommand, match="must have 1 to 64 characters"):
            await engine.reserve("A", buyer="bob", command_id="")
    assert len({new_command_id() for _ in range(100)}) == 100


async def test_what_was_sold_is_there_after_closing_and_answered_alike(settings: Settings) -> None:
    async with open_engine(settings) as engine:
        await engine.open_sale("A", stock=5, command_id="o")
        first = await engine.reserve("A", buyer="bob", command_id="1")
    async with open_engine(settings) as engine:
        assert await engine.reserve("A", buyer="bob", command_id="1") == first
        assert engine.statistics().repeated == 1
        reopened = await engine.open_sale("A", stock=9)
        assert isinstance(reopened, Rejected)
        assert reopened.reason == "already_open"


async def test_closing_answers_what_is_queued_and_refuses_what_comes(settings: Settings) -> None:
    async with open_engine(settings) as engine:
        await engine.open_sale("A", stock=100)
        waiting = [asyncio.create_task(engine.reserve("A", buyer=f"b{n}")) for n in range(50)]
        await asyncio.sleep(0)
    assert {type(each) for each in await asyncio.gather(*waiting)} == {Reserved}
    with pytest.raises(EngineClosed):
        await engine.reserve("A", buyer="late")


async def test_an_error_in_the_block_closes_the_store_all_the_same(settings: Settings) -> None:
    async def fail() -> None:
        async with open_engine(settings) as engine:
            await engine.open_sale("A", stock=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with open_engine(settings) as engine:
        assert await engine.stock("A") is not None


async def test_a_store_is_open_once_and_readable_meanwhile(settings: Settings) -> None:
    async with open_engine(settings) as engine:
        await engine.open_sale("A", stock=1)
        with pytest.raises(StoreLocked):
            async with open_engine(settings):
                pass
        reader = await open_reader(settings.store.url)
        try:
            assert [each.aggregate_id for each in await reader.read_streams()] == ["A"]
        finally:
            await reader.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must be memory:, sqlite:PATH or mysql://user:password@host:port/database; got ''"),
        ("sqlite:", "got 'sqlite:'"),
        ("mariadb://u:secret@h/db", "got 'mariadb://...@h/db'"),
        ("some.db", "did you mean sqlite:some.db?"),
        ("oracle:x", "got 'oracle:x'"),
        ("memory:x", "got 'memory:x'"),
    ],
)
async def test_a_wrong_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        async with open_engine(load_settings(None, {"store.url": url}, {})):
            pass
    assert message in str(caught.value)


async def test_a_store_in_memory_has_no_readers() -> None:
    with pytest.raises(ConfigError, match="ends with its process"):
        await open_reader("memory:")


def test_tuning_makes_the_collector_look_less_often() -> None:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        tune_garbage_collector()
        assert gc.get_threshold()[0] > 700
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
