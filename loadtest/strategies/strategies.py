"""The same orders through every strategy, in turn, each in a database of its own.

    seckill simulate --strategies all --store-url mysql://...

A baseline is run with every pool size in every repeat, and its best one counts. Baselines answer so
much less that they are stopped after SECONDS_MAX; rates are per second. Every run is checked against
the tables it wrote: nothing oversold, no acknowledged order lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from engine.clock import SystemClock
from engine.cqrs.event_store import StoreInfo
from engine.cqrs.messages import Answer, Command
from engine.errors import ConfigError
from engine.event_loop import run_async
from engine.runtime import initialise_store
from engine.stores.mysql_url import MysqlAddress, parse_mysql_url
from loadtest.results import STRATEGIES, Strategy
from loadtest.scratch import scratch_database, scratch_store
from loadtest.simulation.crowd import Crowd
from loadtest.simulation.simulate import Plan, run_sale
from loadtest.strategies.baselines import SHOPS, Pool, RowLock, count_stock, make_tables
from loadtest.strategies.redis_lua import RedisLua, check_redis

GROUP_COMMIT: Final = "group-commit"
ROW_LOCK: Final = "row-lock"
REDIS_LUA: Final = "redis-lua"

CONNECTIONS: Final = (4, 8, 16, 32, 64)
"""Pool sizes that every baseline is tried with, unless --connections names others."""

CONNECTIONS_MAX: Final = 1_000

SECONDS_MAX: Final = 4.0


class StrategyRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one strategy. `connections` is 0 where the engine chooses.

    `accepted_per_s` counts until the last answer, `durable_per_s` until the last order was durable:
    only redis-lua answers before that.
    `oversold` are units sold beyond the stock, `lost` acknowledged orders that are not stored;
    `stopped_early` tells that SECONDS_MAX ended it. An audit that found anything counts as a failed
    order.
    """

    strategy: Strategy
    connections: int
    accepted: int
    refused: int
    failed: int
    accepted_per_s: float
    durable_per_s: float
    p50_ms: float
    p99_ms: float
    seconds: float
    oversold: int
    lost: int
    stopped_early: bool


def parse_strategies(text: str, *, redis: bool = True) -> tuple[Strategy, ...]:
    """Read `all` or names separated by commas. Raises ConfigError naming what is allowed.

    Without `redis` all leaves out the one that needs it.
    """
    if text == "all":
        return tuple(each for each in STRATEGIES if redis or each != REDIS_LUA)
    names = dict.fromkeys(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in STRATEGIES]
    if unknown:
        raise ConfigError(
            f"--strategies takes all or some of {', '.join(STRATEGIES)}; got {unknown[0]!r}"
        )
    return tuple(each for each in STRATEGIES if each in names)


def parse_connections(text: str | None) -> tuple[int, ...]:
    """Read `4,16,64`. Raises ConfigError naming what is allowed."""
    if text is None:
        return CONNECTIONS
    parts = [part.strip() for part in text.split(",")]
    sizes = tuple(int(part) for part in parts if part.isdecimal() and part.isascii())
    if len(sizes) < len(parts) or not all(1 <= size <= CONNECTIONS_MAX for size in sizes):
        raise ConfigError(
            f"--connections takes whole numbers from 1 to {CONNECTIONS_MAX:,} separated by commas, "
            f"such as 4,16,64; got {text[:40]!r}"
        )
    return tuple(dict.fromkeys(sizes))


def check_strategies(
    plan: Plan, strategies: Sequence[Strategy], redis_url: str | None
) -> MysqlAddress:
    """Raise ConfigError unless `plan` can be run by all `strategies`; return their server."""
    url = plan.settings.store.url
    if not url.startswith("mysql:"):
        raise ConfigError("--strategies compares ways to use a server; give a mysql:// --store-url")
    if plan.history is not None:
        raise ConfigError("--history goes with a single run, not with --strategies")
    if plan.workload.limit_per_buyer and set(strategies) - {GROUP_COMMIT}:
        raise ConfigError("the baselines know no --limit-per-buyer; leave it out")
    if REDIS_LUA in strategies and redis_url is None:
        raise ConfigError("redis-lua needs a server: --redis-url redis://host:port/0")
    return parse_mysql_url(url)


