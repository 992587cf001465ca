"""What a real server does to a sale: history and audit decide, and the fault must have struck.

Time passes for real here, because the server's own timers do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from engine.config import load_settings
from engine.engine import Engine
from engine.inventory.events import Reserved
from engine.runtime import open_engine
from engine.stores.mysql_connection import SESSION, MysqlConnection
from engine.stores.mysql_url import parse_mysql_url
from engine.testing.mariadb_server import MariadbServer, mariadb_server
from engine.testing.mysql_proxy import Loss, mysql_proxy
from tests.faults.storm import Fault, storm, until
from tests.servers import need

STRIKES = 3
MANY = 100_000
"""Orders for several faults in one sale."""

SELLER = "CREATE USER shop@'%' IDENTIFIED BY 'secret'; GRANT ALL ON seckill.* TO shop@'%'"


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MariadbServer]:
    """A server of this test's own, with an empty database and a user without global rights."""
    need("mariadbd", "mysqld")
    settings = {"log_bin_trust_function_creators": "1", **getattr(request, "param", {})}
    with mariadb_server(tmp_path / "server", **settings) as running:
        running.execute(f"CREATE DATABASE seckill; {SELLER}")
        yield running


def shop(server: MariadbServer) -> str:
    return server.url(user="shop", password="secret")


@pytest.mark.parametrize("what", ["reply", "commit"])
async def test_a_lost_commit_is_cleared_up(
    server: MariadbServer, tmp_path: Path, what: Loss
) -> None:
    async with mysql_proxy(server.port) as proxy:

        async def fault(engine: Engine) -> None:
            proxy.lose(what)

        url = shop(server).replace(str(server.port), str(proxy.port))
        after = await storm(url, tmp_path / "history.jsonl", fault)
    assert proxy.lost == 1
    assert after.statistics.recoveries == 1
    after.prove()


async def test_a_killed_server_comes_back_and_the_sale_goes_on(
    server: MariadbServer, tmp_path: Path
) -> None:
    async def fault(engine: Engine) -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

    epochs = await _epoch_after(server, tmp_path, fault)
    assert epochs > 1


async def test_a_killed_connection_is_replaced(server: MariadbServer, tmp_path: Path) -> None:
    async def fault(engine: Engine) -> None:
        for number in await asyncio.to_thread(_connections, server):
            await server.query(f"KILL CONNECTION {number}")

    assert await _epoch_after(server, tmp_path, fault) > 1


