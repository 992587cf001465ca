"""A snapshot on a server that takes only packets smaller than it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Reserve, Reserved, open_engine, open_reader
from engine.config import COMMAND_SIDE_KEYS, load_settings
from engine.errors import CommandIdReused
from engine.runtime import initialise_store
from engine.testing.mariadb_server import mariadb_server
from tests.servers import need

ORDERS = 20_000
PACKET_BYTES = 1 << 20


def order(n: int) -> Reserve:
    return Reserve(f"{n:064}", "HOT", f"{n:064}", 1)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    need("mariadbd", "mysqld")
    with mariadb_server(tmp_path / "server", max_allowed_packet=str(PACKET_BYTES)) as server:
        server.execute("CREATE DATABASE IF NOT EXISTS seckill")
        yield server.url()


async def test_a_snapshot_larger_than_a_packet_is_kept_and_used(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = {
        **COMMAND_SIDE_KEYS,
        "store.url": url,
        "batch.size_max": 1_000,
        "residents.snapshot_events_min": ORDERS,
    }
    settings = load_settings(environ={}, overrides=overrides)
    await initialise_store(settings)
    async with open_engine(settings) as engine:
        await engine.open_sale("HOT", stock=10**9, limit_per_buyer=1)
        for first in range(0, ORDERS, 1_000):
            outcomes = await engine.reserve_many([order(n) for n in range(first, first + 1_000)])
            assert all(type(each) is Reserved for each in outcomes)
    reader = await open_reader(url)
    parts = await reader.read_snapshot_parts(("stock", "HOT"), 0, 999)
    head = await reader.load_snapshot(("stock", "HOT"))
    await reader.close()
    assert sum(len(each.data) for each in parts) > 2 * PACKET_BYTES
    assert head is not None
    assert head.version >= ORDERS
    async with open_engine(settings) as engine:
        old = order(7)
        assert await engine.reserve_many([old]) == [Reserved(old.id, old.buyer, 1)]
        with pytest.raises(CommandIdReused):
            await engine.reserve("HOT", buyer="thief", command_id=old.id)
    assert not [each for each in caplog.records if "snapshot" in each.message]