def compare(
    plan: Plan,
    strategies: Sequence[Strategy],
    repeats: int,
    redis_url: str | None = None,
    connections: Sequence[int] = CONNECTIONS,
    done: Callable[[str], None] = lambda _: None,
) -> tuple[list[StrategyRun], StoreInfo]:
    """Run every strategy `repeats` times, taking turns. `done` is told what was finished.

    Raises ConfigError when the user may not create databases on the server, or when Redis does not
    answer.
    """
    check_strategies(plan, strategies, redis_url)
    if REDIS_LUA in strategies and redis_url is not None:
        # Asked now: its turn comes after all the others have run.
        run_async(check_redis(redis_url))
    with scratch_store(plan.settings, plan.directory) as settings:
        info = run_async(initialise_store(settings))
    runs: list[StrategyRun] = []

    def note(run: StrategyRun, repeat: int) -> None:
        runs.append(run)
        pool = f", {run.connections} connections" if run.connections else ""
        rate = f"{run.durable_per_s:,.0f} durable orders/s"
        done(f"{repeat}/{repeats} {run.strategy}{pool}: {rate}")

    for repeat in range(1, repeats + 1):
        for strategy in strategies:
            if strategy == GROUP_COMMIT:
                note(_group_commit(plan), repeat)
                continue
            for size in connections:
                note(_baseline(plan, strategy, size, redis_url), repeat)
    return runs, info


def _group_commit(plan: Plan) -> StrategyRun:
    with scratch_store(plan.settings, plan.directory) as settings:
        outcome = run_sale(msgspec.structs.replace(plan, settings=settings))
    if outcome.interrupted:
        raise KeyboardInterrupt  # Of the whole comparison, not of this one run.
    run, orders = outcome.run, outcome.run.orders
    return StrategyRun(
        strategy=GROUP_COMMIT,
        connections=0,
        accepted=orders.accepted,
        refused=orders.rejected_sold_out + orders.rejected_limit + orders.rejected_other,
        failed=orders.failed + orders.unknown + (not run.audit.ok),
        accepted_per_s=run.throughput.durable_per_s,
        durable_per_s=run.throughput.durable_per_s,
        p50_ms=run.latency_ms.p50,
        p99_ms=run.latency_ms.p99,
        seconds=run.throughput.seconds,
        oversold=run.audit.oversold,
        lost=run.audit.lost,
        stopped_early=run.stopped_early,
    )


def _baseline(
    plan: Plan, strategy: Strategy, connections: int, redis_url: str | None
) -> StrategyRun:
    with scratch_database(parse_mysql_url(plan.settings.store.url)) as place:
        return run_async(_run_baseline(place, plan, strategy, connections, redis_url))


async def _run_baseline(
    place: MysqlAddress, plan: Plan, strategy: Strategy, connections: int, redis_url: str | None
) -> StrategyRun:
    clock = SystemClock()
    await make_tables(place, plan.workload.skus, plan.workload.stock)
    shop = await _open_shop(place, plan, strategy, connections, redis_url)
    acknowledged: set[str] = set()

    async def execute(order: Command) -> Answer:
        answer = await shop.execute(order)
        if isinstance(answer, tuple):
            acknowledged.add(order.id)
        return answer

    crowd = Crowd(plan.workload, execute, clock, plan.concurrency)
    limit = asyncio.get_running_loop().call_later(SECONDS_MAX, crowd.stop)
    try:
        await crowd.run()
        await shop.settle()
        settled = clock.monotonic()
    finally:
        limit.cancel()
        await shop.close()
    tally = crowd.tally
    latency = tally.latency.percentiles()
    oversold, stored = await count_stock(place, plan.workload.stock)
    return StrategyRun(
        strategy=strategy,
        connections=connections,
        accepted=tally.accepted,
        refused=tally.rejected.total(),
        failed=tally.failed + tally.unknown,
        accepted_per_s=round(tally.accepted / tally.seconds, 1),
        durable_per_s=round(tally.accepted / (settled - tally.first_sent), 1),
        p50_ms=latency.p50,
        p99_ms=latency.p99,
        seconds=round(tally.seconds, 6),
        oversold=oversold,
        lost=len(acknowledged - stored),
        stopped_early=crowd.stopped,
    )


async def _open_shop(
    place: MysqlAddress, plan: Plan, strategy: Strategy, connections: int, redis_url: str | None
) -> RowLock | RedisLua:
    if strategy == REDIS_LUA:
        assert redis_url is not None
        workload = plan.workload
        return await RedisLua.open(redis_url, connections, place, workload.skus, workload.stock)
    return SHOPS[strategy](await Pool.open(place, connections))
