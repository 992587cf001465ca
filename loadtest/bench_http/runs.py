"""The runs behind the figures over HTTP. Each has a server and a store of its own, audited at its end."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from engine.config import load_settings
from engine.engine import Engine
from engine.inventory.audit import audit
from engine.inventory.events import Reserved
from engine.runtime import open_engine
from engine.testing.bare_store import BareCommits
from loadtest.bench.runs import STOCK, Audited
from loadtest.bench_http.load import Generator, list_requests, order_requests
from loadtest.bench_http.wrk import Singles, send_singles
from loadtest.http_client import HttpConnection
from loadtest.http_processes import (
    READ_MODELS_OFF,
    check_store,
    empty_server,
    order_server,
    store_in,
)
from loadtest.wrong import WrongAnswer

DEFAULTS: Final = "default settings"
OFF: Final = "read models off"
EMPTY: Final = "empty handler"
OVERRIDES: Final[Mapping[str, Mapping[str, Any]]] = {DEFAULTS: {}, OFF: READ_MODELS_OFF}

CONNECTIONS_BY_LIST: Final[Mapping[int, int]] = {100: 32, 1_000: 8, 10_000: 4}
"""Enough that the server always has a list waiting, and not so many that its queue refuses some."""


class Lonely(NamedTuple):
    """Milliseconds of an order at a time: over HTTP, in process, and of a bare commit."""

    http: list[float]
    engine: list[float]
    commit: list[float]


async def singles(
    directory: Path, kind: str, connections: int, seconds: float, generator: str, audited: Audited
) -> Singles:
    """Single orders of `connections` buyers at a server of `kind`."""
    if kind == EMPTY:
        async with empty_server(directory) as server:
            return await send_singles(server, connections, seconds, generator)
    async with order_server(directory, OVERRIDES[kind]) as server:
        await server.open_sale()
        found = await send_singles(server, connections, seconds, generator)
    # wrk hangs up while the last order of each connection is under way.
    audited.events += await check_store(
        store_in(directory), found.requests, found.requests + connections
    )
    return found


async def lists(directory: Path, kind: str, size: int, orders: int, audited: Audited) -> float:
    """Orders/s of lists of `size`, all encoded before the clock starts; all must be accepted."""
    connections = CONNECTIONS_BY_LIST.get(size, 4)
    count = max(connections, orders // size)
    ready = list(itertools.islice(list_requests(size, "l"), count))
    async with order_server(directory, OVERRIDES[kind]) as server:
        await server.open_sale()
        generator = Generator(server.public)
        # Not timed: what a process does at its first list.
        first = await generator.closed_loop(
            itertools.islice(list_requests(size, "w"), connections), connections
        )
        load = await generator.closed_loop(iter(ready), connections)
        generator.close()
    total = first.orders + load.orders
    if total != {201: size * (count + connections)}:
        raise WrongAnswer(f"not every order of a list was accepted: {dict(total)}")
    audited.events += await check_store(store_in(directory), total[201])
    return load.orders[201] / load.seconds


async def lonely(directory: Path, orders: int, audited: Audited) -> Lonely:
    """One order at a time: over HTTP, in process and a bare commit in turn, on the same disk."""
    took = Lonely([], [], [])
    bare = BareCommits(directory / "bare.db")
    settings = load_settings(environ={}, overrides={"store.url": f"sqlite:{directory / 'own.db'}"})
    async with order_server(directory, OVERRIDES[DEFAULTS]) as server:
        await server.open_sale()
        connection = await HttpConnection.connect(*server.public)
        async with open_engine(settings) as engine:
            await engine.open_sale("HOT", stock=STOCK, command_id="open")
            for number, request in enumerate(itertools.islice(order_requests("a"), orders)):
                began = time.perf_counter()
                reply = await connection.request(
                    "POST", request.path, request.body, request.headers
                )
                answered = time.perf_counter()
                outcome = await engine.reserve("HOT", buyer="alone", command_id=f"l-{number}")
                decided = time.perf_counter()
                bare.commit()
                took.commit.append((time.perf_counter() - decided) * 1_000)
                took.engine.append((decided - answered) * 1_000)
                took.http.append((answered - began) * 1_000)
                if reply.status != 201 or type(outcome) is not Reserved:
                    raise WrongAnswer(f"a lonely order was refused: {reply.status}, {outcome}")
            audited.events += await _audited(engine)
        connection.close()
    bare.close()
    audited.events += await check_store(store_in(directory), orders)
    return took


async def _audited(engine: Engine) -> int:
    report = await audit(engine.reader)
    if not report.ok:
        raise WrongAnswer(f"the audit failed: {[each for each in report.checks if not each.ok]}")
    return report.checked_events


def percentile(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent))
