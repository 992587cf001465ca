"""What the generators over HTTP send and count."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from engine.config import flatten, load_settings
from loadtest.bench_http.load import (
    NO_CONNECTION,
    NO_REPLY,
    Generator,
    Load,
    Sample,
    list_requests,
    order_requests,
    statuses,
    windows,
)
from loadtest.bench_http.overload import Window, _excess, _until_normal
from loadtest.bench_http.wrk import send_singles
from loadtest.http_client import HttpReply
from loadtest.http_processes import (
    READ_MODELS_OFF,
    check_store,
    empty_server,
    order_server,
    store_in,
)
from loadtest.settings import as_environment


def test_every_order_of_endless_lists_has_an_id_of_its_own() -> None:
    sent = [msgspec.json.decode(each.body) for each in islice(list_requests(50, "l"), 20)]
    assert len({order["id"] for orders in sent for order in orders}) == 1_000


def test_single_orders_have_ids_of_their_own_and_a_deadline_when_asked() -> None:
    first, second = islice(order_requests("s", 250), 2)
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]
    assert first.headers["X-Request-Timeout-Ms"] == "250"
    assert "X-Request-Timeout-Ms" not in next(order_requests("s")).headers


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (201, b"{}", {201: 1}),
        (503, b'{"reason":"overloaded"}', {"503 overloaded": 1}),
        (200, b'[{"status":201},{"status":409},{"status":201}]', {201: 2, 409: 1}),
        (200, b'[{"status":201},{"status":777}]', {201: 1, "unreadable": 2}),
    ],
)
def test_orders_are_counted_by_their_own_status(
    status: int, body: bytes, found: dict[int | str, int]
) -> None:
    orders = 3 if status == 200 else 1
    assert statuses(HttpReply(status, {}, body), orders) == found


def test_an_answer_after_the_deadline_is_not_counted() -> None:
    load = Load()
    load.samples = [Sample(0, 0.9, 10, 0), Sample(0, 1.1, 10, 0), Sample(0, 0.1, 0, 10)]
    assert load.within(1.0) == 10


def test_samples_are_put_into_windows_by_when_they_were_due() -> None:
    samples = [Sample(due, 0, 1, 0) for due in (10.0, 10.4, 11.2)]
    assert [len(each) for each in windows(samples, 10.0, 0.5)] == [2, 0, 1]


async def test_requests_that_find_no_connection_are_counted_and_not_waited_for(
    tmp_path: Path,
) -> None:
    async with empty_server(tmp_path) as server:
        generator = Generator(server.public)
        load = await generator.open_loop(order_requests("o"), 1, 100_000, 0.1)
        generator.close()
    assert load.orders[201] >= 1
    assert load.orders[NO_CONNECTION] >= 1
    assert load.orders[201] == len(load.samples)


async def test_orders_without_a_reply_are_counted(tmp_path: Path) -> None:
    async with empty_server(tmp_path) as server:
        generator = Generator(server.public)
        await generator.connect(1)
    load = await generator.closed_loop(islice(order_requests("o"), 2), 1)
    assert load.orders == {NO_REPLY: 2}


KILLED_AT_WORK = """
import asyncio, os, signal, sys
from pathlib import Path
from loadtest.http_processes import order_server

async def main():
    async with order_server(Path("."), {}) as server:
        await server.open_sale()
        os.write(1, str(server.process.pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_a_server_ends_when_who_started_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_AT_WORK]
    killed = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, check=False)
    assert killed.returncode == -signal.SIGKILL
    try:
        server = os.pidfd_open(int(killed.stdout))
    except ProcessLookupError:
        return  # It was quick.
    ended, _, _ = select.select([server], [], [], 20)
    if not ended:
        signal.pidfd_send_signal(server, signal.SIGKILL)
    os.close(server)
    assert ended, "it went on and kept the store locked"


@pytest.mark.parametrize("servers", [(), ("nats://a:1", "nats://b:2")])
def test_a_server_reads_from_its_environment_what_it_was_given(servers: tuple[str, ...]) -> None:
    given = load_settings(None, {"cluster.servers": servers}, {})
    assert load_settings(None, {}, as_environment(flatten(given))) == given


async def test_wrk_sends_orders_that_are_all_sold(tmp_path: Path) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    async with order_server(tmp_path, READ_MODELS_OFF) as server:
        await server.open_sale()
        found = await send_singles(server, 4, 1, "wrk")
    assert (
        await check_store(store_in(tmp_path), found.requests, found.requests + 4) > found.requests
    )


def _window(at: float, phase: str, p95: float | None, *, good: float = 0, mib: float = 0) -> Window:
    return Window(at, phase, good, 0, p95, p95, mib)


@pytest.mark.parametrize(
    ("after_ms", "until"),
    [([5, 5], 0.0), ([500, 5, 5], 0.5), ([5, 500, 5, 5], 1.0), ([5, None, 500], None)],
)
def test_latency_is_normal_again_after_two_normal_windows(
    after_ms: list[float | None], until: float | None
) -> None:
    after = [_window(10 + place / 2, "after", ms) for place, ms in enumerate(after_ms)]
    assert _until_normal([_window(0, "normal", 5), *after], 5, 10) == until


def test_memory_of_accepted_orders_is_no_excess() -> None:
    grown = [
        _window(place / 2, "overload", 1, good=2 * 2**20, mib=100 + (place + 1) * 50)
        for place in range(4)
    ]
    # A window of half a second accepts 2**20 orders.
    assert _excess(grown, 0, 50, 100) == 0
    assert _excess(grown, 0, 40, 100) == 40
