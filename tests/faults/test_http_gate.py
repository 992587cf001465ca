"""A sale over HTTP behind a Redis that is killed and flushed in the middle of it.

No oversell, no stop, and who already has a unit is never told "sold out". How long a false one may last is
tested in tests/gate/test_redis_faults.py.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from engine.inventory.audit import audit
from engine.runtime import open_reader
from engine.testing.redis_server import RedisServer
from tests.gate.waiting import until
from tests.servers import need
from tests.service.serving import Served, served

STOCK = 300
BUYERS = 900
AT_ONCE = 60
STALENESS_MS = 500


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    need("redis-server")
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.close()


@pytest.fixture
def service(tmp_path: Path, redis: RedisServer) -> Iterator[Served]:
    with served(
        tmp_path, gate__url=redis.url(), gate__staleness_ms_max=str(STALENESS_MS)
    ) as running:
        yield running


@pytest.fixture
async def client(service: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.public, timeout=30) as made:
        yield made


async def buy(client: httpx.AsyncClient, sku: str, key: str) -> httpx.Response:
    return await client.post(
        f"/v1/skus/{sku}/reservations", json={"buyer": key}, headers={"Idempotency-Key": key}
    )


async def stopped_by_gate(service: Served, verdict: str = "sold_out") -> int:
    """Orders that the gate refused with this verdict."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{service.admin}/metrics")).text
    found = re.search(
        rf'^seckill_gate_checks_total{{verdict="{verdict}"}} (\S+)', text, re.MULTILINE
    )
    assert found is not None
    return int(float(found[1]))


@pytest.mark.parametrize("fault", ["killed", "flushed", "frozen"])
async def test_a_sale_goes_on_and_sells_every_unit_once_when_redis_is(
    fault: str, service: Served, redis: RedisServer, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    await asyncio.to_thread(service.open, "PHONE", STOCK)
    struck = asyncio.Event()
    answered = 0
    statuses: dict[str, int] = {}
    at_once = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        nonlocal answered
        async with at_once:
            reply = await buy(client, "PHONE", f"buyer-{number}")
        statuses[f"buyer-{number}"] = reply.status_code
        answered += 1
        if answered == BUYERS // 6 and not struck.is_set():
            struck.set()

    async def strike() -> None:
        await struck.wait()
        if fault == "killed":
            await asyncio.to_thread(redis.kill)
        elif fault == "frozen":
            redis.pause()
        else:
            await redis.query("FLUSHALL")

    async with asyncio.TaskGroup() as group:
        group.create_task(strike())
        for number in range(BUYERS):
            group.create_task(one(number))
    assert sorted(set(statuses.values())) == [201, 409]
    accepted = [key for key, status in statuses.items() if status == 201]
    assert len(accepted) == STOCK
    # Who has one, and asks again, still has it, although it is sold out.
    assert [(await buy(client, "PHONE", key)).status_code for key in accepted[:20]] == [201] * 20
    report = await audit(await open_reader(f"sqlite:{tmp_path}/seckill.db"))
    assert report.ok, report


async def test_who_is_refused_by_the_gate_is_sold_to_once_there_is_stock_again(
    service: Served, client: httpx.AsyncClient
) -> None:
    await asyncio.to_thread(service.open, "BAG", 1)
    assert (await buy(client, "BAG", "alice")).status_code == 201
    asked = 0

    async def gate_refuses() -> bool:
        nonlocal asked
        asked += 1
        assert (await buy(client, "BAG", f"early-{asked}")).status_code == 409
        return await stopped_by_gate(service) > 0

    await until(gate_refuses)
    assert (await buy(client, "BAG", "alice")).status_code == 201
    restock = {"Idempotency-Key": "more", "Authorization": "Bearer seckill-local"}
    async with httpx.AsyncClient(base_url=service.admin, headers=restock) as admin:
        await admin.post("/v1/admin/skus/BAG/restock", json={"quantity": 1})

    async def sold() -> bool:
        return (await buy(client, "BAG", "bob")).status_code == 201

    await until(sold)


async def test_a_buyer_who_is_too_fast_is_told_when_to_come_back(
    tmp_path: Path, redis: RedisServer
) -> None:
    settings = {"gate__orders_per_second_max": "0.01", "gate__orders_burst_max": "2"}
    (tmp_path / "fast").mkdir()
    with served(tmp_path / "fast", gate__url=redis.url(), **settings) as service:
        await asyncio.to_thread(service.open, "PHONE", 100)
        async with httpx.AsyncClient(base_url=service.public, timeout=30) as client:

            async def gate_knows() -> bool:
                return bool((await client.get("/readyz")).json()["gate"] == "trusted")

            await until(gate_knows)
            order = {"buyer": "greedy"}
            replies = [
                await client.post(
                    "/v1/skus/PHONE/reservations",
                    json=order,
                    headers={"Idempotency-Key": f"greedy-{n}"},
                )
                for n in range(4)
            ]
            assert [each.status_code for each in replies] == [201, 201, 429, 429]
            told = replies[-1]
            assert told.json()["reason"] == "too_fast"
            assert 0 < told.json()["retry_after_ms"] <= 100_000
            assert int(told.headers["retry-after"]) >= 1
            assert await stopped_by_gate(service, "too_fast") == 2
