"""/healthz says that the process answers, /readyz whether buyers should be sent to it, and why not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.command_side.port import BrokerState
from engine.errors import PartitionLost, SeckillError, StoreUnavailable
from tests.service.api import Api, serving


async def ready(api: Api) -> tuple[int, dict[str, Any]]:
    replies = [await client.get("/readyz") for client in (api.public, api.admin)]
    assert replies[0] == replies[1]
    # What is alive is alive, ready or not.
    alive = await api.public.get("/healthz")
    assert (alive.status, alive.body) == (200, {"status": "ok"})
    return replies[0].status, replies[0].body


async def test_a_service_that_sells_is_ready_and_says_from_what() -> None:
    async with serving(read_models=True, store__partitions=3) as api:
        info = api.engine.info
        assert await ready(api) == (
            200,
            {
                "ready": True,
                "reason": "",
                "store": f"{info.kind} {info.version}",
                "durability": info.durability,
                "partitions": 3,
                "stopped_partitions": 0,
                "halted_skus": 0,
                "queue_depth": 0,
                "lag_commits": 0,
                "gate": "off",
                "role": "embedded",
                "served": [
                    {"partition": n, "owner": "", "epoch": 1, "position": 0, "queue_depth": 0}
                    for n in range(3)
                ],
                "brokers_silent_seconds": 0,
            },
        )


async def test_while_it_drains_it_is_not_ready_although_buyers_are_still_served() -> None:
    async with serving() as api:
        api.service.drain()
        status, body = await ready(api)
        assert (status, body["ready"], body["reason"]) == (503, False, "it is closing")
        await api.open("PHONE", 1)


async def test_with_a_stopped_partition_it_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as api:
        lost: list[SeckillError] = [PartitionLost("another owner")]
        monkeypatch.setattr(CommandSide, "stopped", lambda _: lost)
        status, body = await ready(api)
        assert (status, body["reason"]) == (503, "1 of 1 partition is stopped")
        assert (body["stopped_partitions"], body["partitions"]) == (1, 1)


@pytest.mark.parametrize(
    ("stopped", "unserved", "silent", "reason"),
    [
        (0, 0, 0.4, ""),
        (0, 0, 2.9, ""),
        (0, 2, 0.4, "the next owner of 2 of 3 partitions is awaited"),
        (
            1,
            2,
            0.4,
            "nobody owns 1 of 3 partitions; the next owner of 1 of 3 partitions is awaited",
        ),
        (3, 3, 0.4, "nobody owns 3 of 3 partitions"),
        (0, 0, 3.2, "the brokers have not been heard for 4 s"),
        (3, 3, 9.0, "the brokers have not been heard for 9 s; nobody owns 3 of 3 partitions"),
    ],
)
async def test_a_node_of_a_cluster_says_what_nobody_owns_and_whether_it_hears_its_brokers(
    monkeypatch: pytest.MonkeyPatch, stopped: int, unserved: int, silent: float, reason: str
) -> None:
    async with serving(read_models=True, store__partitions=3) as api:
        engine = api.engine
        cluster = msgspec.structs.replace(
            engine.settings.cluster, servers=("nats://of.the.test:1",), dead_after_ms=3_000
        )
        engine.settings = msgspec.structs.replace(engine.settings, cluster=cluster)
        served = engine.served()[unserved:]
        monkeypatch.setattr(CommandSide, "stopped", lambda _: [PartitionLost("x")] * stopped)
        monkeypatch.setattr(CommandSide, "served", lambda _: served)
        monkeypatch.setattr(CommandSide, "broker", lambda _: BrokerState(1, silent))
        status, body = await ready(api)
        assert (status, body["reason"]) == (200 if stopped < 3 else 503, reason)
        assert body["brokers_silent_seconds"] == (round(silent + 0.4) if silent > 3 else 0)


async def test_without_its_store_it_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(read_models=True) as api:

        async def gone() -> None:
            raise StoreUnavailable("canary: mysql://user:password@host")

        monkeypatch.setattr(api.engine.queries, "lag", gone)
        status, body = await ready(api)
        assert (status, body["reason"]) == (503, "the store cannot be reached")
        assert "canary" not in repr(body)


async def test_a_store_that_is_gone_is_seen_also_where_no_read_models_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as api:

        async def gone() -> None:
            raise StoreUnavailable("gone")

        monkeypatch.setattr(api.engine.reader, "read_places", gone)
        status, body = await ready(api)
        assert (status, body["reason"]) == (503, "the store cannot be reached")