async def test_a_row_locked_by_somebody_else_is_waited_for_again_and_again(
    server: MariadbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Error 1205 after one second; the lock is held for longer.
    monkeypatch.setattr(
        "engine.stores.mysql_connection.SESSION",
        (*SESSION, "SET SESSION innodb_lock_wait_timeout = 1"),
    )

    async def fault(engine: Engine) -> None:
        other = await MysqlConnection.open(parse_mysql_url(shop(server)))
        for _ in range(STRIKES):
            epoch = await asyncio.to_thread(_epoch, server)
            await other.run_all(["BEGIN", "SELECT * FROM stock WHERE sku = 'SKU-1' FOR UPDATE"])
            # The partition is taken back after the error, and waits for the row again.
            await until(partial(_epoch_rose, server, epoch))
            await other.run("ROLLBACK")
            await _sell_more(engine)
        other.close()

    await server.query("SET GLOBAL innodb_monitor_enable = 'lock_timeouts'")
    after = await storm(shop(server), tmp_path / "history.jsonl", fault, orders=MANY)
    after.prove()
    assert await asyncio.to_thread(_counted, server, "lock_timeouts") >= STRIKES


async def test_a_deadlock_undoes_a_batch_that_is_written_again(
    server: MariadbServer, tmp_path: Path
) -> None:
    async def fault(engine: Engine) -> None:
        other = await MysqlConnection.open(parse_mysql_url(shop(server)))
        # The server undoes whoever wrote less: this one writes more than any batch.
        await other.run("CREATE TABLE ballast (n BIGINT PRIMARY KEY)")
        numbers = ",".join(f"({n})" for n in range(20_000))
        for _ in range(STRIKES):
            await other.run_all(["BEGIN", f"INSERT INTO ballast VALUES {numbers}"])
            await other.run("SELECT * FROM stock WHERE sku = 'SKU-1' FOR UPDATE")
            # The writer now holds its partition and waits for the stock row.
            await until(lambda: _somebody_waits(server))
            await other.run("UPDATE partitions SET epoch = epoch WHERE partition_id = 0")
            await other.run("ROLLBACK")
            await _sell_more(engine)
        other.close()

    after = await storm(shop(server), tmp_path / "history.jsonl", fault, orders=MANY)
    after.prove()
    # Each was undone, taken back and written anew.
    assert await asyncio.to_thread(_epoch, server) == 1 + STRIKES
    assert await asyncio.to_thread(_counted, server, "lock_deadlocks") == STRIKES


async def _sell_more(engine: Engine) -> None:
    """Return when selling goes on."""
    accepted = engine.statistics().accepted
    await until(lambda: engine.statistics().accepted > accepted)


async def test_a_server_that_turned_read_only_sells_again_when_it_turns_back(
    server: MariadbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fault(engine: Engine) -> None:
        await server.query("SET GLOBAL read_only = 1")
        await until(lambda: "error 1290" in caplog.text)
        await server.query("SET GLOBAL read_only = 0")

    assert await _epoch_after(server, tmp_path, fault) > 1


async def test_a_paused_server_leaves_nobody_without_an_answer(
    server: MariadbServer, tmp_path: Path
) -> None:
    async def fault(engine: Engine) -> None:
        server.pause()
        # Longer than every deadline: those in flight are told "unknown", the queued "not executed".
        await until(lambda: engine.statistics().unknown > 0)
        server.resume()

    after = await storm(shop(server), tmp_path / "history.jsonl", fault, queue__deadline_ms=500)
    assert after.tally.unknown_answers > 0
    after.prove()


@pytest.mark.parametrize("server", [{"max_allowed_packet": "128K"}], indirect=True)
async def test_a_small_packet_makes_smaller_batches(server: MariadbServer, tmp_path: Path) -> None:
    async def fault(engine: Engine) -> None:
        pass

    after = await storm(shop(server), tmp_path / "history.jsonl", fault, concurrency=2_000)
    assert max(after.statistics.batch_sizes) < 1_000
    after.prove()


async def test_the_newer_of_two_engines_sells_and_the_older_one_stops(
    server: MariadbServer, tmp_path: Path
) -> None:
    settings = load_settings(None, {"store.url": shop(server)}, {})

    async def fault(engine: Engine) -> None:
        async with open_engine(settings) as newer:
            outcome = await newer.reserve("SKU-1", buyer="newer", command_id="newer")
            assert isinstance(outcome, Reserved)
            # The older one is fenced at its next batch, and says so to everybody who asks.
            await until(lambda: not engine.statistics().residents)

    after = await storm(shop(server), tmp_path / "history.jsonl", fault)
    assert after.report.ok
    assert after.tally.failed > 0
    assert "another owner" in " ".join(after.tally.samples) or "owned" in " ".join(
        after.tally.samples
    )


async def _epoch_after(server: MariadbServer, tmp_path: Path, fault: Fault) -> int:
    """Storm with `fault`, prove the outcome, and return the epoch: above 1 after a take-over."""
    after = await storm(shop(server), tmp_path / "history.jsonl", fault)
    after.prove()
    return await asyncio.to_thread(_epoch, server)


def _epoch(server: MariadbServer) -> int:
    return int(server.execute("SELECT MAX(epoch) FROM partitions", "seckill"))


def _epoch_rose(server: MariadbServer, before: int) -> bool:
    return _epoch(server) > before


def _connections(server: MariadbServer) -> list[int]:
    rows = server.execute("SELECT id FROM information_schema.processlist WHERE user = 'shop'")
    return [int(row) for row in rows.split()]


def _somebody_waits(server: MariadbServer) -> bool:
    # Counted now; the tables of lock waits may be a tenth of a second old.
    status = server.execute("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")
    return int(status.split()[1]) > 0


def _counted(server: MariadbServer, what: str) -> int:
    """A counter of InnoDB since the server was started."""
    where = f"WHERE name = '{what}' AND enabled"
    return int(server.execute(f"SELECT count FROM information_schema.innodb_metrics {where}"))
