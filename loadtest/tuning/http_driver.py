"""A tuning run over HTTP: a real server process, loaded through connections, audited at its end."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.config import Settings, flatten
from engine.cqrs.event_store import StoreInfo
from engine.errors import ConfigError
from engine.event_loop import run_async
from loadtest.bench_http.load import Generator, Load, list_requests, order_requests
from loadtest.http_processes import check_connections, check_store, order_server
from loadtest.latency import LatencyRecorder
from loadtest.machine import Machine, describe_machine
from loadtest.results import Batches
from loadtest.shop_client import BatchCounters, ShopClient, StoreAbout, batches_between
from loadtest.tuning.experiment import Cell, CellRun, Experiment
from loadtest.wrong import NotProven, WrongAnswer

LEFT_OUT: Final = (
    *("auth.", "gate."),
    *("service.host", "service.port", "service.admin_", "service.log_"),
)
"""Settings the server does not get: anybody may order, at once, on a port of its own."""

NO_ANSWER: Final = ("202", "429", "503")
"""Not known in the time an order has, which a setting may be too slow for, or told to come again."""


class Measured(NamedTuple):
    load: Load
    batches: Batches
    store: StoreAbout
    checked_events: int


def http_driver(experiment: Experiment) -> Callable[[Cell, int, Settings], tuple[CellRun, Machine]]:
    """A driver whose `concurrency` is connections, each with one request under way.

    Raises ConfigError for what a server with these settings would refuse.
    """
    _check(experiment)

    def drive(cell: Cell, repeat: int, settings: Settings) -> tuple[CellRun, Machine]:
        try:
            with tempfile.TemporaryDirectory(prefix="seckill-tune-") as folder:
                found = run_async(_measure(experiment, cell, settings, Path(folder)))
        except WrongAnswer as error:
            raise NotProven(f"batch size {cell.label}: {error}") from None
        store = found.store
        info = StoreInfo(store.kind, store.version, store.durability, "")
        return summarise_load(cell, repeat, found, experiment.warmup_seconds), describe_machine(
            info
        )

    return drive


def _check(experiment: Experiment) -> None:
    settings, most, size = experiment.settings, max(experiment.concurrencies), experiment.list_size
    if settings.store.url == "memory:":
        raise ConfigError(
            "--driver http needs a store that can be audited when the server has ended"
        )
    if experiment.sale.skus != 1:
        raise ConfigError("--driver http sells one SKU; --skus goes with --driver inproc")
    if most * size > settings.queue.depth_max:
        raise ConfigError(
            f"{most:,} requests of {size:,} orders at a time do not fit into queue.depth_max "
            f"({settings.queue.depth_max:,}): lower --concurrency or --list-size"
        )
    check_connections("--concurrency", most, settings)


async def _measure(
    experiment: Experiment, cell: Cell, settings: Settings, directory: Path
) -> Measured:
    url, warmup = settings.store.url, experiment.warmup_seconds
    asked = {key: each for key, each in flatten(settings).items() if not key.startswith(LEFT_OUT)}
    size = experiment.list_size
    requests = order_requests("t") if size == 1 else list_requests(size, "t")
    async with order_server(directory, asked) as server:
        assert server.admin is not None
        await server.open_sale()
        admin_url = f"http://{server.admin[0]}:{server.admin[1]}"
        shop = ShopClient(server.url, admin_url, DEFAULT_ADMIN_SECRET)
        store = (await asyncio.to_thread(shop.about)).store
        generator = Generator(server.public)
        await generator.connect(cell.concurrency)
        warm = asyncio.create_task(_read_after(warmup, shop))
        try:
            load = await generator.closed_loop(
                requests, cell.concurrency, warmup + experiment.seconds
            )
            batches = batches_between(await warm, await asyncio.to_thread(shop.batches))
        finally:
            warm.cancel()
            generator.close()
    sold, in_doubt = load.orders[201], load.orders[202] + load.orders["202"]
    if wrong := wrong_answers(load.orders):
        raise WrongAnswer(f"orders were answered by status: {wrong}")
    return Measured(load, batches, store, await check_store(url, sold, sold + in_doubt))


async def _read_after(seconds: float, shop: ShopClient) -> BatchCounters:
    await asyncio.sleep(seconds)
    return await asyncio.to_thread(shop.batches)


def wrong_answers(orders: Counter[int | str]) -> dict[int | str, int]:
    """Answers that an order of an open sale with enough stock must not get."""
    return {
        status: count
        for status, count in orders.items()
        if status != 201 and not str(status).startswith(NO_ANSWER)
    }


def summarise_load(cell: Cell, repeat: int, found: Measured, warmup_seconds: float) -> CellRun:
    """What was answered once the warm-up was over."""
    load, counted_from = found.load, found.load.began + warmup_seconds
    latency = LatencyRecorder()
    sold = 0
    for each in load.samples:
        if each.due + each.seconds >= counted_from:
            latency.record(each.seconds)
            sold += each.definite
    seconds = max(load.ended - counted_from, 1e-9)
    figures = latency.percentiles()
    return CellRun(
        cell=cell,
        repeat=repeat,
        orders=load.orders[201],
        seconds=round(seconds, 6),
        durable_per_s=round(sold / seconds, 1),
        transactions_per_s=round(found.batches.transactions / seconds, 1),
        size_mean=found.batches.size_mean,
        p50_ms=figures.p50,
        p99_ms=figures.p99,
        checked_events=found.checked_events,
        refused=sum(count for status, count in load.orders.items() if status != 201),
    )
