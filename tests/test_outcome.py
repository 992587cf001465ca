"""A definite answer about every order, whatever happened to the first one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine import Rejected, Reserved, open_engine
from engine.config import load_settings
from engine.engine import CommandOutcome
from engine.errors import CommitOutcomeUnknown
from engine.inventory.events import Confirmed, HoldExpired, HoldExtended, Released, SaleOpened
from engine.inventory.stock import SOLD_OUT, Standing
from engine.runtime import initialise_store


@pytest.fixture(params=["sqlite", "mysql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "mysql":
        return str(request.getfixturevalue("mariadb_url"))
    return f"sqlite:{tmp_path / 'sale.db'}"


async def test_what_became_of_an_order_is_known_before_and_after_a_restart(store_url: str) -> None:
    settings = load_settings(None, {"store.url": store_url}, {})
    await initialise_store(settings)
    async with open_engine(settings) as engine:
        opened = await engine.open_sale("BAG", stock=4, hold_seconds=600, command_id="open")
        sold = [await engine.reserve("BAG", buyer="b", command_id=f"{n}") for n in range(4)]
        await engine.reserve("BAG", buyer="b", command_id="late")
        paid = await engine.confirm("BAG", "1", command_id="pay-1")
        back = await engine.release("BAG", "2", command_id="back-2")
        longer = await engine.extend_hold("BAG", "3", command_id="longer-3")
        refund = await engine.confirm("BAG", "2", command_id="pay-2")
        assert await engine.outcome("BAG", "late") == CommandOutcome("refused", rejected=SOLD_OUT)
    assert isinstance(opened, SaleOpened)
    assert isinstance(paid, Confirmed)
    assert isinstance(back, Released)
    assert isinstance(longer, HoldExtended)
    assert isinstance(refund, HoldExpired)
    first = sold[0]
    assert isinstance(first, Reserved)
    async with open_engine(settings) as engine:
        for name, event, standing in (
            ("open", opened, None),
            ("0", first, Standing("held", first.held_until_us)),
            ("1", sold[1], Standing("paid")),
            ("2", sold[2], Standing("released")),
            ("3", sold[3], Standing("held", longer.held_until_us)),
            ("pay-1", paid, None),
            ("pay-2", refund, None),
        ):
            assert not isinstance(event, Rejected)
            found = await engine.outcome("BAG", name)
            assert found == CommandOutcome("executed", (event,), None, standing), name
        # Refusals are not stored: the order may be sent again.
        assert await engine.outcome("BAG", "late") == CommandOutcome("unknown")
        assert await engine.outcome("BAG", "never") == CommandOutcome("unknown")
        assert await engine.outcome("HAT", "0") == CommandOutcome("unknown")
        row = await engine.stock("BAG")
        assert row is not None
        assert (row.available, row.reserved, row.paid, row.hold_seconds) == (1, 2, 1, 600)


async def test_a_reservation_for_good_is_held_for_good() -> None:
    async with open_engine(load_settings(None, {"store.url": "memory:"}, {})) as engine:
        await engine.open_sale("BAG", stock=1)
        sold = await engine.reserve("BAG", buyer="b", command_id="0")
        assert isinstance(sold, Reserved)
        found = await engine.outcome("BAG", "0")
        assert found == CommandOutcome("executed", (sold,), None, Standing("held"))


async def test_an_order_that_is_not_clear_yet_is_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.stores.sqlite import SqliteStore

    settings = load_settings(None, {"store.url": f"sqlite:{tmp_path / 'sale.db'}"}, {})
    held, struck = asyncio.Event(), asyncio.Event()
    append, acquire = SqliteStore.append, SqliteStore.acquire

    async def lose_the_reply(self: SqliteStore, *args: object) -> None:
        await append(self, *args)  # type: ignore[arg-type]
        struck.set()
        raise CommitOutcomeUnknown("no reply")

    async def come_back_later(self: SqliteStore, *args: object) -> object:
        await held.wait()
        return await acquire(self, *args)  # type: ignore[arg-type]

    async with open_engine(settings) as engine:
        await engine.open_sale("BAG", stock=1)
        monkeypatch.setattr(SqliteStore, "append", lose_the_reply)
        monkeypatch.setattr(SqliteStore, "acquire", come_back_later)
        order = asyncio.create_task(engine.reserve("BAG", buyer="b", command_id="0"))
        await struck.wait()
        assert await engine.outcome("BAG", "0", timeout_ms=20) == CommandOutcome("in_doubt")
        monkeypatch.undo()
        held.set()
        sold = await order
        assert isinstance(sold, Reserved)
        found = await engine.outcome("BAG", "0")
        assert (found.status, found.events) == ("executed", (sold,))
