"""The gate on Redis keeps the contract, whichever driver it speaks through."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Literal

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis import Redis

from engine.config import GateSettings
from engine.gate.gate import Gate
from engine.gate.redis_address import parse_redis_url
from engine.gate.redis_connection import RedisPyConnection
from engine.gate.redis_gate import RedisGate
from engine.gate.redis_link import Connect
from engine.gate.redis_scripts import CHECK, pack_orders, read_verdicts
from engine.gate.speed import SpeedLimit
from engine.testing.gate_contract import GateContract, order
from engine.testing.virtual_clock import VirtualClock
from tests.gate.waiting import real_seconds

_NUMBERS = count(1)

Client = Literal["redis", "asyncio-redis"]


def connector(url: str, client: Client = "redis") -> Connect:
    address = parse_redis_url(url)
    if client == "redis":
        return lambda: RedisPyConnection.open(address)
    pytest.importorskip("asyncio_redis")
    from engine.gate.asyncio_redis_connection import AsyncioRedisConnection

    return AsyncioRedisConnection.connector(address)


class OnRedis(GateContract):
    client: Client

    @pytest.fixture(autouse=True)
    def _server(self, redis_url: str) -> None:
        self.url = redis_url

    async def open_gate(self, settings: GateSettings) -> Gate:
        # Other tests share the server.
        own = msgspec.structs.replace(settings, prefix=f"contract-{self.client}-{next(_NUMBERS)}")
        # Time for our own timers stands still: no call takes too long, on however slow a machine.
        connect = connector(self.url, self.client)
        return await RedisGate.open(connect, "redis", own, VirtualClock())

    async def pass_time(self, seconds: float) -> None:
        await real_seconds(seconds)


class TestRedisGate(OnRedis):
    client = "redis"


class TestAsyncioRedisGate(OnRedis):
    client = "asyncio-redis"


@pytest.fixture(scope="module")
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url)


TIME = "redis.call('TIME')"


@example(interval_seconds=1, burst=1, steps=[(0, "alice"), (-11, "alice")])
@given(
    interval_seconds=st.integers(1, 100),
    burst=st.integers(1, 5),
    steps=st.lists(
        st.tuples(st.integers(-50, 400), st.sampled_from(["alice", "bob"])), min_size=1, max_size=30
    ),
)
def test_redis_and_memory_judge_the_speed_of_a_buyer_alike(
    redis: Redis, interval_seconds: int, burst: int, steps: list[tuple[int, str]]
) -> None:
    """At chosen times, also when a clock is set back. Seconds apart, so that no key expires."""
    limit = SpeedLimit.of(1 / interval_seconds, burst)
    assert TIME in CHECK.text
    script = CHECK.text.replace(TIME, "{ARGV[#ARGV - 2], ARGV[#ARGV - 1]}").replace(
        "for list = 5, #ARGV do", "for list = #ARGV, #ARGV do"
    )
    prefix = f"alike-{next(_NUMBERS)}"
    arrivals_us: dict[str, int] = {}
    now_us = 1_764_086_400_000_000
    for step_tenths, buyer in steps:
        now_us += step_tenths * 100_003
        arrivals_us[buyer], early_us = limit.order(arrivals_us.get(buyer, 0), now_us)
        time = (str(now_us // 1_000_000), str(now_us % 1_000_000))
        arguments = (prefix, "", str(limit.interval_us), str(limit.tolerance_us))
        orders = pack_orders([order("PHONE", buyer)])
        reply = redis.eval(script, 1, f"{prefix}:generation", *arguments, *time, orders)
        assert isinstance(reply, bytes)
        _, (verdict,) = read_verdicts(reply, 1)
        assert round(verdict.retry_after_seconds * 1_000_000) == early_us


async def test_gates_of_two_processes_share_flags_and_speeds(redis_url: str) -> None:
    settings = GateSettings(prefix="shared", orders_per_second_max=0.001, orders_burst_max=2)
    gates = [
        await RedisGate.open(connector(redis_url), "redis", settings, VirtualClock())
        for _ in range(2)
    ]
    first, second = gates
    try:
        await first.rebuild(["PHONE"])
        await second.rebuild(["BAG"])
        # The first notices at its next call, and joins instead of beginning a third generation.
        assert [each.kind for each in await first.check([order("BAG", "dave")])] == ["pass"]
        assert not first.trusted
        await first.rebuild(["PHONE", "BAG"])
        assert first.statistics().generation == second.statistics().generation
        for gate in gates:
            verdicts = await gate.check([order("PHONE", str(id(gate))), order("BAG", "carol")])
            assert [each.kind for each in verdicts] == ["sold_out"] * 2
        verdicts = await second.check([order("SHOES", "carol")])
        assert [each.kind for each in verdicts] == ["too_fast"]
    finally:
        await asyncio.gather(*(gate.close() for gate in gates))
