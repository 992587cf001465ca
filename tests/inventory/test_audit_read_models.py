"""A read model that is not the fold of its events is found, wherever it is and however far it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest

from engine.config import load_settings
from engine.cqrs.query_side.read_model import ReadModelSnapshot
from engine.engine import Engine
from engine.inventory.audit import AuditReport, audit
from engine.inventory.orders_table import ORDERS
from engine.inventory.sales_table import SALES
from engine.runtime import initialise_store, open_engine, open_read_models, open_reader
from engine.stores.mysql_url import parse_mysql_url
from engine.stores.sqlite_views import views_path
from engine.testing.mariadb_server import MariadbServer
from tests.test_queries import buy, shop, until_step, url

__all__ = ["url"]


async def sell(engine: Engine) -> None:
    """Everything that changes a row: orders of several SKUs at every step, holds that end."""
    await engine.open_sale("PHONE", stock=50, hold_seconds=60)
    await engine.open_sale("CASE", stock=50, hold_seconds=60)
    await engine.open_sale("SOCK", stock=9, limit_per_buyer=2)
    paid, back, longer = [await buy(engine, "ann", quantity=2) for _ in range(3)]
    await engine.confirm("PHONE", paid)
    await engine.release("PHONE", back)
    await engine.confirm("PHONE", back)
    await engine.extend_hold("PHONE", longer)
    await buy(engine, "bob", "SOCK")
    await engine.restock("SOCK", quantity=3)
    await engine.withdraw("SOCK", quantity=1)
    lines = {"PHONE": 1, "CASE": 2}
    for name in ("paid", "off", "waiting"):
        await engine.place_order(name, buyer="cat", lines=lines)
    await engine.place_order("refused", buyer="cat", lines={"PHONE": 1, "NONE": 1})
    await engine.pay_order("paid")
    await engine.cancel_order("off")
    await until_step(engine, "paid", "confirmed")
    await until_step(engine, "off", "released")
    await engine.queries.caught_up()


@asynccontextmanager
async def without_read_models(url: str) -> AsyncIterator[Engine]:
    off = {"query_side.orders": "off", "query_side.sales": "off", "query_side.managers": False}
    settings = load_settings(None, {"store.url": url, **off}, {})
    await initialise_store(settings)
    async with open_engine(settings) as engine:
        yield engine


async def prove(url: str) -> AuditReport:
    reader = await open_reader(url)
    try:
        async with open_read_models(url) as read_models:
            return await audit(reader, None, read_models)
    finally:
        await reader.close()


def told(report: AuditReport) -> list[str]:
    return [finding for check in report.checks for finding in check.findings]


def rows_checked(report: AuditReport) -> list[int]:
    return [each.checked for each in report.checks if each.name.startswith("the read model")]


async def change(server: pytest.FixtureRequest, url: str, mode: str, statement: str) -> None:
    """Do to the read models what no program of ours would."""
    if url.startswith("sqlite:"):
        path = url.removeprefix("sqlite:")
        connection = apsw.Connection(path if mode == "inline" else views_path(path))
        connection.execute(statement)
        connection.close()
    else:
        mariadb: MariadbServer = server.getfixturevalue("mariadb")
        database = parse_mysql_url(url).database
        await asyncio.to_thread(mariadb.execute, statement, database)


@pytest.mark.parametrize("mode", ["async", "inline"])
async def test_read_models_of_an_honest_sale_are_cleared(url: str, mode: str) -> None:
    async with shop(url, mode) as engine:
        await sell(engine)
        beside = await prove(url)
        assert beside.ok, told(beside)
    report = await prove(url)
    assert report.ok, told(report)
    assert rows_checked(report)[0] == 11
    assert rows_checked(report)[1] >= 3
    assert report.notes == ()
    assert report.units.held == 2 + 3
    assert report.units.paid == 2 + 3


STRANGER = (
    "INSERT INTO orders_g1 (sku, reservation_id, buyer, state, order_id, quantity, held_until_us, "
    "reserved_at_us) VALUES ('SOCK', 'x', 'eve', 'final', '', 1, 0, 1)"
)
DEFECTS = [
    ("UPDATE orders_g1 SET state = 'held' WHERE state = 'paid'", "state is 'held' and should be"),
    ("UPDATE orders_g1 SET order_id = '' WHERE state = 'held'", "order_id is '' and should be"),
    (
        "UPDATE orders_g1 SET held_until_us = 7 WHERE state = 'final'",
        "held_until_us is 7 and should be 0",
    ),
    ("UPDATE orders_g1 SET buyer = 'eve' WHERE buyer = 'bob'", "buyer is 'eve' and should be"),
    ("DELETE FROM orders_g1 WHERE sku = 'SOCK'", "the row is missing"),
    (STRANGER, "orders 'SOCK' 'x': no event made this row"),
    ("UPDATE sales_g1 SET given_back = given_back + 1 WHERE sku = 'CASE'", "given_back is"),
    ("UPDATE sales_g1 SET added = 0", "added is 0 and should be"),
    ("DELETE FROM sales_g1 WHERE sku = 'SOCK'", "sales 'SOCK'"),
    (
        "UPDATE checkpoints SET position = position + 1 WHERE projection = 'sales'",
        "sales has taken",
    ),
]


@pytest.mark.parametrize("mode", ["async", "inline"])
async def test_a_row_that_no_event_accounts_for_is_named(
    url: str, mode: str, request: pytest.FixtureRequest
) -> None:
    async with shop(url, mode) as engine:
        await sell(engine)
    for statement, words in DEFECTS:
        before = told(await prove(url))
        await change(request, url, mode, statement)
        report = await prove(url)
        assert told(report) != before, statement
        assert words in str(told(report))
        assert {each.name[:14] for each in report.checks if not each.ok} == {"the read model"}


async def test_read_models_that_are_behind_are_compared_up_to_there(url: str) -> None:
    async with shop(url, "async") as engine:
        await sell(engine)
    async with without_read_models(url) as engine:
        await engine.reserve("SOCK", buyer="late")
    report = await prove(url)
    assert report.ok, told(report)
    assert rows_checked(report)[0] == 11
    assert [each.endswith("is 1 commit behind: compared up to there") for each in report.notes] == [
        True,
        True,
    ]


async def test_rows_change_while_they_are_audited(url: str) -> None:
    """They are compared as they were when the audit began, whoever feeds them meanwhile."""
    async with shop(url, "inline") as engine:
        await sell(engine)
        async with open_read_models(url) as read_models:
            for snapshot in read_models:
                await snapshot.live("orders")
            for n in range(20):
                await buy(engine, f"late-{n}")
            report = await audit(engine.reader, None, read_models)
    assert report.ok, told(report)
    assert rows_checked(report)[0] == 11
    assert any("commits behind" in each for each in report.notes)


async def test_a_rebuild_during_the_audit_is_no_finding(url: str) -> None:
    async with shop(url, "async") as engine:
        await sell(engine)
        async with open_read_models(url) as read_models:
            await engine.queries.rebuild("orders")
            await engine.queries.rebuild("sales")
            report = await audit(engine.reader, None, read_models)
    assert report.ok, told(report)
    report = await prove(url)
    assert (report.ok, rows_checked(report)[0]) == (True, 11)


async def test_what_waits_behind_a_dead_letter_is_left_out_and_noted(
    url: str, request: pytest.FixtureRequest
) -> None:
    async with shop(url, "async") as engine:
        await sell(engine)
    letter = "INSERT INTO dead_letters (projection, generation, partition_id, position, "
    letter += (
        "aggregate_type, aggregate_id, reason) VALUES ('orders', 1, 0, 1, 'stock', 'SOCK', 'x')"
    )
    await change(request, url, "async", letter)
    await change(request, url, "async", "UPDATE orders_g1 SET quantity = 9 WHERE sku = 'SOCK'")
    report = await prove(url)
    assert report.ok, told(report)
    assert rows_checked(report)[0] == 10
    assert len(report.notes) == 1
    assert "without 1 SKUs that have dead letters or unreadable events: SOCK" in report.notes[0]


def files(folder: Path) -> dict[str, bytes]:
    """Everything but the log and its index, which come and go with every reader of a store."""
    logs = ("-wal", "-shm")
    return {
        each.name: each.read_bytes() for each in folder.iterdir() if not each.name.endswith(logs)
    }


async def test_a_store_without_read_models_stays_without(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'sale.db'}"
    async with without_read_models(url) as engine:
        await engine.open_sale("SOCK", stock=5)
    before = files(tmp_path)
    report = await prove(url)
    assert (report.ok, rows_checked(report)) == (True, [])
    assert files(tmp_path) == before


async def test_a_file_of_somebody_else_is_no_read_model(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'sale.db'}"
    async with without_read_models(url) as engine:
        await engine.open_sale("SOCK", stock=5)
    connection = apsw.Connection(views_path(str(tmp_path / "sale.db")))
    for name in ("projections", "checkpoints", "dead_letters"):
        connection.execute(f"CREATE TABLE {name} (x)")
    connection.close()
    before = files(tmp_path)
    assert rows_checked(await prove(url)) == []
    assert files(tmp_path) == before


async def test_pages_follow_each_other_by_key(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.inventory.audit_read_models.PAGE_ROWS", 2)
    async with shop(url, "async") as engine:
        await sell(engine)
    report = await prove(url)
    assert report.ok, told(report)
    assert rows_checked(report)[0] == 11


async def test_a_snapshot_shows_what_is_live(url: str) -> None:
    async with shop(url, "async") as engine:
        await sell(engine)
        newest = [await engine.reader.read_position(n) for n in range(engine.reader.partitions)]
    async with open_read_models(url) as read_models:
        snapshot: ReadModelSnapshot = read_models[-1]
        for projection in (ORDERS, SALES):
            live = await snapshot.live(projection.name)
            assert live is not None
            assert (live.generation, live.tables, live.letters) == (1, projection.tables, ())
            assert dict(live.reached) == dict(enumerate(newest))
        assert await snapshot.live("nothing") is None
        assert "secret" not in snapshot.location


async def test_refused_orders_are_figures_like_any_other(
    url: str, request: pytest.FixtureRequest
) -> None:
    async with shop(url, "async") as engine:
        await engine.open_sale("SOCK", stock=1)
        await buy(engine, "ann", "SOCK")
        await engine.reserve("SOCK", buyer="bob")
        while not any(each.refused_sold_out for each in await engine.queries.sales_of("SOCK")):  # noqa: ASYNC110
            await asyncio.sleep(0)
        await engine.queries.caught_up()
    report = await prove(url)
    assert report.ok, told(report)
    assert report.notes == ()
    await change(request, url, "async", "UPDATE sales_g1 SET refused_sold_out = 7")
    assert any("refused_sold_out" in each for each in told(await prove(url)))
