"""What somebody else did to the file: found out, named, and kept to the SKU it concerns."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from engine.config import Settings, load_settings
from engine.errors import AggregateHalted, SchemaMismatch
from engine.inventory.audit import audit
from engine.inventory.events import Reserved
from engine.runtime import open_engine, open_reader


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    """A store in which A and B are on sale and each has sold one unit."""
    url = f"sqlite:{tmp_path / 'sale.db'}"
    settings = load_settings(environ={}, overrides={"store.url": url})
    async with open_engine(settings) as engine:
        for sku in ("A", "B"):
            await engine.open_sale(sku, stock=5)
            await engine.reserve(sku, buyer="early", command_id=f"early-{sku}")
    return settings


def run_sql(settings: Settings, statement: str) -> None:
    """Do to the file what no program of ours would."""
    connection = apsw.Connection(settings.store.url.removeprefix("sqlite:"))
    try:
        connection.execute(statement)
    finally:
        connection.close()


async def test_a_changed_event_stops_its_sku_and_names_the_commit(settings: Settings) -> None:
    run_sql(settings, "DROP TRIGGER commits_never_updated")
    run_sql(
        settings,
        "UPDATE commits SET events = replace(events, '\"early\"', '\"other\"') "
        "WHERE aggregate_id = 'A' AND first_version = 2",
    )
    async with open_engine(settings) as engine:
        with pytest.raises(AggregateHalted, match=r"position 2 of partition 0 .* checksum"):
            await engine.reserve("A", buyer="alice")
        assert isinstance(await engine.reserve("B", buyer="bob"), Reserved)
        with pytest.raises(AggregateHalted):
            await engine.restock("A", quantity=1)
        assert engine.statistics().halted == 1
    reader = await open_reader(settings.store.url)
    report = await audit(reader)
    await reader.close()
    assert not report.ok


@pytest.mark.parametrize("change", ["version = 7", "available = 0"])
async def test_a_row_that_differs_from_its_events_stops_its_sku(
    settings: Settings, change: str
) -> None:
    run_sql(settings, f"UPDATE stock SET {change} WHERE sku = 'A'")
    async with open_engine(settings) as engine:
        with pytest.raises(AggregateHalted, match="row 'A' of stock must hold"):
            await engine.reserve("A", buyer="alice")
        assert isinstance(await engine.reserve("B", buyer="bob"), Reserved)
    reader = await open_reader(settings.store.url)
    commits = await reader.read_stream(("stock", "A"), 0, 10)
    await reader.close()
    assert len(commits) == 2


@pytest.mark.parametrize(
    "statement", ["UPDATE commits SET checksum = 0", "DELETE FROM commits WHERE position = 1"]
)
async def test_the_history_of_a_store_cannot_be_rewritten(
    settings: Settings, statement: str
) -> None:
    with pytest.raises(apsw.ConstraintError, match="append-only"):
        run_sql(settings, statement)


async def test_a_store_of_a_newer_schema_is_refused(settings: Settings) -> None:
    run_sql(settings, "UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(SchemaMismatch, match="99"):
        async with open_engine(settings):
            pytest.fail("a newer store was opened")
    with pytest.raises(SchemaMismatch, match="99"):
        await open_reader(settings.store.url)
